"""The settings of every stage. They are part of an artifact's key, so nothing here may depend on the machine."""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

Protocol = Literal["clean", "released"]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_VARIABLE = re.compile(r"\$\{(\w+)\}")


def expand_variables(path: str, environment: Mapping[str, str]) -> tuple[str, list[str]]:
    """Replace `${NAME}` in a path by environment variables.

    Returns:
        The path, in which unset variables are left as they are, and the names of those.
    """
    unset = [name for name in _VARIABLE.findall(path) if name not in environment]
    return _VARIABLE.sub(lambda match: environment.get(match[1], match[0]), path), unset


class Settings(BaseModel):
    """Base class of settings. An unknown key is an error, and so is a number that is not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def keyed(self) -> dict[str, Any]:
        """The settings that enter an artifact's key, as plain JSON values."""
        return self.model_dump(mode="json")


class Columns(Settings):
    """Where a log keeps its fields: a column's name or, without a header, its position from 0."""

    user: str | int = "user_id"
    """Column of user ids."""
    item: str | int = "item_id"
    """Column of item ids."""
    domain: str | int | None = None
    """Column of domain names; else `domain` or `path_pattern` names the domain."""
    split: str | int | None = None
    """Column of splits (train, valid or val, test)."""
    rating: str | int | None = None
    """Column of ratings, numbers or true and false; needed by `rating_at_least`."""
    timestamp: str | int | None = None
    """Column of times: numbers, or ISO 8601 as microseconds since 1970; docs/logs.md."""

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if self.user == self.item:
            raise ValueError(f"user and item are both {self.user!r}, must be two columns")
        return self


class LogSource(Settings):
    """One set of raw log files of one format."""

    path: Annotated[str, Field(min_length=1)]
    """Path or glob, relative to the run's file, or s3://, gs://, abfs://; `${NAME}` is taken from the environment."""
    format: Literal["auto", "csv", "tsv", "jsonl", "parquet"] = "auto"
    """File format; `auto` goes by the name's ending, before .gz or .zst. Only CSV has quotes."""
    delimiter: str | None = None
    """Text between the fields of CSV (else a comma) or TSV (else a tab); where it is several characters, quotes have no
    meaning."""
    encoding: str = "utf-8"
    """Encoding of text formats, as Python names it: latin-1, cp1252, utf-16, shift_jis, …"""
    quoted_newlines: bool = True
    """Quoted fields of CSV may have line breaks, if they are not read; false: such a record is an error."""
    timestamp_format: Annotated[str, Field(min_length=1)] | None = None
    """Unit of times that are numbers (s, ms, us, ns), which then become microseconds, or a format of strptime
    (%d.%m.%Y %H:%M)."""
    header: bool = True
    """The first line of each CSV or TSV file names the columns."""
    columns: Columns = Columns()
    """Where the fields are."""
    domain: Annotated[str, Field(min_length=1)] | None = None
    """The domain of every row of these files."""
    path_pattern: str | None = None
    """Regular expression searched in each file's path from the first folder with a * on; its groups `domain` and
    `split` give the rows' domain and split."""
    rating_at_least: float | None = None
    """Rows rated lower are not positives: they go to the rejects, with reason `rating`."""

    @field_validator("delimiter")
    @classmethod
    def _is_delimiter(cls, delimiter: str | None) -> str | None:
        if delimiter is not None and (not delimiter or any(character in '"\r\n\0' for character in delimiter)):
            raise ValueError(f"{delimiter!r} must have at least one character, and no quote, line end or NUL")
        return delimiter

    @field_validator("encoding")
    @classmethod
    def _is_encoding(cls, encoding: str) -> str:
        try:
            "".encode(encoding)
            codecs.getincrementaldecoder(encoding)
        except (LookupError, ValueError):
            raise ValueError(f"{encoding!r} must be an encoding that Python knows, e.g. latin-1 or utf-16") from None
        return codecs.lookup(encoding).name

    @field_validator("timestamp_format")
    @classmethod
    def _is_time_format(cls, value: str | None) -> str | None:
        if value is not None and "%" not in value and value not in ("s", "ms", "us", "ns"):
            raise ValueError(f"{value!r} must be s, ms, us or ns, or a format such as %d.%m.%Y %H:%M")
        return value


def _parse_cut_off(value: Any) -> Any:
    """Dates of TOML as text, and digits as a number; other values as they are, if text is a moment or a duration."""
    if isinstance(value, date):
        return value.isoformat()
    if not isinstance(value, str) or parse_duration(value) is not None:
        return value
    if re.fullmatch(r"[+-]?[0-9]+", value):
        return int(value)
    try:
        parse_moment(value)
    except ValueError:
        rule = "a number, a date such as 2026-11-15, or a duration such as 30d"
        raise ValueError(f"{value!r} must be {rule}") from None
    return value.replace(" ", "T", 1)


CutOff = Annotated[int | str, BeforeValidator(_parse_cut_off)]
"""A cut-off of time: in the unit of the log, or text for `parse_moment` or `parse_duration`."""


def parse_moment(text: str) -> datetime:
    """A date or moment of ISO 8601; in UTC where it names no zone.

    Raises:
        ValueError: it is no such text.
    """
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def parse_duration(text: str) -> timedelta | None:
    """A duration such as "30d", in seconds (s), minutes (m), hours (h), days (d) or weeks (w); None for other text."""
    match = re.fullmatch(r"([0-9]{1,9}) ?([smhdw])", text)
    return None if match is None else timedelta(seconds=int(match[1]) * _SECONDS[match[2]])


def _is_later(first: int | str | None, second: int | str | None) -> bool:
    """Whether a cut-off is later than another of its kind; those of two kinds are compared once the log is read."""
    if isinstance(first, int) and isinstance(second, int):
        return first > second
    if not isinstance(first, str) or not isinstance(second, str):
        return False
    durations = parse_duration(first), parse_duration(second)
    if durations == (None, None):
        return parse_moment(first) > parse_moment(second)
    return durations[0] is not None and durations[1] is not None and durations[0] < durations[1]


class SplitSettings(Settings):
    """How interactions are divided into train, valid and test."""

    method: Literal["given", "random", "time", "leave-last-out"] = "random"
    """given: by column or path; random: per user and domain; time: by cut-offs; leave-last-out: a user's last two in a
    domain. A pair that lives in several domains: docs/logs.md."""
    valid_share: Share = 0.1
    """random: share of a user's interactions for validation."""
    test_share: Share = 0.2
    """random: share of a user's interactions for test."""
    seed: Seed = 2022
    """Seed of the draw: of random, and of the order of pairs at the same time in leave-last-out."""
    valid_from: CutOff | None = None
    """time: first time of the validation split: a number in the unit of the log, a date or ISO 8601 text (UTC), or how
    long before the log's last time it is, such as "30d" (s, m, h, d or w)."""
    test_from: CutOff | None = None
    """time: first time of the test split, as `valid_from`."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.method == "time" and (self.valid_from is None or self.test_from is None):
            raise ValueError("method 'time' needs valid_from and test_from")
        if self.method == "time" and _is_later(self.valid_from, self.test_from):
            raise ValueError(f"valid_from is {self.valid_from}, must be ≤ test_from ({self.test_from})")
        if self.valid_share + self.test_share >= 1.0:
            raise ValueError(f"valid_share + test_share is {self.valid_share + self.test_share}, must be < 1")
        return self


class IngestSettings(Settings):
    """Raw logs → interactions and rejects."""

    protocol: Protocol = "clean"
    """clean: a pair held out in one domain is trained in none; released: each domain alone, repeated pairs stay."""
    split: SplitSettings = SplitSettings()
    """How interactions are divided."""
    cold: Literal["drop", "keep"] = "drop"
    """Held-out rows whose user or item has no train row in the domain."""
    rejected_share_at_most: Share = 0.01
    """The run fails if a larger share of the raw rows is malformed: of all rows, or of those of a source or domain
    that has ten or more."""
    kept_share_at_least: Share = 0.5
    """The run fails if a smaller share of the rows of a source, file or domain become interactions, or none at all; 0
    lets them vanish. Rows that are rated too low do not count, nor do leaked and cold rows of a file or of a split by
    random or leave-last-out."""
    line_bytes_at_most: int = Field(16 << 20, ge=1 << 10, le=1 << 30)
    """Longer lines of a log, and longer rows of Parquet, are rejected; memory grows with this, not with the file."""

    def keyed(self) -> dict[str, Any]:
        """All settings, without newer ones that have their default: keys are those of versions without them."""
        keyed = self.model_dump(mode="json")
        for name in ("line_bytes_at_most", "kept_share_at_least"):
            if getattr(self, name) == IngestSettings.model_fields[name].default:
                del keyed[name]
        return keyed


class GraphSettings(Settings):
    """Interactions → nodes and graph."""

    anchor_kinds: tuple[Literal["user", "item"], ...] = ("user", "item")
    """Kinds of node that may be anchors."""


class Rp3betaSettings(Settings):
    """Parameters of RP3beta."""

    alpha: float = Field(0.6, ge=0.0, le=2.0)
    """Power of the transition probabilities of a walk: of 1 / the number of users of its first item, and of 1 / the
    number of items of the user."""
    beta: float = Field(0.4, ge=0.0, le=2.0)
    """How much popular items are held back: by their number of users to this power."""


class EaseSettings(Settings):
    """Parameters of EASE."""

    l2: float = Field(100.0, gt=0.0)
    """Ridge penalty, often called lambda; denser data needs more."""


class SlimSettings(Settings):
    """Parameters of SLIM."""

    l1: float = Field(0.5, ge=0.0)
    """Penalty on the weights; items with at most so many common users have no weight."""
    l2: float = Field(5.0, ge=0.0)
    """Penalty on the squares of the weights, halved."""


class NeighboursSettings(Settings):
    """Graph → item-to-item weights: of walks, item to user to item, or of another item-to-item model."""

    weights: Literal["walks", "cosine", "rp3beta", "ease", "slim"] = "walks"
    """walks: a shrunk cosine to a power; cosine: item-based nearest neighbours (ItemKNN), with `shrink`; rp3beta,
    ease and slim: those models, with the parameters in their tables."""
    alpha: float = Field(0.2, ge=0.0, le=2.0)
    """walks: how much less a user with many items counts: divided by their number to this power."""
    beta: float = Field(0.5, ge=0.0, le=2.0)
    """walks: how much popular items are damped: divided by both items' numbers of users to this power; 0.5 is a
    cosine."""
    shrink: float = Field(5.0, ge=0.0)
    """walks, cosine: added to that divisor, so that items with few users do not become close neighbours by chance."""
    power: float = Field(1.4, gt=0.0, le=4.0)
    """walks: exponent of the weights; above 1 close neighbours count more."""
    rp3beta: Rp3betaSettings = Rp3betaSettings()
    """Parameters of `weights = "rp3beta"`."""
    ease: EaseSettings = EaseSettings()
    """Parameters of `weights = "ease"`. Its memory grows with the square of the items; `compute.memory_mib` bounds
    it."""
    slim: SlimSettings = SlimSettings()
    """Parameters of `weights = "slim"`."""
    top: int = Field(500, ge=1)
    """Largest weights kept of each item."""
    scope: Literal["union", "domain"] = "union"
    """union: walks go through the train rows of all domains; domain: through each domain's alone."""
    method: Literal["auto", "exact", "walk"] = "auto"
    """exact: weights are sums over all users of both items; walk: those of items with more than `walks` walks of two
    steps are estimated from so many random ones; auto: exact where its cost is allowed."""
    exact_multiply_adds: int = Field(100_000_000_000, ge=0)
    """auto: most multiply-adds of exact, the sum over users of the square of their number of items."""
    walks: int = Field(300_000, ge=1, le=10_000_000)
    """walk: random walks of two steps from an item."""
    seed: Seed = 2022
    """walk: seed of the walks, and of the draw of items that are compared."""
    compared_items: int = Field(200, ge=0)
    """walk: items with estimated weights for which the manifest compares these with exact ones."""

    @property
    def are_fitted(self) -> bool:
        """Whether the weights are coefficients of regressions rather than sums over users."""
        return self.weights in {"ease", "slim"}

    def keyed(self) -> dict[str, Any]:
        """What the chosen weights depend on; those of walks have the keys that they had when there were no others."""
        sampling = ("method", "exact_multiply_adds", "walks", "seed", "compared_items")
        read: dict[str, tuple[str, ...]] = {
            "walks": ("alpha", "beta", "shrink", "power", *sampling),
            "cosine": ("weights", "shrink", *sampling),
            "rp3beta": ("weights", "rp3beta", *sampling),
            "ease": ("weights", "ease"),
            "slim": ("weights", "slim"),
        }
        return self.model_dump(mode="json", include={*read[self.weights], "top", "scope"})


class ReachSettings(Settings):
    """Graph → anchor-reach vectors."""

    method: Literal["auto", "exact", "pruned", "walk"] = "auto"
    """exact: expected visits by sparse products; pruned: the same, with every product cut to `anchors_kept`; walk:
    sampled end points of random walks; auto: for each domain the first of them whose predicted cost is allowed."""
    steps: tuple[Annotated[int, Field(ge=1, le=16)], ...] = Field((3, 4), min_length=1)
    """Lengths of the walks whose end points count."""
    walks: int = Field(500, ge=1, le=1_000_000)
    """walk: walks of each length from every node."""
    seed: Seed = 2022
    """walk: seed of the draws."""
    anchors_kept: int = Field(256, ge=1)
    """Largest weights kept of each vector."""
    exact_multiply_adds: int = Field(4_000_000_000, ge=0)
    """auto: most multiply-adds of exact, as predicted for a domain; those of pruned grow with the edges only."""
    visits_memory_mib: int = Field(4096, ge=0)
    """auto: most memory for the products of exact or pruned, as predicted for a domain."""
    compared_nodes: int = Field(200, ge=0)
    """Nodes per domain on which the manifest compares the vectors, and walks, with exact ones."""


class PairsSettings(Settings):
    """Reach vectors → aligned pairs."""

    k: int = Field(3, ge=1, le=1000)
    """Partners per node and target domain."""
    kinds: Literal["apart", "mixed"] = "apart"
    """apart: a user's partners are users, an item's items; mixed: a node's partners are the most similar of both kinds,
    as in the released code."""
    identity: bool = True
    """Add a pair for every user and item that lives in both domains."""
    most_products: int = Field(200_000_000_000, ge=0)
    """Multiply-adds up to which two domains' nodes of a kind (mixed: of both) are compared exactly; beyond, by
    candidates."""
    products_per_row: int = Field(20_000, ge=1)
    """Multiply-adds that finding a vector's candidates may cost."""
    candidates: int = Field(64, ge=2)
    """Candidates of a vector that are compared in full."""
    checked_nodes: int = Field(2000, ge=0)
    """Nodes, over all pairs of domains, whose best partner the manifest checks against a comparison with all."""
    seed: Seed = 2022
    """Seed of the draw of checked nodes, and of `shuffled`."""
    shuffled: bool = False
    """A control for experiments: partners are dealt anew, at random, among the nodes of a kind that have any; identity
    pairs stay."""

    def keyed(self) -> dict[str, Any]:
        """All settings, without `shuffled` at its default: keys are those of versions without it."""
        return self.model_dump(mode="json", exclude=set() if self.shuffled else {"shuffled"})

    @model_validator(mode="after")
    def _enough(self) -> Self:
        if self.candidates <= self.k:
            raise ValueError(f"candidates is {self.candidates}, must be > k ({self.k})")
        return self


class BlendSettings(Settings):
    """Checkpoint and neighbours → how much evidence from walks weighs beside the vectors."""

    evidence: bool = True
    """Rank by vectors and by walks from the items a user knows; false: by vectors alone, as in [EDDA]."""
    users: int = Field(20_000, ge=1)
    """Validation users of each domain, at most, by whom the weight is fitted; drawn where there are more."""
    seed: Seed = 2022
    """Seed of that draw."""

    def keyed(self) -> dict[str, Any]:
        """The settings that the fit depends on. Without evidence there is no fit, so `evidence` is left out."""
        return self.model_dump(mode="json", exclude={"evidence"})


class EvaluateSettings(Settings):
    """Checkpoint → metrics."""

    protocol: Protocol = "clean"
    """clean: candidates exclude the user's known positives; released: they may be among them."""
    candidates: int = Field(10, ge=1)
    """Random items ranked against each held-out item."""
    candidate_seed: Seed = 2022
    """Seed of the candidates."""
    recall_at: tuple[Annotated[int, Field(ge=1)], ...] = (1, 3)
    """Cut-offs among the candidates."""
    full_at: tuple[Annotated[int, Field(ge=1)], ...] = (20,)
    """Cut-offs among all items of the domain, train items masked."""
    resamples: int = Field(200, ge=2)
    """Bootstrap resamples of the held-out rows behind the 95 % intervals."""


class ExportSettings(Settings):
    """Checkpoint → embeddings and recommendations."""

    top: int = Field(20, ge=1)
    """Recommendations per user and domain."""
    why: bool = False
    """Fill the columns of recommendations that say why: items of the user's history, their domains and shares."""

    def keyed(self) -> dict[str, Any]:
        """The settings that enter the key of embeddings; `why` only adds to lists."""
        return self.model_dump(mode="json", exclude={"why"})

    def keyed_lists(self) -> dict[str, Any]:
        """The settings that enter the key of recommendations."""
        return self.model_dump(mode="json")


class WorldSettings(Settings):
    """A generated world of domains that share users, items and tastes."""

    domains: int = Field(4, ge=1, le=64)
    """Domains; each is `shrink` times as large as the one before."""
    users: int = Field(2400, ge=10)
    """Users of the largest domain."""
    items: int = Field(1500, ge=10)
    """Items of the largest domain."""
    interactions: int = Field(60_000, ge=10)
    """Interactions of the largest domain, before duplicates are merged; one per user at least."""
    shrink: float = Field(0.5, gt=0.0, le=1.0)
    """Size of each domain relative to the one before."""
    shared_users: Share = 0.3
    """Share of a smaller domain's users who also use the largest, under the same id."""
    shared_items: Share = 0.2
    """Share of a smaller domain's items that the largest also offers, under the same id."""
    twins: Share = 0.1
    """Share of a smaller domain's users who also use the largest under another id: the planted twins."""
    topics: int = Field(24, ge=2)
    """Topics that items belong to and tastes are made of."""
    seed: Seed = 7
    """Seed of the world."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.shared_users + self.twins > 1.0:
            raise ValueError(f"shared_users + twins is {self.shared_users + self.twins}, must be ≤ 1")
        if self.interactions < self.users:
            raise ValueError(f"interactions is {self.interactions}, must be ≥ users ({self.users})")
        return self


class ComputeSettings(Settings):
    """How a run uses the machine. Never part of a key: no result depends on it."""

    threads: int = Field(0, ge=0)
    """Threads for pipeline and training; 0 = as many as the process may use, in training shared among torchrun's."""
    memory_mib: int = Field(2048, ge=64)
    """Working memory per worker, in MiB, that blocks of the pipeline are sized for; EASE and SLIM may not exceed it."""
    state_seconds: float = Field(30.0, ge=0.0)
    """Seconds between two saved states of a training, at least; a killed one repeats what it did since. 0: saved after
    every epoch."""
    dask_scheduler: str | None = None
    """Address of a Dask scheduler; threads of this process without one."""


class TrackingSettings(Settings):
    """Where training shows its measures while it runs. Never part of a key."""

    tensorboard: str | None = None
    """Folder of TensorBoard event files, relative to the run's file; needs the package tensorboard."""
    mlflow: str | None = None
    """Tracking URI of MLflow, e.g. a server's address; needs the package mlflow."""

    @field_validator("mlflow")
    @classmethod
    def _without_password(cls, uri: str | None) -> str | None:
        """Refuse passwords: a run's settings are kept in the store, where everybody may read them."""
        if uri is not None and urlsplit(uri).password is not None:
            raise ValueError("has a password in it, which would be kept in the store; set MLFLOW_TRACKING_PASSWORD")
        return uri
