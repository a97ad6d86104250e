"""Updates: what a run continues from, what its keys follow from, and which numbers stay."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from damage import edit_manifest
from fake_stages import ALL, Stages, load_run_config, stages
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from raw_logs import numbered

from data_contracts.settings.machine import ComputeSettings
from data_contracts.store.artifact import Artifact
from data_contracts.store.garbage import collect_garbage
from data_contracts.store.store import Store
from flows.output.tables import reuse_table
from flows.runner.execute import run_stages
from flows.runner.plan import Plan, make_plan

__all__ = ["stages"]

COMPUTE = ComputeSettings(threads=1)
MODEL = ["checkpoint-2022", "blend-2022", "metrics", "ranks", "embeddings", "recommendations"]

rows = st.lists(
    st.tuples(
        st.sampled_from("dba"),
        st.text("äbc", min_size=1, max_size=2),
        st.text("xYß", min_size=1, max_size=2),
        st.integers(0, 3),
    ),
    min_size=1,
    max_size=30,
)
methods = st.sampled_from(["random", "leave-last-out", "time"])


def grow(folder: Path, item: str) -> None:
    with (folder / "log.csv").open("a", encoding="utf-8") as log:
        log.write(f"u,{item}\n")


def update(folder: Path, *overrides: str) -> list[str]:
    return run_stages(load_run_config(folder, "update=true", *overrides)).made


def keys(plan: Plan) -> dict[str, str]:
    return {role: step.key for role, step in plan.steps.items()}


def keys_before(artifacts: Mapping[str, Artifact]) -> dict[str, str]:
    """The parents of interactions that an update makes from these."""
    return {f"{role}-before": artifacts[role].key for role in ("interactions", "nodes")}


def numbers(nodes: Artifact) -> dict[tuple[str, str], int]:
    return {(row["kind"], row["id"]): row["entity"] for row in nodes.read().to_pylist()}


def facts(interactions: Artifact) -> set[tuple[object, ...]]:
    """All that an update may not change."""
    columns = ["domain", "user_id", "item_id", "timestamp", "count"]
    return {tuple(row.values()) for row in interactions.read(columns).to_pylist()}


@settings(deadline=None, max_examples=15)
@given(rows, rows, methods)
def test_known_ids_keep_their_order_and_new_ones_follow_and_only_splits_change(
    tmp_path_factory: pytest.TempPathFactory, monday: list, tuesday: list, method: str
) -> None:
    assume(method != "time" or min(row[3] for row in monday) < 2)  # else nothing is left to train on
    folder = tmp_path_factory.mktemp("logs")
    store = Store(folder / "store")
    for name, of_day in (("b", monday), ("a", tuesday)):
        lines = ("domain,user_id,item_id,time", *(",".join(map(str, row)) for row in of_day))
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        if name == "b":
            before = dict(zip(("interactions", "nodes"), numbered(store, folder, method), strict=True))
    interactions, nodes = numbered(store, folder, method, before)
    scratch, _ = numbered(store, folder, method)
    assert facts(interactions) == facts(scratch)
    old, new = numbers(before["nodes"]), numbers(nodes)
    for kind in ("user", "item"):
        stayed = sorted((key for key in old if key in new and key[0] == kind), key=lambda key: old[key])
        added = sorted((key for key in new if key not in old and key[0] == kind), key=lambda key: key[1].encode())
        assert [new[key] for key in [*stayed, *added]] == list(range(len(stayed) + len(added)))


def test_without_new_logs_an_update_makes_nothing(tmp_path: Path, stages: Stages) -> None:
    run_stages(load_run_config(tmp_path))
    assert update(tmp_path) == []


def test_the_first_update_of_a_name_is_from_scratch(tmp_path: Path, stages: Stages) -> None:
    assert keys(make_plan(load_run_config(tmp_path, "update=true"))) == keys(make_plan(load_run_config(tmp_path)))


def test_an_update_goes_on_from_what_its_name_made_and_then_finds_it(tmp_path: Path, stages: Stages) -> None:
    first = run_stages(load_run_config(tmp_path)).artifacts
    grow(tmp_path, "j")
    second = run_stages(load_run_config(tmp_path, "update=true"))
    assert second.made == ALL
    assert second.artifacts["interactions"].manifest.parents == keys_before(first)
    assert update(tmp_path) == []
    grow(tmp_path, "k")
    third = run_stages(load_run_config(tmp_path, "update=true")).artifacts
    assert third["interactions"].manifest.parents == keys_before(second.artifacts)
    assert update(tmp_path) == []


def test_a_run_without_update_has_the_keys_of_a_run_from_scratch(tmp_path: Path, stages: Stages) -> None:
    run_stages(load_run_config(tmp_path))
    grow(tmp_path, "j")
    scratch = keys(make_plan(load_run_config(tmp_path)))
    update(tmp_path)
    assert keys(make_plan(load_run_config(tmp_path))) == scratch
    updated = keys(make_plan(load_run_config(tmp_path, "update=true")))
    assert {role for role in scratch if scratch[role] == updated[role]} == set()


def test_training_goes_on_from_the_checkpoint_and_what_it_was_trained_on(tmp_path: Path, stages: Stages) -> None:
    first = run_stages(load_run_config(tmp_path)).artifacts
    grow(tmp_path, "j")
    parents = make_plan(load_run_config(tmp_path, "update=true")).steps["checkpoint-2022"].parents
    before = {role: key for role, key in parents.items() if role.endswith("-before")}
    wanted = ("checkpoint-2022", "interactions", "nodes", "graph")
    assert before == {f"{role}-before": first[role].key for role in wanted}


def test_neighbours_of_items_are_made_anew_from_what_was_updated(tmp_path: Path, stages: Stages) -> None:
    run_stages(load_run_config(tmp_path))
    grow(tmp_path, "j")
    plan = make_plan(load_run_config(tmp_path, "update=true"))
    assert plan.steps["neighbours"].parents == {role: plan.steps[role].key for role in ("nodes", "graph")}
    assert "neighbours" in update(tmp_path)


@pytest.mark.parametrize(
    "override", ["train.width=8", "train.intra_width=8", "train.tables=intra", "train.seeds=[7]", "train.model=star"]
)
def test_training_starts_anew_where_no_earlier_tables_fit(tmp_path: Path, stages: Stages, override: str) -> None:
    run_stages(load_run_config(tmp_path))
    grow(tmp_path, "j")
    plan = make_plan(load_run_config(tmp_path, "update=true", override))
    (checkpoint,) = (step for step in plan.steps.values() if step.stage == "train")
    assert not [role for role in checkpoint.parents if role.endswith("-before")]


def test_an_update_with_other_settings_still_goes_on_from_the_same(tmp_path: Path, stages: Stages) -> None:
    run_stages(load_run_config(tmp_path))
    grow(tmp_path, "j")
    update(tmp_path)
    assert update(tmp_path, "train.epochs=3") == MODEL
    assert update(tmp_path) == []


@pytest.mark.parametrize("role", ["interactions", "nodes", "graph"])
def test_an_update_whose_past_was_deleted_says_so_and_how_to_go_on(tmp_path: Path, stages: Stages, role: str) -> None:
    gone = run_stages(load_run_config(tmp_path)).artifacts[role].path
    grow(tmp_path, "j")
    shutil.rmtree(gone)
    message = f"^update: run 'r' continues from {gone}, which does not exist, must exist; run it once with update"
    with pytest.raises(FileNotFoundError, match=message):
        update(tmp_path)
    assert "interactions" in run_stages(load_run_config(tmp_path)).made


def test_an_update_of_what_another_version_made_says_how_to_go_on(tmp_path: Path, stages: Stages) -> None:
    edit_manifest(run_stages(load_run_config(tmp_path)).artifacts["interactions"], version=1)
    grow(tmp_path, "j")
    with pytest.raises(ValueError, match=r"another version of edda has made, .* run it once with update = false"):
        update(tmp_path)


@pytest.mark.parametrize("role", ["reach", "pairs", "checkpoint-2022"])
def test_an_update_makes_anew_what_another_version_made_otherwise(tmp_path: Path, stages: Stages, role: str) -> None:
    edit_manifest(run_stages(load_run_config(tmp_path)).artifacts[role], version=0)
    grow(tmp_path, "j")
    assert update(tmp_path) == ALL
    plan = make_plan(load_run_config(tmp_path, "update=true"))
    goes_on = any(parent.endswith("-before") for parent in plan.steps["checkpoint-2022"].parents)
    assert goes_on == (role != "checkpoint-2022")


def test_an_update_that_got_half_way_goes_on_from_the_last_whole_one(tmp_path: Path, stages: Stages) -> None:
    first = run_stages(load_run_config(tmp_path)).artifacts
    grow(tmp_path, "j")
    run_stages(load_run_config(tmp_path, "update=true"), "walk")
    assert update(tmp_path) == ["neighbours", "pairs", *MODEL]
    grow(tmp_path, "k")
    run_stages(load_run_config(tmp_path, "update=true"), "walk")
    grow(tmp_path, "l")
    before = make_plan(load_run_config(tmp_path, "update=true")).base
    assert "checkpoint-2022" in before
    assert before["nodes"] != first["nodes"].key


def test_another_split_is_refused_because_it_would_hold_out_what_was_learned(tmp_path: Path, stages: Stages) -> None:
    run_stages(load_run_config(tmp_path))
    grow(tmp_path, "j")
    with pytest.raises(ValueError, match=r"update: \[ingest\] of run 'r' is .* run it once with update = false"):
        update(tmp_path, "ingest.split.seed=1")


def test_garbage_is_what_the_generation_before_went_on_from(tmp_path: Path, stages: Stages) -> None:
    generations = []
    for item in "jkl":
        generations.append(run_stages(load_run_config(tmp_path, "update=true")).artifacts)
        grow(tmp_path, item)
    gone = {garbage.path.name for garbage in collect_garbage(tmp_path / "store")}
    first, second, _ = ({generation[role].key for role in ALL} for generation in generations)
    assert first <= gone
    assert gone & second == {generations[1][role].key for role in ("rejects", *MODEL[1:])}
    assert json.loads((tmp_path / "store/runs/r/run.json").read_text())["before"].keys() == {
        "interactions",
        "nodes",
        "graph",
        "reach",
        "pairs",
        "checkpoint-2022",
    }
    assert np.all([artifact.path.exists() for artifact in generations[2].values()])


def test_an_index_of_earlier_vectors_is_let_go_and_garbage(tmp_path: Path, stages: Stages) -> None:
    first = run_stages(load_run_config(tmp_path)).artifacts
    root = tmp_path / "store"
    index = stages.make(Store(root), "index", {}, {role: first[role] for role in ("embeddings", "graph")})
    Store(root).link("r", "index", index)
    run_stages(load_run_config(tmp_path, "train.epochs=3"), "train")
    assert Store(root).linked("r", "index") == index
    run_stages(load_run_config(tmp_path, "train.epochs=3"))
    assert Store(root).linked("r", "index") is None
    gone = {garbage.path.name for garbage in collect_garbage(root)}
    assert index.folder.name in gone
    assert first["embeddings"].folder.name not in gone, "the earlier generation has them"


def test_what_was_taken_from_before_is_a_table(tmp_path: Path, stages: Stages) -> None:
    assert reuse_table(run_stages(load_run_config(tmp_path)).artifacts) is None
    grow(tmp_path, "j")
    outcome = run_stages(load_run_config(tmp_path, "update=true"))
    new = {"users": 2, "items": 1, "known": {"users": 0, "items": 0}}
    statistics = {
        "nodes": {"domains": {"books": {"users": 30, "items": 20, "known": {"users": 29, "items": 20}}, "n": new}},
        "reach": {"domains": {"books": {"nodes": 5000, "copied": 4000}}},
        "pairs": {"pairs_of_domains": 3, "copied": 1},
        "checkpoint-2022": {
            "warm_start": {
                "tables": {"inter": {"kept": 7, "from_neighbours": 2, "as_usual": 1}},
                "held_out_rows_seen": 4,
            }
        },
    }
    for role, found in statistics.items():
        outcome.artifacts[role].statistics.update(found)
    table = reuse_table(outcome.artifacts)
    assert table is not None
    assert table.rows == (
        ("nodes", "domains", "1", "2", "1"),
        ("nodes", "users of books", "29", "30", "1"),
        ("nodes", "items of books", "20", "20", "0"),
        ("nodes", "users of n", "0", "2", "2"),
        ("nodes", "items of n", "0", "1", "1"),
        ("reach", "vectors of books", "4,000", "5,000", "1,000"),
        ("pairs", "pairs of domains", "1", "3", "2"),
        ("checkpoint-2022", "rows of inter", "7", "10", "2 from neighbours, 1 as usual"),
        ("checkpoint-2022", "held-out rows that were trained on before", "4", "", ""),
    )
