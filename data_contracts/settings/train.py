"""The settings of training, of EDDA and of the baselines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from data_contracts.settings.base import Seed, Settings, Share
from data_contracts.settings.ranking import EvaluateSettings

ModelName = Literal["edda", "popularity", "walks", "ials", "shared-bottom", "mmoe", "ple", "star"]


class TrainSettings(Settings):
    """Graph and pairs → checkpoint."""

    model: ModelName = "edda"
    """edda, or a baseline; `edda compare RUN.toml --baselines` runs them all. walks has no vectors, evidence ranks
    alone. ials needs the extra `baselines`."""
    backbone: Literal["grec", "lightgcn", "jgcf", "mf"] = "grec"
    """Building block that turns tables into vectors."""
    tables: Literal["both", "inter", "intra"] = "both"
    """inter: one table over all domains; intra: one per domain; both: side by side."""
    inter_graph: Literal["union", "by-domain"] = "union"
    """Under the inter table, union: one graph of all train interactions; by-domain: for each domain those with its
    items, the outputs averaged over domains [EDDA]."""
    width: int = Field(128, ge=1)
    """Columns of the table, of inter where there are both; 64 in [EDDA]."""
    intra_width: int = Field(32, ge=1)
    """both: columns of each intra table; 64 in [EDDA]."""
    initial_spread: float = Field(0.05, gt=0.0)
    """Standard deviation of the tables at the start; 0.1 in the released code."""
    layers: int = Field(2, ge=0, le=8)
    """Propagation layers of grec and lightgcn; degree of jgcf's polynomials."""
    residual: Share = 0.1
    """grec: weight of the previous layer."""
    edge_dropout: float = Field(0.7, ge=0.0, lt=1.0)
    """Share of edges dropped from each layer of each step."""
    epochs: int = Field(100, ge=1)
    """Most epochs to train."""
    patience: int = Field(20, ge=1)
    """Epochs without a better validation score before training stops."""
    select_by: Literal["full_ndcg@20", "auc"] = "full_ndcg@20"
    """Validation score that epochs are selected by: NDCG@20 of the served score among all items, or the AUC of vectors
    among candidates; the mean over domains, each weighed by rows / (rows + 1000)."""
    select_users: int = Field(2_000, ge=1)
    """full_ndcg@20: validation users of each domain, at most; drawn where there are more."""
    batch_size: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    """Positives per step; auto: a 32nd of all train rows, so that an epoch's cost grows as the log does. 8192 in the
    released code."""
    negatives: int = Field(8, ge=1)
    """Negatives a positive is compared with: one of its own, as in [EDDA], and others' of its batch; hundreds suit
    softmax and sl@k."""
    objective: Literal["bpr", "squared", "softmax", "sl@k"] = "bpr"
    """Ranking loss; bpr: pairwise, of dot products [EDDA]; squared: squared errors of dot products, 1 expected of
    positives, 0 of negatives; softmax: over a positive and its negatives, of cosines; sl@k: the same, each positive
    weighed by how near it is to its user's 20 best items. Cosines are also served."""
    negative_weight: float = Field(10.0, gt=0.0)
    """squared: weight of the mean squared error of a positive's negatives, where that of the positive is 1."""
    temperature: float = Field(0.15, gt=0.0)
    """softmax, sl@k: what cosines are divided by."""
    weight_temperature: float = Field(1.0, gt=0.0)
    """sl@k: what a positive's distance from the 20 best is divided by, in times of `temperature`; small weighs by it
    sharply."""
    order: Literal["mixed", "sequential"] = "mixed"
    """mixed: the domains' batches in random order; sequential: one domain after another [EDDA]."""
    learning_rate: float = Field(5e-3, gt=0.0)
    """Adam's step size; 1e-3 in the released code."""
    l2: float = Field(1e-2, ge=0.0)
    """Weight of half the squared norm of a batch's layer-0 vectors, per positive; 1e-4 in the released code."""
    intra_penalty: float = Field(10.0, ge=0.0)
    """both: that weight for intra tables, in times of `l2`, where every interaction of a domain has a user or item that
    another domain has too; else its power to the share of those. 1 in [EDDA]."""
    intra_shared_at_most: Share = 0.8
    """both: no intra table for a domain of whose interactions a larger share has such a user or item; the penalty would
    leave nothing of it. 1: every domain has one."""
    alignment: float = Field(0.0, ge=0.0)
    """Weight of the alignment loss, 0.3 in [EDDA]; 0 switches it off, and a full run then makes no reach and pairs."""
    alignment_loss: Literal["distance", "contrast"] = "distance"
    """distance: of the mapped vectors of aligned pairs [EDDA]; contrast: softmax, over other pairs, of their cosine
    (InfoNCE), which maps of zeros do not minimise."""
    alignment_targets: int = Field(8, ge=1)
    """Domains that each domain is aligned with in an epoch, at most; where there are more, drawn anew each epoch."""
    pair_edges: float = Field(0.0, ge=0.0)
    """edda: weight, times their similarity, of edges between aligned nodes in the union graph, beside interactions of
    weight 1; 0: there are none."""
    contrast: float = Field(0.0, ge=0.0)
    """edda: weight of SimGCL's loss between two outputs of the layers with noise; 0 switches it off."""
    contrast_noise: float = Field(0.1, gt=0.0)
    """Length of the noise that is added to each vector in each layer."""
    confidence: float = Field(10.0, gt=0.0)
    """ials: weight of an interaction, where the absence of one weighs 1."""
    frequency_exponent: float = Field(0.0, ge=0.0, le=2.0)
    """ials: a vector's `l2` is multiplied by its frequency to this power; 0: the same for all. The frequency is its
    interactions, and all possible ones over `confidence`."""
    hidden: int = Field(128, ge=1)
    """shared-bottom, mmoe, ple, star: units of each hidden layer."""
    experts: int = Field(3, ge=1)
    """mmoe: experts; ple: experts of each domain and as many shared ones, in each of its two levels."""
    seeds: tuple[Seed, ...] = Field((2022,), min_length=1)
    """One checkpoint is trained for each."""
    engine: Literal["auto", "native", "torch-sparse"] = "auto"
    """Sparse products by native code (compiled loops on CPU, torch's CSR on CUDA) or by torch-sparse; auto: native on
    CPU, torch-sparse on CUDA where installed."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train."""

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if repeated := [str(seed) for seed, times in Counter(seeds).items() if times > 1]:
            raise ValueError(f"{', '.join(repeated)} more than once, must be distinct")
        return seeds

    @property
    def widths(self) -> tuple[int, int]:
        """Columns of inter and of intra tables."""
        return self.width, self.intra_width if self.tables == "both" else self.width

    def penalties(self, shared: float) -> tuple[float, float]:
        """Weights of half the squared norms of inter and of intra vectors.

        The more a domain shares with others, the better the inter table represents it, because that learns from more
        interactions; intra vectors then only learn noise.

        Args:
            shared: share of the domain's interactions whose user or item another domain has too.
        """
        return self.l2, self.l2 * (self.intra_penalty**shared if self.tables == "both" else 1.0)

    def has_intra(self, shared: float) -> bool:
        """A domain has an intra table.

        Args:
            shared: share of the domain's interactions whose user or item another domain has too.
        """
        return self.tables == "intra" or (self.tables == "both" and shared <= self.intra_shared_at_most)

    @model_validator(mode="after")
    def _has_graph_for_pairs(self) -> Self:
        if self.pair_edges and (self.inter_graph != "union" or self.tables == "intra"):
            found = f"inter_graph = {self.inter_graph!r}, tables = {self.tables!r}"
            raise ValueError(f"pair_edges needs the union graph of an inter table, found {found}; set pair_edges = 0")
        return self

    @property
    def aligns(self) -> bool:
        """Mapped vectors of aligned pairs are pulled together."""
        return self.model == "edda" and self.alignment > 0 and self.tables != "inter"

    @property
    def joins_pairs(self) -> bool:
        """Aligned nodes have edges in the union graph."""
        return self.model == "edda" and self.pair_edges > 0

    @property
    def reads_pairs(self) -> bool:
        """Training reads the aligned pairs."""
        return self.aligns or self.joins_pairs

    @property
    def selects_by_ndcg(self) -> bool:
        """Epochs are selected by the full ranking of the served score, which may include evidence."""
        return self.select_by == "full_ndcg@20" and "select_by" not in _NOT_READ[self.model]

    @property
    def score(self) -> str:
        """The validation measure that epochs are selected by; AUC if nothing is selected."""
        return "full_ndcg@20" if self.selects_by_ndcg else "auc"

    @property
    def ranks_by_cosine(self) -> bool:
        """The model is trained on cosines, so that its final vectors have length 1."""
        return self.objective in {"softmax", "sl@k"} and "objective" not in _NOT_READ[self.model]

    @property
    def shares_negatives(self) -> bool:
        """Groups of a batch's positives share all of their negatives, of which there may be hundreds."""
        return self.objective != "bpr" and "objective" not in _NOT_READ[self.model]

    def keyed(self) -> dict[str, Any]:
        """The settings that enter a checkpoint's key, without its seed: all that the model reads.

        What is newer than the first checkpoints is left out at its default, so that these keep their keys.
        """
        not_read = _NOT_READ[self.model] | ({"select_users"} if self.select_by == "auc" else set())
        not_read |= set() if self.contrast else _CONTRAST_KEYS
        not_read |= set() if self.pair_edges else {"pair_edges"}
        not_read |= {"alignment_loss"} if self.alignment_loss == "distance" else set()
        not_read |= _NOT_READ_BY_OBJECTIVE[self.objective] | (
            set() if self.frequency_exponent else {"frequency_exponent"}
        )
        keyed = self.model_dump(mode="json", exclude={"seeds", *not_read})
        if "residual" in keyed and self.backbone != "grec":
            keyed["residual"] = TrainSettings.model_fields["residual"].default  # no other backbone has one
        return keyed


_NETWORK_KEYS = {"hidden", "experts"}
_CONTRAST_KEYS = {"contrast", "contrast_noise"}
_EDDA_KEYS = {
    *_CONTRAST_KEYS,
    "backbone",
    "tables",
    "inter_graph",
    "residual",
    "alignment",
    "alignment_loss",
    "alignment_targets",
    "pair_edges",
    "intra_penalty",
    "intra_shared_at_most",
    "intra_width",
}
_GRAPH_KEYS = {"layers", "edge_dropout", "engine"}
_OBJECTIVE_KEYS = {"objective", "negative_weight", "temperature", "weight_temperature"}
_GRADIENT_DESCENT_KEYS = {"initial_spread", "batch_size", "negatives", "order", "learning_rate", *_OBJECTIVE_KEYS}
_IALS_KEYS = {"confidence", "frequency_exponent"}
_LEARNING_KEYS = {
    *_IALS_KEYS,
    "width",
    "l2",
    "epochs",
    "patience",
    "device",
    *_NETWORK_KEYS,
    *_EDDA_KEYS,
    *_GRAPH_KEYS,
    *_GRADIENT_DESCENT_KEYS,
}
_NOT_READ: Mapping[ModelName, set[str]] = {
    "edda": {*_IALS_KEYS, *_NETWORK_KEYS},
    "popularity": {"select_by", "select_users", *_LEARNING_KEYS},
    "walks": _LEARNING_KEYS,
    "ials": {"device", *_NETWORK_KEYS, *_EDDA_KEYS, *_GRAPH_KEYS, *_GRADIENT_DESCENT_KEYS},
    "shared-bottom": {*_IALS_KEYS, "experts", *_EDDA_KEYS, *_GRAPH_KEYS},
    "mmoe": {*_IALS_KEYS, *_EDDA_KEYS, *_GRAPH_KEYS},
    "ple": {*_IALS_KEYS, *_EDDA_KEYS, *_GRAPH_KEYS},
    "star": {*_IALS_KEYS, "experts", *_EDDA_KEYS, *_GRAPH_KEYS},
}
"""Keys of [train] that a model does not read; all other keys enter the checkpoint's key."""

_NOT_READ_BY_OBJECTIVE = {
    "bpr": _OBJECTIVE_KEYS,
    "squared": {"temperature", "weight_temperature"},
    "softmax": {"negative_weight", "weight_temperature"},
    "sl@k": {"negative_weight"},
}
"""Keys of [train] that an objective does not read."""


class CheckpointSettings(Settings):
    """All settings that one checkpoint depends on."""

    train: TrainSettings = TrainSettings()
    """Model and optimisation."""
    seed: Seed = 2022
    """Seed of everything that training draws."""
    validation: EvaluateSettings = EvaluateSettings()
    """How the validation split is ranked; its protocol is training's too."""

    def keyed(self) -> dict[str, Any]:
        """The settings that enter the checkpoint's key: of training, its seed, and how validation ranks."""
        ranking = self.validation.model_dump(mode="json", include={"protocol", "candidates", "candidate_seed"})
        return {**self.train.keyed(), "seed": self.seed, "validation": ranking}
