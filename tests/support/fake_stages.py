"""Stages that make tiny artifacts at once and count their calls, in place of the real ones."""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from data_contracts.contracts import CONTRACTS
from data_contracts.settings import LogSource
from data_contracts.train_settings import checkpoint_inputs
from flows.cli.main import main
from flows.config.run_config import RunConfig, load_config

ROWS: dict[str, dict[str, list[Any]]] = {
    "interactions": {
        "user_id": ["u", "v"], "item_id": ["i", "j"], "user": [0, 1], "item": [0, 1], "split": ["train", "test"],
        "timestamp": [None, None], "count": [1, 1],
    },
    "metrics": {
        "seed": [2022, 2022, 2022, 2022], "epoch": [3, 3, 3, 3], "domain": ["books", "macro"] * 2,
        "split": ["test", "test", "valid", "valid"], "metric": ["auc"] * 4, "value": [0.75, 0.75, 0.9, 0.9],
        "low": [0.7] * 4, "high": [0.8] * 4, "rows": [2, 2, 2, 2],
    },
    "recommendations": {
        "user_id": ["u", "u"], "item_id": ["j", "i"], "score": [1.5, 0.5], "rank": [1, 2], "because_of": [None, None],
        "because_of_domains": [None, None], "because_of_shares": [None, None], "evidence_share": [None, None],
    },
}  # fmt: skip


ALL = ["rejects", "interactions", "nodes", "graph", "neighbours", "reach", "pairs", "checkpoint-2022", "blend-2022",
       "metrics", "embeddings", "recommendations"]  # fmt: skip


def config_of(folder: Path, *overrides: str) -> RunConfig:
    log = folder / "log.csv"
    if not log.exists():
        log.write_text("user_id,item_id\nu,i\n")
    run = folder / "run.toml"
    run.write_text(f'name = "r"\nstore = "store"\ntrain.alignment = 0.3\n[[logs]]\npath = "{log}"\ndomain = "books"\n')
    return load_config(run, overrides)


class Stages:
    """The fakes' memory: how often each artifact was made, and what goes wrong next."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.failures: dict[str, list[BaseException]] = {}

    def make(self, store: Any, name: str, settings: dict[str, Any], parents: Any) -> Any:
        """Make the artifact of a contract, from its rows above or empty."""
        contract = CONTRACTS[name]

        def write(draft: Any) -> None:
            self.calls[name] += 1
            if self.failures.get(name):
                raise self.failures[name].pop(0)
            schema = contract.file_schema
            table = pa.table(ROWS.get(name, {column: [] for column in schema.names}), schema)
            draft.write(table, **dict.fromkeys(contract.partitioned_by, "books"))

        return store.make(contract, settings, parents, write)


def _ingest_inputs(settings: Any, logs: Any) -> dict[str, Any]:
    return {"settings": settings.keyed(), "files": [log.sha256 for log in logs]}


def _ingest(fake: Stages, store: Any, settings: Any, logs: Any, _compute: Any, _progress: Any, before: Any) -> Any:
    inputs = _ingest_inputs(settings, logs)
    parents = {f"{role}-before": artifact for role, artifact in before.items()}
    parents = {"rejects": {role: parents[role] for role in parents if role == "interactions-before"},
               "interactions": parents}  # fmt: skip
    return {name: fake.make(store, name, inputs, of) for name, of in parents.items()}


def _find_logs(sources: Any, folder: Path) -> list[Any]:
    digests = [hashlib.sha256(Path(source.path).read_bytes()).hexdigest() for source in sources]
    return [SimpleNamespace(name=digest, sha256=digest, version="") for digest in digests]


def _modules(fake: Stages, log: Path) -> dict[str, dict[str, Any]]:
    """Each stage's module, with what of it `flows` calls."""

    def train(store: Any, settings: Any, seed: int, validation: Any, parents: Any, *_rest: Any) -> Any:
        assert {"interactions", "nodes", "graph"} <= set(parents)
        return fake.make(store, "checkpoint", checkpoint_inputs(settings, seed, validation), parents)

    def stage(name: str, *needed: str) -> Any:
        def made(store: Any, settings: Any, parents: Any, *_rest: Any) -> Any:
            assert not needed or set(parents) == set(needed), f"{name}: parents are {set(parents)}, must be {needed}"
            return fake.make(store, name, settings.keyed(), parents)

        return made

    def build_graph(store: Any, parents: Any, *_rest: Any) -> Any:
        return stage("graph", "interactions", "nodes")(store, SimpleNamespace(keyed=dict), parents)

    def make_world(store: Any, settings: Any, *_rest: Any) -> Any:
        return fake.make(store, "world", settings.keyed(), {})

    logs = {"find_logs": _find_logs, "MissingLogsError": ValueError, "remote_versions": lambda _sources: set()}
    source = LogSource(path=str(log), domain="books")

    def export_recommendations(store: Any, settings: Any, parents: Any, *_rest: Any) -> Any:
        return fake.make(store, "recommendations", settings.keyed_lists(), parents)

    exports = {"export_embeddings": stage("embeddings"), "export_recommendations": export_recommendations}
    return {
        "pipeline.synthetic": {"make_world": make_world, "world_logs": lambda _world: (source,)},
        "pipeline.logs.discovery": logs,
        "pipeline.ingest.stage": {"ingest_inputs": _ingest_inputs, "ingest": partial(_ingest, fake)},
        "pipeline.graph": {"number_nodes": stage("nodes", "interactions"), "build_graph": build_graph},
        "pipeline.neighbours.stage": {"build_neighbours": stage("neighbours", "nodes", "graph")},
        "pipeline.reach.stage": {"describe_reach": stage("reach", "nodes", "graph")},
        "pipeline.pairs.stage": {"pair_domains": stage("pairs", "nodes", "reach")},
        "model.training.stage": {"train": train},
        "model.evaluation.blend_stage": {"fit_blend": stage("blend")},
        "model.evaluation.stage": {"evaluate": stage("metrics")},
        "model.serving.export": exports,
    }


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own with one run, and no store but its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EDDA_STORE", raising=False)
    (tmp_path / "r.toml").write_text('name = "r"\ntrain.alignment = 0.3\n[world]\n')
    return tmp_path


def edda(*arguments: str) -> int:
    """The exit status of a command."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Stages:
    """Put the fakes in place of every stage function; the world's log is one file of two lines."""
    fake = Stages()
    log = tmp_path / "world.csv"
    log.write_text("user_id,item_id\nu,i\n")

    for name, functions in _modules(fake, log).items():
        module = ModuleType(name)
        vars(module).update(functions)
        monkeypatch.setitem(sys.modules, name, module)
    return fake
