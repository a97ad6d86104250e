"""Commands that recommend: `recommend`, `index`, `serve`."""

from __future__ import annotations

import ipaddress
import json
import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import ArgumentCollection, Group, Parameter, validators

from flows.cli.options import Run, Viewing, Whole
from flows.output.characters import escape
from flows.output.console import inform, print_result, terminal_width, watcher
from flows.output.tables import Table
from flows.serve.open_run import exported_run, open_run
from model.serving.explanations import REASONS
from model.serving.recommender import NewUserRanking, Ranking, Recommender, ScoredItem


def _exactly_one(given: ArgumentCollection) -> None:
    names = [argument.name for argument in given if argument.tokens]
    options = "--user, --like, --new-user"
    if not names:
        raise ValueError(f"found none of {options}, must be exactly one")
    if len(names) > 1:
        raise ValueError(f"found {' and '.join(names)}, must be exactly one of {options}")


_FOR = Group("For whom", validator=_exactly_one, sort_key=50)
_WITHOUT_VECTOR = {"evidence": "walks from the items in other domains", "popularity": "popularity"}
"""How a ranking for a user without a vector in the domain was made → its name in messages."""


def recommend(
    run: Run,
    /,
    *,
    domain: Annotated[str, Parameter(metavar="DOMAIN")],
    user: Annotated[str | None, Parameter(group=_FOR, metavar="USER")] = None,
    like: Annotated[str | None, Parameter(group=_FOR, metavar="ITEM")] = None,
    new_user: Annotated[tuple[str, ...], Parameter(group=_FOR, negative="", show_default=False, metavar="ITEMS")] = (),
    top: Annotated[Whole, Parameter(validator=validators.Number(gte=1), metavar="N")] = 10,
    why: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    with_index: Annotated[bool, Parameter(name="--index", negative="", show_default=False)] = False,
    json_: Annotated[bool, Parameter(name="--json", negative="", show_default=False)] = False,
    options: Viewing = Viewing(),
) -> None:
    """Print the best items for a user, known or new, or those most like an item: rank, item, score.

    Parameters
    ----------
    domain:
        domain to recommend in.
    user:
        a user's id as in the logs; items seen in training in the domain are left out. A user of other domains is ranked
        by walks from what the user has there.
    like:
        an item's id; the score is the cosine of the two items' vectors, with walks from the item beside it.
    new_user:
        ids of items of any domain that a user who was not in training knows, separated by commas (or repeat the
        option); they are left out, and the vector is one propagation step from those of the domain.
    top:
        number of items to print.
    why:
        print for each item which items of the user it follows from, with their domains and shares, and how much of the
        score is the vectors' and how much is evidence from walks.
    with_index:
        search with the run's index (`edda index`) for users, known or new, instead of exactly.
    json_:
        print JSON.
    """
    recommender, reasons = open_run(run, options.store, index=with_index), REASONS if why else 0
    result: dict[str, object] = {"domain": domain}
    if user is not None:
        result["user"], ranking = user, recommender.for_user(domain, user, top, reasons)
        if by := _WITHOUT_VECTOR.get(ranking.by):
            inform(f"user {user!r} is in other domains only and has no vector in {domain!r}: ranked by {by}")
    elif like is not None:
        result["like"], ranking = like, recommender.similar(domain, like, top, reasons)
    else:
        ranking = new_user_ranking = _for_new_user(recommender, domain, new_user, top, reasons)
        result |= {"used": new_user_ranking.used, "ignored": new_user_ranking.ignored}
    if json_:
        result |= {"by": ranking.by, "score": _score_meaning(ranking, like is not None)}
        result["items"] = [_as_json(row, why) for row in ranking.items]
        print_result(json.dumps(result, indent=2, ensure_ascii=False))
        return
    if not ranking.items:
        inform(f"domain {domain!r} has no other item to recommend")
    for row in ranking.items:
        reason = [_describe_reasons(row)] if why else []
        print_result("\t".join([str(row.rank), escape(row.item), f"{row.score:.4f}", *map(escape, reason)]))


def index(run: Run, /, *, options: Viewing = Viewing()) -> None:
    """Build an approximate index (HNSW) of each domain's items and compare it with exact search.

    It is worth it for domains with many items.
    """
    from model.serving.approximate import build_index  # needs the extra `ann`

    view = exported_run(run, options.store)
    with watcher()("index") as progress:
        made = build_index(view.store, view.artifacts, progress)
    view.store.link(view.name, "index", made)
    times = ("exact_p50", "exact_p99", "index_p50", "index_p99")
    rows = tuple(
        (row["domain"], f"{row['items']:,}", f"{row['recall']:.4f}", *(f"{row[time]:,.2f}" for time in times))
        for row in made.read().to_pylist()
    )
    header = ("domain", "items", "recall@20", "exact, ms p50", "p99", "index, ms p50", "p99")
    print_result(Table(f"Index in {made.path}", header, rows).plain(terminal_width()))


@Parameter(name="*")
@dataclass(frozen=True)
class ServeOptions:
    """How `edda serve` answers, and what it lists."""

    with_index: Annotated[bool, Parameter(name="--index", negative="", show_default=False)] = False
    """Search with the run's index (`edda index`) for users, known or new, instead of exactly."""
    workers: Annotated[Whole, Parameter(validator=validators.Number(gte=1, lte=256), metavar="N")] = 1
    """Processes that answer; mapped vectors are in memory once."""
    watch: Annotated[float | None, Parameter(validator=validators.Number(gt=0), metavar="SECONDS")] = None
    """Look for a new generation of the run every so many seconds and serve it; SIGHUP does so at once."""
    items: Annotated[Path | None, Parameter(metavar="FILE")] = None
    """CSV, TSV or Parquet with a column `id` and perhaps `title`, `picture` (a file beside it) and others; by default
    the file's `serve.items`."""
    allow: Annotated[Path | None, Parameter(metavar="FILE")] = None
    """File of items' ids, one a line: no others are ever listed."""
    deny: Annotated[Path | None, Parameter(metavar="FILE")] = None
    """File of items' ids, one a line, that are never listed."""
    fallback: Literal["none", "popularity"] = "none"
    """What a user without history gets: an error, or the most popular items; a request may say otherwise."""
    cors: Annotated[tuple[str, ...], Parameter(negative="", show_default=False, metavar="ORIGIN")] = ()
    """Origin of a page that browsers may let ask, e.g. https://shop.example, or *; may be repeated."""
    access_log: Annotated[bool, Parameter(negative="", show_default=False)] = False
    """Write a line of JSON for each request to standard output."""


def serve(
    run: Run,
    /,
    *,
    host: Annotated[str, Parameter(metavar="HOST")] = "127.0.0.1",
    port: Annotated[Whole, Parameter(validator=validators.Number(gte=0, lte=65_535), metavar="PORT")] = 8000,
    serving: ServeOptions = ServeOptions(),
    options: Viewing = Viewing(),
) -> int:
    """Answer over HTTP what `recommend` answers, until interrupted; read-only, OpenAPI at /openapi.json.

    A page to look at is at /, the paths are listed at /docs. With $EDDA_SERVE_TOKEN set, requests need the header
    `Authorization: Bearer TOKEN`.

    Parameters
    ----------
    host:
        address to listen on; anyone who can reach it may send requests, unless a token is set.
    port:
        port to listen on; 0 picks a free one.
    """
    from flows.serve.served_run import RunSource
    from flows.serve.server import Serving, serve_until_stopped  # needs the extra `serve`
    from flows.serve.service import ServiceSettings

    _require_address(host, serving.cors)
    token = _token()
    if token is None and not _is_loopback(host):
        inform(f"anyone who can reach {host} may ask: set ${TOKEN_VARIABLE} to require a token")
    source = RunSource(run, options.store, serving.with_index, serving.items, serving.allow, serving.deny)
    settings = ServiceSettings(token, serving.cors, serving.access_log, serving.fallback)
    level = logging.DEBUG if options.debug else logging.INFO
    return serve_until_stopped(Serving(source, settings, serving.watch, serving.workers, level), host, port)


TOKEN_VARIABLE = "EDDA_SERVE_TOKEN"
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*", re.ASCII)
"""What a bearer token may be (RFC 6750)."""


def _token() -> str | None:
    """The token that requests must have; None if the variable is not set."""
    token = os.environ.get(TOKEN_VARIABLE)
    if token is not None and not _TOKEN.fullmatch(token):
        found = "has other characters" if token else "is empty"
        raise ValueError(
            f"${TOKEN_VARIABLE} {found}, must be letters, digits and -._~+/ (unset it to ask for no token)"
        )
    return token


_ORIGIN = re.compile(r"\*|[a-z][a-z0-9+.-]*://[^/?#\s]+", re.IGNORECASE)
"""What a browser sends as the origin of a page, or any."""


def _require_address(host: str, origins: tuple[str, ...]) -> None:
    if not host.strip():  # it would listen on all
        raise ValueError(f"--host is {host!r}, must be an address; 0.0.0.0 is all of this machine")
    for origin in origins:
        if not _ORIGIN.fullmatch(origin):
            rule = "* or an origin without a path, e.g. https://shop.example"
            raise ValueError(f"--cors is {origin!r}, must be {rule}")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _for_new_user(
    recommender: Recommender, domain: str, given: tuple[str, ...], top: int, reasons: int
) -> NewUserRanking:
    """Rank for all given items and report the ignored ones; a comma is a separator unless an item's id has it."""
    items = [name for text in given for name in ([text] if recommender.has_item(text) else text.split(",")) if name]
    ranking = recommender.for_new_user(domain, items, top, reasons)
    for item, others in ranking.ignored.items():
        where = f"only in {', '.join(others)}" if others else "in no domain"
        inform(f"ignored: {item!r} is not in domain {domain!r}, it is {where}")
    if by := _WITHOUT_VECTOR.get(ranking.by):
        inform(f"no item given is in domain {domain!r}: ranked by {by}")
    return ranking


def _score_meaning(ranking: Ranking, is_like: bool) -> str:
    """What the scores of a list are."""
    if ranking.by == "vectors":
        return "cosine" if is_like else "dot product"
    return "train users" if ranking.by == "popularity" else ranking.by


def _as_json(row: ScoredItem, why: bool) -> dict[str, object]:
    item: dict[str, object] = {"rank": row.rank, "item": row.item, "score": row.score}
    if why:
        because_of = [reason._asdict() for reason in row.why.because_of] if row.why else []
        item["why"] = row.why and {**row.why._asdict(), "because_of": because_of}
    return item


def _describe_reasons(row: ScoredItem) -> str:
    """A sentence: `because of i0007 (books) 41 %, i0011 (films) 22 %; vectors 31 %, evidence 69 %`."""
    if row.why is None:
        return "popular"
    shares = f"vectors {row.why.vectors:.0%}, evidence {row.why.evidence:.0%}".replace("%", " %")
    items = [f"{reason.item} ({', '.join(reason.domains)}) {100 * reason.share:.0f} %" for reason in row.why.because_of]
    return f"because of {', '.join(items)}; {shares}" if items else shares
