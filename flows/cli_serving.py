"""Commands that answer from a run's vectors: `recommend`, `index`, `serve`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

from cyclopts import ArgumentCollection, Group, Parameter, validators

from flows.cli_options import Run, Viewing
from flows.console import answer, tell, watcher

if TYPE_CHECKING:
    from flows.recommending import NewUser, Recommender


def _exactly_one(given: ArgumentCollection) -> None:
    found = [argument.name for argument in given if argument.tokens]
    if len(found) != 1:
        raise ValueError(f"found {' and '.join(found) or 'none'}, must be exactly one of --user, --like, --new-user")


_FOR = Group("For", validator=_exactly_one)


def recommend(
    run: Run,
    /,
    *,
    domain: str,
    user: Annotated[str | None, Parameter(group=_FOR)] = None,
    like: Annotated[str | None, Parameter(group=_FOR)] = None,
    new_user: Annotated[tuple[str, ...], Parameter(group=_FOR, negative="", show_default=False)] = (),
    top: Annotated[int, Parameter(validator=validators.Number(gte=1))] = 10,
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
        a user's id as in the logs; items seen in training are left out. The score is the model's.
    like:
        an item's id; the score is the cosine of the two items' vectors.
    new_user:
        ids of items that a user who was not in training knows, separated by commas or the option repeated; they are
        left out, the vector is one propagation step from theirs.
    top:
        items to print.
    with_index:
        search by the run's index (`edda index`) for users, known or new, in place of exactly.
    json_:
        print JSON.
    """
    from flows.recommending import open_run

    recommender = open_run(run, options.store, index=with_index)
    asked: dict[str, object] = {"domain": domain}
    if user is not None:
        asked["user"], items = user, recommender.for_user(domain, user, top)
    elif like is not None:
        asked["like"], items = like, recommender.similar(domain, like, top)
    else:
        found = _for_new_user(recommender, domain, new_user, top)
        asked |= {"used": found.used, "ignored": found.ignored}
        items = found.items
    if json_:
        score = "cosine" if like is not None else "dot product"
        rows = [row._asdict() for row in items]
        answer(json.dumps({**asked, "score": score, "items": rows}, indent=2, ensure_ascii=False))
        return
    if not items:
        tell(f"domain {domain!r} has no other item to recommend")
    for row in items:
        answer(f"{row.rank}\t{row.item}\t{row.score:.4f}")


def index(run: Run, /, *, options: Viewing = Viewing()) -> None:
    """Build an approximate index (HNSW) of each domain's items and compare it with exact search; worth it for many."""
    from flows.recommending import exported_run
    from flows.summary import Table
    from model.index import build_index

    name, artifacts, store = exported_run(run, options.store)
    with watcher()("index") as progress:
        made = build_index(store, artifacts, progress)
    store.link(name, "index", made)
    rows = tuple(
        (row["domain"], f"{row['items']:,}", f"{row['recall']:.3f}", f"{row['exact_per_second']:,.0f}",
         f"{row['index_per_second']:,.0f}") for row in made.read().to_pylist()
    )  # fmt: skip
    header = ("domain", "items", "recall@20", "exact, users/s", "index, users/s")
    answer(Table(f"Index in {made.path}", header, rows).plain())


def serve(
    run: Run,
    /,
    *,
    host: str = "127.0.0.1",
    port: Annotated[int, Parameter(validator=validators.Number(gte=0, lte=65_535))] = 8000,
    with_index: Annotated[bool, Parameter(name="--index", negative="", show_default=False)] = False,
    options: Viewing = Viewing(),
) -> None:
    """Answer over HTTP what `recommend` answers, until interrupted; read-only, OpenAPI at /openapi.json.

    Parameters
    ----------
    host:
        address to listen on; whoever reaches it may ask, so leave others than this machine to a proxy.
    port:
        port to listen on; 0 takes a free one.
    with_index:
        search by the run's index (`edda index`) for users, known or new, in place of exactly.
    """
    from flows.recommending import open_run
    from flows.service import service
    from flows.serving import serve_until_stopped

    serve_until_stopped(service(open_run(run, options.store, index=with_index), run), host, port)


def _for_new_user(recommender: Recommender, domain: str, given: tuple[str, ...], top: int) -> NewUser:
    """Ask with every item given, and tell which were ignored; a comma separates unless it belongs to an item's id."""
    from model.catalogue import numbers_of

    catalogue = recommender.catalogue(domain)
    whole = dict(zip(given, numbers_of(catalogue.item_ids, catalogue.item_order, given) >= 0, strict=True))
    items = [name for text in given for name in ([text] if whole[text] else text.split(",")) if name]
    found = recommender.for_new_user(domain, items, top)
    for item, others in found.ignored.items():
        where = f"only in {', '.join(others)}" if others else "in no domain"
        tell(f"ignored: {item!r} is not in domain {domain!r}, it is {where}")
    return found
