"""The embedded API finds a database that it can use, and a server that does not answer is named with its origin."""

from __future__ import annotations

import logging

import pytest

from flows.orchestration import embedded
from flows.orchestration.embedded import answers, run_flows
from flows.output.console import watcher
from pipeline.logs.discovery import Digests


@pytest.fixture(autouse=True)
def _fresh():
    embedded._embedded_api.cache_clear()
    yield
    embedded._embedded_api.cache_clear()


def test_where_the_users_database_cannot_be_used_the_api_gets_one_of_its_own(monkeypatch, tmp_path, caplog):
    homes = []

    def start(environment):
        homes.append(environment.get("PREFECT_HOME"))
        if len(homes) == 1:
            raise ConnectionError("Prefect's embedded API does not start: CommandError: no such revision")
        return "http://127.0.0.1:1/api"

    monkeypatch.setattr(embedded, "_start_api", start)
    monkeypatch.setenv("EDDA_CACHE", str(tmp_path))
    monkeypatch.setenv("PREFECT_HOME", "/broken")
    monkeypatch.setattr(logging.getLogger("flows"), "propagate", True)
    with caplog.at_level(logging.WARNING):
        assert embedded._embedded_api() == "http://127.0.0.1:1/api"
    assert homes == ["/broken", str(tmp_path / "prefect")]
    assert "no such revision" in caplog.text


def test_a_url_that_nobody_answers_at_is_no_server():
    assert answers("http://127.0.0.1:9/api") is False
    assert answers("nonsense") is False


@pytest.mark.parametrize("origin", ["environment", ".env", "prefect.toml", "pyproject.toml"])
def test_a_server_that_does_not_answer_is_named_with_where_its_url_is_from(monkeypatch, tmp_path, origin):
    from prefect.settings import PREFECT_API_URL, temporary_settings

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    url, named = "http://127.0.0.1:9/api", str(tmp_path / origin)
    if origin == "environment":
        monkeypatch.setenv("PREFECT_API_URL", url)
        named = "the environment"
    elif origin == ".env":
        (tmp_path / origin).write_text(f"PREFECT_API_URL={url}\n")
    else:
        table = "api" if origin == "prefect.toml" else "tool.prefect.api"
        (tmp_path / origin).write_text(f'[{table}]\nurl = "{url}"\n')
    with temporary_settings({PREFECT_API_URL: url}), pytest.raises(ConnectionError) as error:
        run_flows([], None, watcher(), Digests())
    assert str(error.value) == (
        f"Prefect's server at {url} (from {named}) does not answer; start it, unset PREFECT_API_URL there, "
        "or run with --no-prefect"
    )
