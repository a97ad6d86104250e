"""Artifacts are read whole and checked, or refused."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from damage import edit_manifest, rehash
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.contracts import GRAPH, NODES
from data_contracts.schema import ContractError
from data_contracts.store.artifact import Artifact, read_blocks
from data_contracts.store.dataset import ArtifactDataset
from data_contracts.store.draft import Draft
from data_contracts.store.files import parse_partition, partition_folder, write_parquet
from data_contracts.store.manifest import artifact_key
from data_contracts.store.store import Store, open_artifact

DOMAINS = ("d", "an odd/na=me %")


def node_rows(nodes: int = 1000) -> pa.Table:
    return pa.table(
        {
            "kind": ["user"] * nodes,
            "node": pa.array(range(nodes), pa.int32()),
            "entity": pa.array(range(nodes), pa.int32()),
            "id": [f"u{n}" for n in range(nodes)],
            "train_degree": pa.array([1] * nodes, pa.int32()),
            "is_anchor": [False] * nodes,
        }
    )


def write_nodes(draft: Draft) -> None:
    for domain in DOMAINS:
        draft.write(node_rows(), domain=domain)


@pytest.fixture
def nodes(tmp_path: Path) -> Artifact:
    return Store(tmp_path).make(NODES, {}, {}, write_nodes)


def test_partition_values_come_back_as_they_went_in(nodes: Artifact) -> None:
    assert [partition["domain"] for partition in nodes.partitions()] == sorted(DOMAINS)
    for domain in DOMAINS:
        assert set(nodes.read(["domain"], domain=domain)["domain"].to_pylist()) == {domain}


def test_columns_come_in_the_asked_order(nodes: Artifact) -> None:
    assert nodes.read(["node", "domain", "id"]).column_names == ["node", "domain", "id"]


def test_unknown_partition_reads_as_no_rows(nodes: Artifact) -> None:
    empty = nodes.read(["node"], domain="elsewhere")
    assert (empty.num_rows, empty.schema.field("node").type) == (0, pa.int32())


def test_batches_are_the_files(nodes: Artifact) -> None:
    assert pa.concat_tables(nodes.batches()).equals(nodes.read())


def test_blocks_are_the_rows_a_few_at_a_time(nodes: Artifact) -> None:
    blocks = list(read_blocks(nodes, ["kind", "id"], 300, domain="d"))
    assert [block.num_rows for block in blocks] == [300, 300, 300, 100]
    assert pa.concat_tables(blocks).to_pylist() == nodes.read(["kind", "id"], domain="d").to_pylist()


def test_a_damaged_file_read_by_blocks_is_named(nodes: Artifact) -> None:
    path = nodes.files(domain="d")[0]
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(OSError, match="is damaged"):
        list(read_blocks(nodes, ["id"], domain="d"))


def test_a_store_with_a_relative_path_is_read(nodes: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path.parent)
    relative = Store(tmp_path.name).find(NODES, nodes.key)
    assert relative is not None
    assert relative.read().equals(nodes.read())
    assert relative.verify() == []
    assert ArtifactDataset(relative).to_table(columns=["node"]).num_rows == 2000
    (name,) = (path.name for path in relative.files(domain="d"))
    assert relative.checked(f"domain=d/{name}") == relative.files(domain="d")[0]


def test_unknown_column_is_named(nodes: Artifact) -> None:
    with pytest.raises(KeyError, match="colour"):
        nodes.read(["colour"])


def test_another_version_of_the_contract_is_refused_with_a_remedy(nodes: Artifact) -> None:
    edit_manifest(nodes, version=0)
    with pytest.raises(
        ValueError, match=r"contract version of nodes is 0, must be 1; run its TOML file again, or .* 0\.1"
    ):
        open_artifact(nodes.path).read()


def test_flipped_bit_in_a_page_is_refused_on_read(nodes: Artifact) -> None:
    path = nodes.files(domain="d")[0]
    whole = path.read_bytes()
    chunk = pq.ParquetFile(path).metadata.row_group(0).column(1)
    inside = chunk.data_page_offset + chunk.total_compressed_size - 2
    path.write_bytes(whole[:inside] + bytes([whole[inside] ^ 1]) + whole[inside + 1 :])
    with pytest.raises(OSError, match=r"is damaged: .*; delete .* to make it again"):
        nodes.read(["node"], domain="d")


def test_no_flipped_bit_changes_what_is_read(nodes: Artifact) -> None:
    """Every third byte of the file in turn: refused, or harmless because it lies in a note for other readers."""
    path = nodes.files(domain="d")[0]
    whole, good = path.read_bytes(), nodes.read(domain="d")
    refused = 0
    for offset in range(0, len(whole), 3):
        path.write_bytes(whole[:offset] + bytes([whole[offset] ^ (1 << offset % 8)]) + whole[offset + 1 :])
        try:
            assert nodes.read(domain="d").equals(good)
        except (OSError, ContractError):
            refused += 1
    assert refused > len(whole) / 3 / 2


def test_truncated_file_is_refused_on_read(nodes: Artifact) -> None:
    path = nodes.files(domain="d")[0]
    whole = path.read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(OSError, match="is damaged"):
            nodes.read(domain="d")


def test_table_that_breaks_the_contract_is_refused_on_read(nodes: Artifact) -> None:
    path = nodes.files(domain="d")[0]
    numbers = pa.array([2, 1, 0, *range(3, 1000)], pa.int32())
    write_parquet(node_rows().set_column(1, "node", numbers), path)
    with pytest.raises(ContractError, match=r"nodes/domain=d/part-00000\.parquet: node\[1\] is 1, must be sorted"):
        rehash(nodes).read(domain="d")


def test_changed_bytes_are_found_by_verify(nodes: Artifact) -> None:
    path = nodes.files(domain="d")[0]
    write_parquet(node_rows(3), path)
    assert [(v.column, v.artifact) for v in nodes.verify()] == [("sha256", "nodes/domain=d/part-00000.parquet")]


def test_missing_file_is_found_by_verify(nodes: Artifact) -> None:
    nodes.files(domain="d")[0].unlink()
    assert [v.found for v in nodes.verify()] == ["missing"]


def test_whole_artifact_verifies(nodes: Artifact) -> None:
    assert nodes.verify() == []


def make_graph(store: Store, nodes: Artifact, neighbours: list[list[int]]) -> Artifact:
    lists = pa.array(neighbours, pa.list_(pa.int32()))
    table = pa.table({"node": pa.array(range(len(neighbours)), pa.int32()), "neighbours": lists})
    return store.make(GRAPH, {"n": neighbours}, {"nodes": nodes}, lambda draft: draft.write(table, domain="d"))


def test_verify_follows_references_into_parents(nodes: Artifact, tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert make_graph(store, nodes, [[999], []]).verify([nodes]) == []
    (found,) = make_graph(store, nodes, [[1000], []]).verify([nodes])
    assert found.found.startswith("('d', 1000)")


def test_opened_artifact_knows_its_contract(nodes: Artifact) -> None:
    assert open_artifact(nodes.path).contract == NODES


def test_folder_without_manifest_is_no_artifact(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no manifest\.json, so no artifact"):
        open_artifact(tmp_path)


@given(st.text(min_size=1).filter(lambda text: text.isprintable()))
def test_partition_folders_round_trip(value: str) -> None:
    folder = partition_folder({"domain": value})
    assert "/" not in folder
    assert parse_partition(f"{folder}/part-00000.parquet") == {"domain": value}


@pytest.mark.parametrize("value", [".", "..", "", "a/b", "a=b", "100 %"])
def test_awkward_partition_values_round_trip(value: str) -> None:
    assert parse_partition(f"{partition_folder({'domain': value})}/part-00000.parquet") == {"domain": value}


def test_key_depends_on_contract_settings_and_parents_alone() -> None:
    key = artifact_key(NODES, {"a": 1, "b": [1, 2]}, {"interactions": "x"})
    assert key == artifact_key(NODES, {"b": [1, 2], "a": 1}, {"interactions": "x"})
    others = [
        artifact_key(GRAPH, {"a": 1, "b": [1, 2]}, {"interactions": "x"}),
        artifact_key(NODES, {"a": 1, "b": [2, 1]}, {"interactions": "x"}),
        artifact_key(NODES, {"a": 1, "b": [1, 2]}, {"interactions": "y"}),
        artifact_key(NODES, {"a": 1, "b": [1, 2]}, {"other": "x"}),
    ]
    assert len({key, *others}) == 5


def test_key_is_the_same_in_another_process() -> None:
    script = (
        "from data_contracts.store.manifest import artifact_key as k\n"
        "from data_contracts.contracts import NODES\n"
        "print(k(NODES, {'ä': 0.1}, {'p': 'x'}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == artifact_key(NODES, {"ä": 0.1}, {"p": "x"})


def test_manifest_is_json_that_people_can_read(nodes: Artifact) -> None:
    manifest = json.loads((nodes.path / "manifest.json").read_text())
    assert (manifest["contract"], manifest["rows"], manifest["files"][0]["rows"]) == ("nodes", 2000, 1000)
