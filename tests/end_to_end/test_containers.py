"""Properties of docker/, read from its files without a container engine."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_world import TinyRun

from flows import NO_TELEMETRY
from tests.flows.serve.http_service import running

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "docker/Dockerfile").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker/compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ONCE = "deployments"
"""The service that ends when its work is done."""


def stages() -> dict[str, str]:
    """The Dockerfile's stages by name, each with its own lines."""
    parts = re.split(r"^FROM (\S+) AS (\S+)$", DOCKERFILE, flags=re.MULTILINE)
    return {name: f"FROM {source}\n{body}" for source, name, body in zip(*[iter(parts[1:])] * 3, strict=True)}


def pinned(name: str) -> str:
    """Version of a package in constraints.txt."""
    version = re.search(rf"^{name}==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert version
    return version[1]


def test_all_images_share_a_base_without_root():
    bodies = stages()
    assert [name for name, body in bodies.items() if body.startswith("FROM base\n")] == [
        "pipeline",
        "model",
        "serve",
    ]
    assert "\nUSER 1000:1000\n" in bodies["base"]
    assert "\nHEALTHCHECK " in bodies["base"]
    assert "ENTRYPOINT" not in DOCKERFILE


def test_images_have_neither_compilers_nor_torch_that_they_do_not_need():
    bodies = stages()
    assert "--from=without-torch" in bodies["pipeline"]
    assert "torch==" not in bodies["without-torch"]
    assert [name for name, body in bodies.items() if "g++" in body] == ["with-sparse"]
    assert "--from=for-serving" in bodies["serve"]
    assert "torch==" not in bodies["for-serving"]


def test_versions_in_the_dockerfile_are_those_of_the_project():
    assert f"torch=={pinned('torch')}" in DOCKERFILE
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    uv = re.search(r"^UV := (\S+)$", makefile, re.MULTILINE)
    assert uv
    assert DOCKERFILE.count(f"uv=={uv[1]}") == DOCKERFILE.count("uv==") == 2


@pytest.mark.parametrize("name", SERVICES)
def test_service_has_a_pinned_image_a_health_check_and_few_rights(name: str):
    service = SERVICES[name]
    assert re.search(r":\d+\.\d+", service["image"]) or service["build"]["target"] in stages()
    assert ("test" in service["healthcheck"]) == (name != ONCE)
    assert service["restart"] == ("no" if name == ONCE else "unless-stopped")
    assert "build" not in service or (service["cap_drop"], service["security_opt"]) == (
        ["ALL"],
        ["no-new-privileges:true"],
    )


def test_ports_are_published_on_loopback_only():
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {
        "objects": ["127.0.0.1:8333:8333"],
        "server": ["127.0.0.1:4200:4200"],
        "serve": ["127.0.0.1:8000:8000"],
    }


def test_services_depend_on_services_and_mount_volumes_that_exist():
    for service in SERVICES.values():
        assert set(service.get("depends_on", ())) <= set(SERVICES)
        named = {volume.split(":")[0] for volume in service.get("volumes", ()) if not volume.startswith("$")}
        assert named <= set(COMPOSE["volumes"])
    waits_for_health = [wait for service in SERVICES.values() for wait in service.get("depends_on", {}).items()]
    for name, wait in waits_for_health:
        assert wait["condition"] == ("service_completed_successfully" if name == ONCE else "service_healthy")


def test_workers_see_the_store_and_the_logs():
    for name in ("worker", "trainer", "dask-worker"):
        service = SERVICES[name]
        assert service["volumes"] == ["store:/store", "${EDDA_DATA:-./data}:/data:ro"]
        assert service["environment"].items() >= COMPOSE["x-store"].items()
        assert "objects" in service["depends_on"]


def test_workers_have_what_a_store_on_object_storage_needs():
    objects = SERVICES["objects"]
    assert objects["environment"].items() <= COMPOSE["x-store"].items()
    assert "-bucket=edda" in objects["command"]
    assert " s3fs\n" in stages()["without-torch"]


def test_telemetry_is_off_in_every_image():
    for name, value in NO_TELEMETRY.items():
        assert f"{name}={value}" in stages()["python"]
    assert "-master.telemetry=false" in SERVICES["objects"]["command"]


def test_the_service_is_started_only_if_asked_for_and_serves_the_store_to_those_with_the_token():
    serve = SERVICES["serve"]
    assert [name for name, service in SERVICES.items() if "profiles" in service] == ["serve"]
    assert (serve["volumes"], serve["environment"]["EDDA_SERVE_TOKEN"]) == (["store:/store"], None)
    assert serve["environment"].items() >= COMPOSE["x-store"].items()


def test_the_services_command_and_health_check_work(tiny_run: TinyRun, tmp_path: Path):
    """Started without a container: on a free port of loopback, with a store of its own."""
    serve = SERVICES["serve"]
    start, _, options = serve["command"][:2], serve["command"][2], serve["command"][3:]
    assert (start, options[:4]) == (["edda", "serve"], ["--host", "0.0.0.0", "--port", "8000"])
    with running("tiny", tiny_run.store, tmp_path, *options[4:], EDDA_SERVE_TOKEN="secret") as service:
        program = serve["healthcheck"]["test"][-1].replace(":8000/", f":{service.port}/")
        subprocess.run([sys.executable, "-c", program], check=True)


def test_the_serving_image_lacks_nothing_that_serving_imports(tiny_run: TinyRun):
    """Packages that the image leaves out cannot be imported here either."""
    (left_out,) = re.findall(r"for name in (.+); do", stages()["for-serving"])
    script = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in sys.argv[3].split():
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
import flows.cli.main, flows.cli.serve, flows.serve.server
from flows.serve.served_run import RunSource, ServedRun
from flows.serve.service import service
service(ServedRun(RunSource(sys.argv[1], sys.argv[2])))
"""
    subprocess.run([sys.executable, "-c", script, "tiny", str(tiny_run.store), left_out], check=True)
