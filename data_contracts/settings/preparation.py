"""The settings of the stages between ingest and training: graph, neighbours, reach, pairs."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from data_contracts.settings.base import Seed, Settings


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
