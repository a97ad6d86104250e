"""A run is on record from its start: interrupted, its finished stages are kept and what is missing is reported."""

from __future__ import annotations

import errno
import gc
import json
from pathlib import Path

import pytest
from fake_stages import Stages, edda, here, stages

from data_contracts.store.garbage import collect_garbage
from data_contracts.store.store import Store
from flows.config.run_config import load_config
from flows.runner.execute import Execution, make_roles, run_stages
from flows.runner.lookup import recorded_run
from flows.serve.open_run import exported_run

__all__ = ["here", "stages"]

STAGES = ["world", "ingest", "graph", "neighbours", "walk", "align", "train", "blend", "evaluate", "export"]


class Ended(BaseException):
    """The end of a run that nothing in it notices; tests/test_killed.py kills real ones."""


def ended_before(stage: str, *overrides: str) -> None:
    """A run that ends when it comes to a stage."""

    def work(plan, name, roles, watch):
        if name == stage:
            raise Ended
        return make_roles(plan, name, roles, watch)

    with pytest.raises(Ended):
        run_stages(load_config(Path("r.toml"), overrides), None, Execution(work, command="edda run r.toml --set x"))
    gc.collect()  # the ended run's claims


def run_command(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    capsys.readouterr()
    status = edda(*arguments)
    return status, " ".join(capsys.readouterr())


def test_what_a_killed_run_had_finished_is_no_garbage_and_not_made_again(here, stages: Stages) -> None:
    ended_before("align")
    assert collect_garbage(Path("edda-store")) == []
    outcome = run_stages(load_config(Path("r.toml")))
    assert outcome.made == [
        "pairs",
        "checkpoint-2022",
        "blend-2022",
        "metrics",
        "ranks",
        "embeddings",
        "recommendations",
    ]
    assert outcome.plan.store.run("r").attempt is None


def test_what_a_killed_training_goes_on_from_is_no_garbage_and_staging_of_what_is_made_is(here, stages: Stages) -> None:
    ended_before("train")
    planned = Store("edda-store").run("r").attempt.planned
    folders = [Path("edda-store/.staging", *planned[role]) for role in ("checkpoint-2022", "pairs")]
    for folder in folders:
        folder.mkdir(parents=True)
    collect_garbage(Path("edda-store"))
    assert [folder.exists() for folder in folders] == [True, False]


def test_a_killed_run_leaves_the_last_finished_one_to_readers(here, stages: Stages, capsys, caplog) -> None:
    run_stages(load_config(Path("r.toml")))
    finished = Store("edda-store").recorded(Store("edda-store").run("r"))
    ended_before("train", "pairs.k=2")
    assert Store("edda-store").recorded(Store("edda-store").run("r")) == finished
    assert collect_garbage(Path("edda-store")) == []
    assert {role: found.key for role, found in exported_run("r", None).artifacts.items()} == {
        role: found.key for role, found in finished.items()
    }
    assert "using what was made before" not in caplog.text, "it is complete, whatever came after"
    assert run_command(capsys, "run", "r.toml")[0] == 0
    assert Store("edda-store").run("r").attempt is None


def test_sql_on_a_view_that_is_not_made_yet_tells_what_is_missing(here, stages: Stages, capsys) -> None:
    ended_before("align")
    status, words = run_command(capsys, "inspect", "r", "--sql", "from pairs")
    assert status == 1
    assert "views: world, rejects, interactions, nodes, graph, neighbours, reach; run 'r', started" in words
    assert "missing: pairs," in words


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (["inspect", "r"], 0),
        (["inspect", "r.toml"], 0),
        (["inspect", "r", "--json"], 0),
        (["recommend", "r", "--domain", "books", "--user", "u"], 1),
        (["compare", "r"], 1),
    ],
)
def test_an_unfinished_run_says_what_is_missing_and_how_to_go_on(here, stages, capsys, command, status) -> None:
    ended_before("train")
    roles = "checkpoint-2022, blend-2022, metrics, ranks, embeddings, recommendations"
    missing = f"ended before it was finished; missing: {roles}; "
    found, text = run_command(capsys, *command)
    assert (found, f"{missing}resume it with: edda run r.toml --set x" in text) == (status, True)


def test_artifacts_of_an_unfinished_run_are_found_by_its_name(here, stages: Stages, capsys) -> None:
    ended_before("align")
    assert "nodes (contract version 1)" in run_command(capsys, "inspect", "r/nodes")[1]
    assert json.loads(run_command(capsys, "inspect", "r", "--json")[1])["artifacts"].keys() == {
        *("world", "rejects", "interactions", "nodes", "graph", "neighbours", "reach")
    }


def test_an_artifact_that_only_an_earlier_run_of_the_name_had_is_not_shown_as_its_own(here, stages, capsys) -> None:
    run_stages(load_config(Path("r.toml")))
    run_stages(load_config(Path("r.toml"), ["ingest.split.seed=1"]), "ingest")
    _, other = Store("edda-store").generations("r")
    name = f"r@{other.generation}"
    assert f"run '{name}' has no artifact 'pairs', must be one of" in run_command(capsys, "inspect", f"{name}/pairs")[1]
    assert run_command(capsys, "inspect", "r/pairs")[0] == 0


def test_a_run_in_progress_is_reported_from_an_interrupted_one(here, stages: Stages, capsys) -> None:
    def work(plan, name, roles, watch):
        if name == "export":
            assert (
                "is in progress; missing so far: embeddings, recommendations" in run_command(capsys, "inspect", "r")[1]
            )
        return make_roles(plan, name, roles, watch)

    run_stages(load_config(Path("r.toml")), execution=Execution(work))


def test_who_may_only_read_is_not_reported_whether_a_run_is_in_progress(here, stages, capsys, monkeypatch) -> None:
    def refused(_lock):
        raise OSError(errno.EROFS, "Read-only file system")

    ended_before("align")
    monkeypatch.setattr("data_contracts.store.store.is_held", refused)
    assert "is not finished; missing: pairs" in run_command(capsys, "inspect", "r")[1]


def test_what_stages_cost_before_a_kill_is_known_after_it(here, stages: Stages) -> None:
    ended_before("align")
    costs = run_stages(load_config(Path("r.toml"))).costs
    assert list(costs) == STAGES


def test_what_stages_cost_is_reported_of_an_interrupted_run_and_kept_where_only_its_record_was_missing(
    here, stages: Stages, monkeypatch, capsys
) -> None:
    ended_before("align")
    assert list(recorded_run("r", Store("edda-store")).costs) == STAGES[:5]

    def end(outcome) -> None:
        raise Ended

    with monkeypatch.context() as patch:
        patch.setattr("flows.runner.execute.record", end)
        with pytest.raises(Ended):
            run_stages(load_config(Path("r.toml")))
    assert run_command(capsys, "run", "r.toml")[0] == 0
    assert list(Store("edda-store").run("r").costs) == STAGES[:9]
