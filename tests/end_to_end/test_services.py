"""docker/compose.yaml without a container engine: its services as local processes, and a run that needs all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from compose_services import SERVICES, Services, missing
from object_storage import use_object_storage
from prefect_server import STAGES, Prefect
from small_run import SMALL_RUN, every_file

from flows.config.run_config import load_config
from flows.runner.execute import run_stages

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

UNAVAILABLE = missing()
IN_BUCKET = {} if "objects" in UNAVAILABLE else {"EDDA_CONTAINER_STORE": "s3://edda/store"}


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    services = Services(tmp_path_factory.mktemp("services"), IN_BUCKET)
    try:
        services.start([name for name in SERVICES if name not in UNAVAILABLE])
        yield services
    finally:
        left = services.stop()
    assert left == []


@pytest.mark.parametrize("name", SERVICES)
def test_service_is_healthy(services: Services, name: str) -> None:
    if name in UNAVAILABLE:
        pytest.skip(UNAVAILABLE[name])
    assert services.is_healthy(name), services.log(name)


def test_run_on_all_services_makes_the_same_files_as_one_process(
    services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, environment = tmp_path / "run.toml", services.environment("worker")
    file.write_text(SMALL_RUN)
    prefect = Prefect(services.folder, environment)
    on_cluster = [services.localise("worker", "compute.dask_scheduler=tcp://dask-scheduler:8786")]

    assert prefect.run("full", run=str(file), overrides=on_cluster) == 0, prefect.logs()
    assert (prefect.made(), prefect.last_run()["work_pool_name"]) == (list(STAGES), "edda-process")
    assert "Receive client connection: Client-" in services.log("dask-scheduler")

    run_stages(load_config(file, [f"store={tmp_path / 'local'}"]))
    if "objects" in services.running:
        keys = {name: value for name, value in environment.items() if name.startswith("AWS_")}
        use_object_storage({**keys, "EDDA_CACHE": str(tmp_path / "cache")}, monkeypatch)
    assert every_file(environment["EDDA_STORE"]) == every_file(tmp_path / "local")

    assert prefect.run("train", run=str(file), seed=7) == 0, prefect.logs()
    assert (prefect.made(), prefect.last_run()["work_pool_name"]) == (["train"], "edda-train")
