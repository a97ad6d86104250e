"""Runs of one name wait for each other."""

import logging
import threading
from pathlib import Path

import pytest
from fake_stages import Stages, stages

from flows.config.run_config import RunConfig, load_config
from flows.runner.execute import Execution, make_roles, run_stages

__all__ = ["stages"]


class Waiting(logging.Handler):
    """Notices that a run waits."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().startswith("waiting for another run named 'r'"):
            self.seen.set()


def config(folder: Path, *overrides: str) -> RunConfig:
    file = folder / "r.toml"
    file.write_text('name = "r"\nstore = "store"\ntrain.alignment = 0.3\n[world]\n')
    return load_config(file, overrides)


def test_a_run_waits_for_another_of_its_name_and_finds_what_that_made(
    tmp_path: Path, stages: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    first_works, second_waits = threading.Event(), Waiting()
    logger = logging.getLogger("data_contracts.store.store")
    logger.addHandler(second_waits)
    logger.setLevel(logging.INFO)
    monkeypatch.setattr(logger, "propagate", False)  # Prefect's handlers complain outside of its flows

    def slowly(*work):
        first_works.set()
        assert second_waits.seen.wait(60)
        return make_roles(*work)

    first = threading.Thread(target=run_stages, args=(config(tmp_path), None, Execution(slowly)))
    first.start()
    try:
        assert first_works.wait(60)
        assert run_stages(config(tmp_path)).made == []
    finally:
        first.join()
        logger.removeHandler(second_waits)
    assert set(stages.calls.values()) == {1}


def test_a_run_of_another_name_waits_for_nobody(tmp_path: Path, stages: Stages) -> None:
    def within(*work):
        if work[1] == "export":
            assert run_stages(config(tmp_path, "name=other"), "walk").made == []
        return make_roles(*work)

    assert run_stages(config(tmp_path), execution=Execution(within)).made


def test_costs_stay_those_of_the_artifacts(tmp_path: Path, stages: Stages) -> None:
    first = run_stages(config(tmp_path))
    stages_of_a_run = ["ingest", "graph", "neighbours", "walk", "align", "train", "blend", "evaluate", "export"]
    assert list(first.costs) == ["world", *stages_of_a_run]
    again = run_stages(config(tmp_path, "train.seeds=[7]"), "train")
    assert again.costs["walk"] == first.costs["walk"]
    other = run_stages(config(tmp_path, "name=other"))
    assert other.costs == {}


@pytest.mark.parametrize("update", ["false", "true"])
def test_a_domain_that_the_last_run_had_and_the_logs_lack_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, update: str
) -> None:
    for domain in ("books", "films"):
        (tmp_path / f"{domain}.csv").write_text("user_id,item_id\nu,i\nv,i\nu,j\n")
    file = tmp_path / "r.toml"
    file.write_text("name = 'r'\nstore = 'store'\n[[logs]]\npath = '*.csv'\npath_pattern = '(?P<domain>[a-z]+)'\n")
    run_stages(load_config(file), "ingest")
    (tmp_path / "films.csv").unlink()
    assert "the last run" not in caplog.text
    run_stages(load_config(file, [f"update={update}"]), "ingest")
    said = "the last run 'r' had domain 'films' (3 interactions), which the logs do not have any more"
    assert [record.getMessage().startswith(said) for record in caplog.records if "last run" in record.msg] == [True]


def test_a_training_on_a_device_that_is_not_there_is_refused_before_anything_is_made(
    tmp_path: Path, stages: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ValueError, match=r"train\.device is .cuda., but this torch finds no CUDA device"):
        run_stages(config(tmp_path, "train.device=cuda"))
    assert set(stages.calls) <= {"world"}
    run_stages(config(tmp_path, "train.device=cuda"), "ingest")  # which needs none
    assert "interactions" in stages.calls
