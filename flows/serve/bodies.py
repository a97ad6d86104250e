"""What requests may hold and answers have: the schema of the service."""

from __future__ import annotations

from typing import Annotated, Literal, Self
from urllib.parse import unquote

from fastapi import Path, Query
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from model.serving.recommender import RankedBy

MOST_TOP = MOST_NAMES = 1_000
"""Most items of a list, and most users or items of a request."""
MOST_ANSWERS = 100_000
"""Most items that one request may ask for in total, users times items."""

Fallback = Literal["none", "popularity"]
"""What a user without history gets: an error, or the most popular items."""


def _decode(segment: str) -> str:
    return unquote(segment, errors="strict")


def _require_encodable(name: str) -> str:
    """Refuse half a surrogate pair, which JSON can contain but no response can: UnicodeEncodeError, a ValueError."""
    name.encode()
    return name


def _require_column_and_value(text: str) -> str:
    if ":" not in text:
        raise ValueError("must be COLUMN:VALUE")
    return text


DomainInPath = Annotated[str, BeforeValidator(_decode), Path(description="a domain's name", examples=["books"])]
UserInPath = Annotated[str, BeforeValidator(_decode), Path(description="a user's id in the logs", examples=["u0042"])]
ItemInPath = Annotated[str, BeforeValidator(_decode), Path(description="an item's id in the logs", examples=["i0007"])]
Top = Annotated[int, Query(ge=1, le=MOST_TOP, description="items to return, at most")]
Search = Annotated[str, Query(max_length=500, description="part of an id")]
Name = Annotated[str, AfterValidator(_require_encodable)]
Names = Annotated[list[Name], Field(min_length=1, max_length=MOST_NAMES)]

_ALLOW = "ids of the only items that may be listed"
_DENY = "ids of items that may not be listed"
_FALLBACK = "what a user without history gets; by default what the service was started with"
_WHY = "say for each item which items of the user it follows from"


class ListQuery(BaseModel):
    """How a list is to be, in the query of a request."""

    top: int = Field(10, ge=1, le=MOST_TOP, description="items to return, at most")
    why: bool = Field(False, description=_WHY)
    allow: list[str] | None = Field(None, max_length=MOST_NAMES, description=_ALLOW)
    deny: list[str] = Field([], max_length=MOST_NAMES, description=_DENY)
    where: list[Annotated[str, AfterValidator(_require_column_and_value)]] = Field(
        [], max_length=MOST_NAMES, description="COLUMN:VALUE of the items file; of one column's values any will do"
    )
    fallback: Fallback | None = Field(None, description=_FALLBACK)

    @property
    def values(self) -> dict[str, list[str]]:
        """Column → wanted values."""
        by_column: dict[str, list[str]] = {}
        for text in self.where:
            column, _, value = text.partition(":")
            by_column.setdefault(column, []).append(value)
        return by_column


class _RequestBody(BaseModel):
    """A request's body, without unknown keys and without conversion of types."""

    model_config = ConfigDict(extra="forbid", strict=True)

    domain: Name = Field(examples=["books"])
    top: int = Field(10, ge=1, le=MOST_TOP)
    why: bool = Field(False, description=_WHY)
    allow: list[Name] | None = Field(None, max_length=MOST_NAMES, description=_ALLOW, examples=[["i0007", "i0011"]])
    deny: list[Name] = Field([], max_length=MOST_NAMES, description=_DENY, examples=[["i0012"]])
    where: dict[Name, Names] = Field(
        {}, description="column of the items file → allowed values", examples=[{"genre": ["comedy", "drama"]}]
    )
    fallback: Fallback | None = Field(None, description=_FALLBACK)

    @property
    def values(self) -> dict[str, list[str]]:
        """Column → wanted values."""
        return self.where


ListWishes = ListQuery | _RequestBody
"""How a list is to be, from a query or a body."""


class Users(_RequestBody):
    """Users of one domain."""

    users: Names = Field(examples=[["u0042", "u0043"]])

    @model_validator(mode="after")
    def _within_reason(self) -> Self:
        if self.top * len(self.users) > MOST_ANSWERS:
            raise ValueError(f"top × users must be ≤ {MOST_ANSWERS:,}; ask in several requests")
        return self


class History(_RequestBody):
    """Items that a user who was not in training knows; none only if the fallback is popularity."""

    items: list[Name] = Field(max_length=MOST_NAMES, examples=[["i0007", "i0011"]])


class Items(BaseModel):
    """Items of any domain."""

    model_config = ConfigDict(extra="forbid", strict=True)

    items: Names = Field(examples=[["i0007", "i0011"]])


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"
    run: str


class Ready(BaseModel):
    """What is served.

    Attributes:
        generation: of the run's configuration, as in `edda runs`.
        key: of the vectors; another key, another answer.
        made: when the vectors were made, ISO 8601.
    """

    status: Literal["ready"] = "ready"
    run: str
    generation: str
    key: str
    made: str


class Domain(BaseModel):
    """One domain and its size."""

    domain: str
    users: int
    items: int


class Reason(BaseModel):
    """An item of the user's history: where the user has it, and its share of the recommended item's evidence."""

    item: str
    domains: list[str]
    share: float = Field(ge=0.0, le=1.0)


class Reasons(BaseModel):
    """The items of the history that most evidence comes from, and the two shares of the score, which add up to 1."""

    because_of: list[Reason]
    vectors: float = Field(ge=0.0, le=1.0)
    evidence: float = Field(ge=0.0, le=1.0)


class Listed(BaseModel):
    """An item of a list. `why` is there if it was asked for, and null if the item is ranked by popularity only."""

    rank: int
    item: str
    score: float
    why: Reasons | None = None


class Answer(BaseModel):
    """A list, best first.

    It is ranked by vectors and evidence (blend) or by vectors alone; for a user without a vector in the domain, by
    evidence, or else by popularity.
    """

    by: RankedBy
    items: list[Listed]


class ForUser(BaseModel):
    """A user's list; null for an unknown user."""

    user: str
    by: RankedBy | None
    items: list[Listed] | None


class ForUsers(BaseModel):
    """Lists in the order of the users asked for."""

    results: list[ForUser]


class ForNewUser(Answer):
    """A new user's list, the items that it is based on, and the ignored ones with the domains that have them."""

    used: list[str]
    ignored: dict[str, list[str]]


class KnownUser(BaseModel):
    """A user of a domain, and the number of the user's train items there."""

    user: str
    items: int


class KnownItem(BaseModel):
    """An item of a domain, and the number of its train users there."""

    item: str
    users: int


class FoundUsers(BaseModel):
    """Users whose ids begin with what was searched for, then those that contain it."""

    users: list[KnownUser]


class FoundItems(BaseModel):
    """Items whose ids begin with what was searched for, then those that contain it, in the id or in the title."""

    items: list[KnownItem]


class DomainHistory(BaseModel):
    """Train items of a user in a domain, at most a thousand, in the order of their numbers; and how many there are."""

    domain: str
    items: list[KnownItem]
    total: int


class UserHistory(BaseModel):
    """Train items of a user in all domains that have the user."""

    user: str
    domains: list[DomainHistory]


class Details(BaseModel):
    """What the items file says of an item: `columns` are those without a meaning of their own."""

    title: str | None
    picture: bool
    columns: dict[str, str]


class ItemDetails(BaseModel):
    """By item; without those that the items file does not have."""

    items: dict[str, Details]


class Anchor(BaseModel):
    """A user or an item of several domains."""

    kind: str
    id: str


class AlignedNode(BaseModel):
    """A user or an item of another domain that tends to reach the same anchors.

    `shared` counts the anchors that both reach; `anchors` are at most three of them, those that weigh most.
    """

    domain: str
    kind: str
    id: str
    similarity: float
    is_same: bool
    anchors: list[Anchor]
    shared: int


class Aligned(BaseModel):
    """Partners by domain, the most similar first; null if the run has no aligned pairs."""

    partners: list[AlignedNode] | None
