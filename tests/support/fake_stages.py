"""Fake stages that make tiny artifacts at once and count their calls."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from data_contracts.contracts import CONTRACTS, COVERAGE_FILE, PAIRS
from data_contracts.roles import Role
from data_contracts.settings.logs import LogSource
from data_contracts.statistics import columns_of_coverage
from flows.cli.main import main
from flows.config.run_config import RunConfig, load_config
from flows.runner.stages import STAGES, WORLD_STAGE, Product
from pipeline.ingest.inputs import ingest_inputs

ROWS: dict[str, dict[str, list[Any]]] = {
    "interactions": {
        "user_id": ["u", "v"], "item_id": ["i", "j"], "user": [0, 1], "item": [0, 1], "split": ["train", "test"],
        "timestamp": [None, None], "count": [1, 1],
    },
    "metrics": {
        "seed": [2022, 2022, 2022, 2022], "epoch": [3, 3, 3, 3], "domain": ["books", "macro"] * 2,
        "split": ["test", "test", "valid", "valid"], "stratum": ["all"] * 4, "metric": ["auc"] * 4,
        "value": [0.75, 0.75, 0.9, 0.9], "low": [0.7] * 4, "high": [0.8] * 4, "rows": [2] * 4, "users": [1] * 4,
    },
    "recommendations": {
        "user_id": ["u", "u"], "item_id": ["j", "i"], "score": [1.5, 0.5], "rank": [1, 2], "because_of": [None, None],
        "because_of_domains": [None, None], "because_of_shares": [None, None], "evidence_share": [None, None],
    },
}  # fmt: skip

STATISTICS: dict[str, dict[str, Any]] = {
    "rejects": {"raw_rows": 2, "reasons": {}},
    "interactions": {
        "domains": {
            "books": {
                "users": 2, "items": 2, "train": 1, "valid": 0, "test": 1, "duplicates": 0, "leaked": 0, "cold": 0,
            }
        },
        "users": 2, "items": 2,
    },
    "nodes": {"domains": {}},
    "reach": {"domains": {}},
    "pairs": {"checked": {"nodes": 0}, "pairs_of_domains": 0, "copied": 0},
    "checkpoint": {"epoch": 3, "epochs": 4, "score": 0.9, "epoch_seconds": [0.5, 0.5, 0.5, 0.5]},
}  # fmt: skip
"""What report and comparison read."""


ALL = ["rejects", "interactions", "nodes", "graph", "neighbours", "reach", "pairs", "checkpoint-2022", "blend-2022",
       "metrics", "ranks", "embeddings", "recommendations"]  # fmt: skip


def load_run_config(folder: Path, *overrides: str) -> RunConfig:
    log = folder / "log.csv"
    if not log.exists():
        log.write_text("user_id,item_id\nu,i\n")
    run = folder / "run.toml"
    run.write_text(f'name = "r"\nstore = "store"\ntrain.alignment = 0.3\n[[logs]]\npath = "{log}"\ndomain = "books"\n')
    return load_config(run, overrides)


class Stages:
    """State of the fake stages: how often each artifact was made, and which errors come next."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.failures: dict[str, list[BaseException]] = {}
        self.functions: dict[str, Any] = {}
        """The fake function of each stage, by the function's name in the table of stages."""

    def make(self, store: Any, name: str, settings: dict[str, Any], parents: Any) -> Any:
        """Make the artifact of a contract, with its rows in `ROWS` or empty."""
        contract = CONTRACTS[name]

        def write(draft: Any) -> None:
            self.calls[name] += 1
            if self.failures.get(name):
                raise self.failures[name].pop(0)
            schema = contract.file_schema
            table = pa.table(ROWS.get(name, {column: [] for column in schema.names}), schema)
            draft.write(table, **dict.fromkeys(contract.partitioned_by, "books"))
            if contract is PAIRS:
                (draft.folder / COVERAGE_FILE).write_text(json.dumps(columns_of_coverage([])))
            draft.statistics |= STATISTICS.get(name, {})

        return store.make(contract, settings, parents, write)


def _function(fake: Stages, products: Sequence[Product]) -> Any:
    """A fake function of a stage: makes its products, with the keys that the table of stages gives them."""

    def make(
        store: Any, settings: Any, parents: Any, _compute: Any, _progress: Any, previous: Any = None, **_options: Any
    ) -> Any:
        made = {}
        for product in products:
            reads_logs = product.reads_logs
            key = ingest_inputs(product.contract, settings, parents) if reads_logs else product.key(settings)
            used = {} if product.reads_logs else dict(parents)
            for name, artifact in (previous or {}).items():
                if artifact.contract in product.keyed_previous:
                    used[str(Role.parse(name).previous)] = artifact
            made[product.contract.name] = fake.make(store, product.contract.name, key, used)
        return made if len(made) > 1 else made[products[0].contract.name]

    return make


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new current folder with one run `r.toml`, and no store named by the environment."""
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
    """Replace every stage function by a fake; the log of the generated world is one file of two lines."""
    fake = Stages()
    log = tmp_path / "world.csv"
    log.write_text("user_id,item_id\nu,i\n")

    functions: dict[str, list[Product]] = {}
    for stage in (WORLD_STAGE, *STAGES):
        for product in stage.products:
            functions.setdefault(product.function, []).append(product)
    fake.functions = {name: _function(fake, products) for name, products in functions.items()}
    monkeypatch.setattr("flows.runner.execute.resolve_name", fake.functions.__getitem__)
    monkeypatch.setattr("flows.runner.plan.world_logs", lambda _world: (LogSource(path=str(log), domain="books"),))
    return fake
