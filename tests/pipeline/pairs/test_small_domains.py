"""Small domains compared with all others at once."""

from pathlib import Path

import numpy as np
import pytest
from raw_logs import numbered

from data_contracts.contracts import COVERAGE_FILE
from data_contracts.settings.machine import ComputeSettings
from data_contracts.settings.preparation import GraphSettings, PairsSettings, ReachSettings
from data_contracts.statistics import CoverageColumns, PairCoverage, rows_of_coverage
from data_contracts.store.artifact import Artifact
from data_contracts.store.store import Store
from pipeline.graph import build_graph
from pipeline.pairs.stage import pair_domains
from pipeline.reach.stage import compute_reach

ONE = ComputeSettings(threads=1)
COLUMNS = ["source_domain", "target_domain", "source_node", "target_node", "kind", "similarity", "rank", "identity"]


@pytest.fixture(params=range(3))
def parents(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Artifact]:
    """Nodes and reach of six domains of different sizes that share users and items; the last one shares none."""
    random = np.random.default_rng(request.param)
    lines = ["domain,user_id,item_id,time"]
    for number, rows in enumerate((2, 10, 40, 80, 160, 30)):
        names = 30 if number < 5 else 500
        users, items = random.integers(names - 30, names, (2, rows))
        lines += [f"d{number},u{user},i{item},0" for user, item in zip(users, items, strict=True)]
    (tmp_path / "log.csv").write_text("\n".join(lines) + "\n")
    store = Store(tmp_path / "store")
    interactions, nodes = numbered(store, tmp_path, "time", {})
    graph = build_graph(store, GraphSettings(), {"interactions": interactions, "nodes": nodes}, ONE)
    return {"nodes": nodes, "reach": compute_reach(store, ReachSettings(), {"nodes": nodes, "graph": graph}, ONE)}


@pytest.mark.parametrize(
    "settings",
    [
        PairsSettings(),
        PairsSettings(k=1, identity=False),
        PairsSettings(kinds="mixed"),
        PairsSettings(kinds="mixed", identity=False, k=40),
    ],
    ids=str,
)
def test_they_have_the_bits_that_the_join_of_every_two_domains_gives(
    parents: dict[str, Artifact], settings: PairsSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = pair_domains(Store(tmp_path / "at-once"), settings, parents, ONE)
    assert len(pairs.files()) == len(pairs.partitions()) == 5, "a file for each source, none where nothing is shared"
    monkeypatch.setattr("pipeline.compute.array_folder._SMALL", 60)
    some = pair_domains(Store(tmp_path / "some"), settings, parents, ONE)
    monkeypatch.setattr("pipeline.compute.array_folder._SMALL", 0)
    joined = pair_domains(Store(tmp_path / "joined"), settings, parents, ONE)
    assert len(joined.files()) == 20, "a file for each ordered pair of domains"
    assert 5 < len(some.files()) < 20
    assert pairs.manifest.rows > 100
    assert pairs.read(COLUMNS).equals(joined.read(COLUMNS))
    assert (
        some.read(COLUMNS)
        .sort_by([(name, "ascending") for name in COLUMNS])
        .equals(joined.read(COLUMNS).sort_by([(name, "ascending") for name in COLUMNS]))
    )
    assert coverage(pairs) == coverage(joined) == coverage(some)
    assert pairs.statistics["pairs_of_domains"] == joined.statistics["pairs_of_domains"] == 10
    assert not pairs.verify([parents["nodes"]])


def coverage(pairs: Artifact) -> list[PairCoverage]:
    """Without what is only checked where a join may miss partners."""
    rows = rows_of_coverage(pairs.read_json(COVERAGE_FILE, CoverageColumns))
    return [{**row, "checked_nodes": 0, "checked_best": 0, "checked_loss": 0.0} for row in rows]


def test_the_rows_of_one_target_domain_can_be_read(parents: dict[str, Artifact], tmp_path: Path) -> None:
    pairs = pair_domains(Store(tmp_path / "pairs"), PairsSettings(), parents, ONE)
    rows = pairs.read(["source_node"], source_domain="d3", target_domain="d4")
    assert rows.schema.names == ["source_node"]
    everything = pairs.read()
    assert rows.num_rows == sum(
        row["source_domain"] == "d3" and row["target_domain"] == "d4" for row in everything.to_pylist()
    )
    with pytest.raises(KeyError, match="column 'target' is unknown"):
        pairs.read(target="d4")
