"""Cases of an experiment: a run for each combination of levels, on a bench that all cases share."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import tomli_w

from data_contracts.contracts import INTERACTIONS, NODES, PAIRS, USER, VARIANT, WORLD
from data_contracts.open_store import open_store
from data_contracts.store.artifact import Artifact
from data_contracts.store.draft import Draft
from data_contracts.store.files import write_atomically
from data_contracts.store.store import Store
from flows.config.run_config import RunConfig, RunSpec, store_location
from flows.orchestration.up_to_date import bring_up_to_date
from flows.output.console import Watch
from flows.runner.execute import Outcome
from pipeline.logs.discovery import Digests

Levels = Mapping[str, str]
"""Factor → its level in a case, as tables show it."""

Row = tuple[int, str, str, str, float]
"""Seed, domain, stratum, metric, value."""


@dataclass(frozen=True)
class Bench:
    """What all cases of an experiment share.

    Attributes:
        run: that is varied, with the seeds and the name of the experiment.
        watch: shows progress.
        prefect: make runs as Prefect flows.
        digests: of log files that this process has read already.
    """

    run: RunSpec
    watch: Watch
    prefect: bool = False
    digests: Digests = field(default_factory=Digests)

    @property
    def store(self) -> Store:
        """Where everything is kept."""
        return open_store(store_location(self.run.config))

    def make(self, run: RunSpec, stage: str) -> Outcome:
        """Bring a run up to a stage."""
        return bring_up_to_date([run], stage, self.watch, prefect=self.prefect, digests=self.digests)[0]

    def rows(self, run: RunSpec | None = None) -> pa.Table:
        """The interactions of a run, by default of the bench's: domain, user_id, item_id, split."""
        artifacts = self.make(run or self.run, "ingest").artifacts
        return artifacts[INTERACTIONS.name].read(VARIANT.file_schema.names)

    def twins(self) -> pa.Table | None:
        """The planted twins of a generated world, as the contract `world` has them; None of given logs.

        Raises:
            ValueError: the world has none.
        """
        world = self.make(self.run, "ingest").artifacts.get(WORLD.name)
        if world and not world.manifest.rows:
            raise ValueError("the generated world has no people with two names; raise world.twins")
        return world.read() if world else None

    def user_pairs(self, run: RunSpec) -> pa.Table:
        """The pairs of users of a run, which is brought that far; as `user_pairs_of`."""
        return self.user_pairs_of(self.make(run, "align"))

    @staticmethod
    def user_pairs_of(outcome: Outcome) -> pa.Table:
        """For each user the most similar one in each other domain; no identity pairs.

        Returns:
            source_domain, target_domain, source_id, target_id, similarity.
        """
        pairs = outcome.artifacts[PAIRS.name].read()
        pairs = pairs.filter(pc.and_(pc.equal(pairs["rank"], 1), pc.equal(pairs["kind"], USER)))
        nodes = outcome.artifacts[NODES.name].read(["domain", "node", "id"])
        for side in ("source", "target"):
            ids = nodes.rename_columns([f"{side}_domain", f"{side}_node", f"{side}_id"])
            pairs = pairs.join(ids, [f"{side}_domain", f"{side}_node"], join_type="inner")
        wanted = ["source_domain", "target_domain", "source_id", "target_id", "similarity"]
        pairs = pairs.filter(pc.not_equal(pairs["source_id"], pairs["target_id"])).select(wanted)
        return pairs.sort_by([(name, "ascending") for name in wanted[:3]])

    def with_rows(self, rows: pa.Table, *overrides: str) -> RunSpec:
        """The bench's run on other rows: they are kept in the store as a log, beside a TOML file that reads it.

        Held-out rows stay held out, also those whose user or item has no train row left, so that all variants are
        measured on the same rows.

        Args:
            rows: domain, user_id, item_id, split; repeated rows count once, a train row before a held-out one.
            overrides: of the run's settings.
        """
        variant = _keep_variant(self.store, rows)
        config = self.run.config
        path = self.store.root / "experiments" / config.name / f"{variant.key}.toml"
        content = tomli_w.dumps(_config_on(config, variant)).encode()
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_bytes() != content:
            write_atomically({path: content})
        return RunSpec(path, overrides)


def _keep_variant(store: Store, rows: pa.Table) -> Artifact:
    split = pc.index_in(rows["split"], pa.array(["train", "valid", "test"]))
    ordered = rows.append_column("order", split).sort_by(
        [(name, "ascending") for name in ("domain", "user_id", "item_id", "order")]
    )
    key = ["domain", "user_id", "item_id"]
    first = ordered.group_by(key, use_threads=False).aggregate([("split", "first")])
    table = first.rename_columns({"split_first": "split"}).select(VARIANT.file_schema.names)
    table = table.sort_by([(name, "ascending") for name in VARIANT.sorted_by]).combine_chunks()
    digest = hashlib.sha256()
    for column in table.columns:
        digest.update("\x00".join(column.to_pylist()).encode())

    def write(draft: Draft) -> None:
        draft.write(table.cast(VARIANT.file_schema))

    return store.make(VARIANT, {"rows": digest.hexdigest()}, {}, write)


def _config_on(config: RunConfig, variant: Artifact) -> dict[str, Any]:
    """The settings of a run, as TOML has them, with the variant in place of its logs."""
    settings = config.model_dump(mode="json", exclude_none=True, exclude={"world", "logs", "update"})
    columns = {"user": "user_id", "item": "item_id", "domain": "domain", "split": "split"}
    log = {"path": f"{glob.escape(str(variant.path.absolute()))}/*.parquet", "columns": columns}
    ingest = {**settings["ingest"], "cold": "keep", "kept_share_at_least": 0.0, "split": {"method": "given"}}
    return {**settings, "logs": [log], "ingest": ingest}


@dataclass(frozen=True)
class Case:
    """One combination of levels.

    Attributes:
        levels: of all factors of the experiment.
        run: to be evaluated.
        measure: what is measured besides the metrics.
        remeasure: what is measured in place of the metrics.
    """

    levels: Levels
    run: RunSpec
    measure: Callable[[Bench, Outcome], Sequence[Row]] | None = None
    remeasure: Callable[[Bench, Outcome], Sequence[Row]] | None = None

    @property
    def label(self) -> str:
        """The levels as text, as the contract `experiment` has them."""
        return "; ".join(f"{factor} = {level}" for factor, level in self.levels.items())


ON, OFF = "on", "off"
ALIGNED, NOT_ALIGNED = "train.alignment=0.3", "train.alignment=0"


def with_switches(
    levels: Levels, run: RunSpec, switches: Mapping[str, Mapping[str, str]], measure: Any = None
) -> Iterator[Case]:
    """A case for each combination of switches.

    Args:
        levels: that all of these cases have.
        run: likewise.
        switches: factor → level → override; an empty override changes nothing.
        measure: as in `Case`.
    """
    if not switches:
        yield Case(levels, run, measure)
        return
    (factor, choices), *others = switches.items()
    for level, override in choices.items():
        changed = run.with_overrides(*override.split()) if override else run
        yield from with_switches({**levels, factor: level}, changed, dict(others), measure)


_EVIDENCE = {OFF: "blend.evidence=false", ON: "blend.evidence=true"}


def evidence(small: bool, level: str = ON) -> dict[str, dict[str, str]]:
    """The switch of evidence from walks, off and on; a small experiment has one level."""
    return {"evidence": {level: _EVIDENCE[level]} if small else _EVIDENCE}


ALIGNMENT = {OFF: NOT_ALIGNED, ON: ALIGNED}

CaseMaker = Callable[[Bench, bool], Iterator[Case]]
"""Makes the cases on a bench; fewer levels if small."""
