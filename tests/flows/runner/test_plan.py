from types import SimpleNamespace

import pytest
from fake_stages import ALL, Stages, load_run_config, stages

from flows.config.run_config import load_config
from flows.runner.execute import is_finished, make_step, run_stages, stages_needed
from flows.runner.plan import make_plan, recorded_logs

__all__ = ["stages"]


def test_a_run_makes_every_artifact_once(tmp_path, stages: Stages):
    outcome = run_stages(load_run_config(tmp_path))
    assert outcome.made == ALL
    assert set(stages.calls.values()) == {1}


def test_a_finished_run_makes_nothing(tmp_path, stages: Stages):
    run_stages(load_run_config(tmp_path))
    stages.calls.clear()
    assert run_stages(load_run_config(tmp_path)).made == []
    assert is_finished(make_plan(load_run_config(tmp_path)))
    assert not stages.calls


@pytest.mark.parametrize(
    ("override", "remade"),
    [
        ("ingest.cold=keep", ALL),
        ('graph.anchor_kinds=["user"]', ALL[2:]),
        (
            "neighbours.top=7",
            ["neighbours", *ALL[7:]],
        ),
        ("reach.walks=7", ALL[5:]),
        ("pairs.k=2", ALL[6:]),
        ("train.epochs=2", ALL[7:]),
        ("evaluate.candidate_seed=1", ALL[7:]),
        ("train.select_by=auc", ALL[7:]),
        ("blend.users=9", ["blend-2022", "metrics", "ranks", "recommendations"]),
        ("evaluate.resamples=9", ["metrics", "ranks"]),
        ("export.top=3", ["embeddings", "recommendations"]),
        ("export.why=true", ["recommendations"]),
        ("train.seeds=[2022, 1]", ["checkpoint-1", "blend-1", "metrics", "ranks"]),
        ("compute.threads=1", []),
        ("tracking.tensorboard=curves", []),
        ("name=other", []),
    ],
)
def test_a_changed_setting_remakes_exactly_what_depends_on_it(tmp_path, stages: Stages, override, remade):
    run_stages(load_run_config(tmp_path))
    assert run_stages(load_run_config(tmp_path, override)).made == remade


def test_a_changed_log_remakes_everything(tmp_path, stages: Stages):
    run_stages(load_run_config(tmp_path))
    (tmp_path / "log.csv").write_text("user_id,item_id\nu,j\n")
    assert run_stages(load_run_config(tmp_path)).made == ALL


def test_training_reads_pairs_only_where_it_uses_them(tmp_path, stages: Stages):
    for override in ("train.alignment=0", "train.tables=inter"):
        plan = make_plan(load_run_config(tmp_path, override))
        assert set(plan.steps["checkpoint-2022"].parents) == {"interactions", "nodes", "graph", "neighbours"}
        assert "pairs" not in plan.roles()
    for overrides in ((), ("train.alignment=0", "train.pair_edges=0.5")):
        assert "pairs" in make_plan(load_run_config(tmp_path, *overrides)).steps["checkpoint-2022"].parents


def test_evidence_is_read_only_where_it_is_on(tmp_path, stages: Stages):
    plan = make_plan(load_run_config(tmp_path, "blend.evidence=false"))
    assert not {"neighbours", "blend-2022"} & set(plan.roles())
    for role in ("checkpoint-2022", "metrics", "recommendations"):
        assert not {"neighbours", "blend-2022"} & set(plan.steps[role].parents)
    assert run_stages(plan.config).made == [role for role in ALL if role not in ("neighbours", "blend-2022")]


def test_training_reads_neighbours_only_where_they_select_epochs(tmp_path, stages: Stages):
    plan = make_plan(load_run_config(tmp_path, "train.select_by=auc"))
    assert "neighbours" not in plan.steps["checkpoint-2022"].parents
    assert "neighbours" in plan.steps["blend-2022"].parents


def test_a_stage_makes_what_it_needs_and_no_more(tmp_path, stages: Stages):
    outcome = run_stages(load_run_config(tmp_path), "walk")
    assert outcome.made == ["rejects", "interactions", "nodes", "graph", "reach"]
    assert stages_needed(outcome.plan, "walk") == ["ingest", "graph", "walk"]


def test_a_stage_that_is_done_needs_nothing_before_it(tmp_path, stages: Stages):
    outcome = run_stages(load_run_config(tmp_path), "train")
    graph = outcome.artifacts["graph"]
    (graph.path / "manifest.json").unlink()
    assert is_finished(make_plan(load_run_config(tmp_path)), "train")
    assert run_stages(load_run_config(tmp_path)).made == ["graph", *ALL[8:]]


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path, stages: Stages):
    stages.failures["pairs"] = [KeyboardInterrupt()]
    with pytest.raises(KeyboardInterrupt):
        run_stages(load_run_config(tmp_path))
    stages.calls.clear()
    assert run_stages(load_run_config(tmp_path)).made == ALL[6:]
    assert stages.calls["interactions"] == 0


def test_the_plan_of_an_ungenerated_world_is_the_world(tmp_path, stages: Stages):
    run = tmp_path / "run.toml"
    run.write_text('name = "r"\nstore = "store"\ntrain.alignment = 0.3\n[world]\n')
    config = load_config(run)
    assert list(make_plan(config).steps) == ["world"]
    assert not is_finished(make_plan(config))
    assert run_stages(config).made == ["world", *ALL]
    assert is_finished(make_plan(config))


def test_a_run_is_recorded_under_its_name_with_links(tmp_path, stages: Stages):
    outcome = run_stages(load_run_config(tmp_path))
    folder = tmp_path / "store" / "runs" / "r"
    assert (folder / "pairs").resolve() == outcome.artifacts["pairs"].path
    record = outcome.plan.store.run("r")
    assert set(record.artifacts) == set(ALL)
    assert record.config
    assert record.config["train"]["epochs"] == 100
    assert set(record.seconds) == set(ALL)


def test_a_run_that_made_nothing_keeps_the_record_of_the_one_that_did(tmp_path, stages: Stages):
    run_stages(load_run_config(tmp_path))
    before = (tmp_path / "store/runs/r/run.json").read_bytes()
    run_stages(load_run_config(tmp_path))
    assert (tmp_path / "store/runs/r/run.json").read_bytes() == before


def test_a_stage_that_disagrees_with_its_plan_is_found_out(tmp_path, stages: Stages):
    plan = make_plan(load_run_config(tmp_path))
    make_step(plan, "interactions")
    plan.config = load_run_config(tmp_path, 'graph.anchor_kinds=["item"]')
    with pytest.raises(RuntimeError, match=r"nodes: planned key is .*; their settings differ"):
        make_step(plan, "nodes")


def test_a_step_without_its_parents_is_refused(tmp_path, stages: Stages):
    with pytest.raises(RuntimeError, match="graph: its parents interactions, nodes must exist"):
        make_step(make_plan(load_run_config(tmp_path)), "graph")


@pytest.mark.parametrize(
    ("cold", "is_readable", "expected"), [("drop", True, ()), ("keep", True, None), ("drop", False, None)]
)
def test_a_record_without_a_newer_setting_of_ingest_has_its_default(
    tmp_path, stages: Stages, cold, is_readable, expected
):
    """Artifacts of another version of their contract tell nothing of the logs."""
    config = load_run_config(tmp_path)
    recorded = config.model_dump(mode="json")
    del recorded["ingest"]["line_bytes_at_most"]
    recorded["ingest"]["cold"] = cold
    keys = {"rejects": ("rejects", "a"), "interactions": ("interactions", "b")}
    store = SimpleNamespace(
        record=lambda name: SimpleNamespace(config=recorded, artifacts=keys, log_versions={}),
        find=lambda contract, key: SimpleNamespace(
            manifest=SimpleNamespace(settings={"files": []}), is_readable=is_readable
        ),
    )
    assert recorded_logs(config, store) == expected
