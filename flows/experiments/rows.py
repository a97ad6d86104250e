"""Variants of a run's rows: shared users and items renamed, domains left out or shrunk, users merged, rows borrowed.

All tables have the columns domain, user_id, item_id, split. Draws are hashes of a seed and an id, so a variant of less
overlap or fewer rows is part of one of more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from data_contracts.contracts import HISTORY_ENDS, HISTORY_STRATA, TRAIN, USER_STRATA
from data_contracts.seeding import name_seed

Kind = Literal["user", "item"]
_UNIT = 2.0**-64
_STILL_SHARED = 0.5


def shared_ids(rows: pa.Table, kind: Kind) -> pa.Array:
    """Ids of users or items that live in two or more domains."""
    column = f"{kind}_id"
    lives = rows.group_by([column], use_threads=False).aggregate([("domain", "count_distinct")])
    return lives.filter(pc.greater(lives["domain_count_distinct"], 1))[column].combine_chunks()


def thin_overlap(rows: pa.Table, kind: Kind, share: float, seed: int) -> pa.Table:
    """Keep a share of the users (or items) that several domains share under one id; rename the others in each domain.

    Args:
        rows: of all domains.
        kind: what is renamed.
        share: of the shared ids that stay shared.
        seed: of the draw.
    """
    ids = shared_ids(rows, kind)
    renamed = ids.filter(pa.array(_draws(ids, seed) >= share))
    column = f"{kind}_id"
    is_renamed = pc.is_in(rows[column], renamed)
    names = pc.binary_join_element_wise(rows[column], rows["domain"], "@")
    return _replace(rows, column, pc.if_else(is_renamed, names, rows[column]))


def renamed_twins(rows: pa.Table, share: float, seed: int) -> pa.Table:
    """The users that `thin_overlap` renames, as twins by every two domains: source and target domain and id."""
    users = rows.select(["domain", "user_id"]).group_by(["domain", "user_id"], use_threads=False).aggregate([])
    ids = shared_ids(rows, "user")
    users = users.filter(pc.is_in(users["user_id"], ids.filter(pa.array(_draws(ids, seed) >= share))))
    other = users.rename_columns(["other_domain", "user_id"])
    both = users.join(other, "user_id", join_type="inner")
    both = both.filter(pc.less(both["domain"], both["other_domain"])).sort_by(
        [("domain", "ascending"), ("other_domain", "ascending"), ("user_id", "ascending")]
    )
    return pa.table(
        {
            "source_domain": both["domain"],
            "target_domain": both["other_domain"],
            "source_user_id": pc.binary_join_element_wise(both["user_id"], both["domain"], "@"),
            "target_user_id": pc.binary_join_element_wise(both["user_id"], both["other_domain"], "@"),
        }
    )


def give_two_names(rows: pa.Table, seed: int) -> tuple[pa.Table, pa.Table]:
    """Give half of the shared users another name in each domain: the rows, and these users as twins.

    Raises:
        ValueError: no user is renamed.
    """
    twins = renamed_twins(rows, _STILL_SHARED, seed)
    if not twins.num_rows:
        raise ValueError("domains must share more users, half of whom get two names; the draw found none to rename")
    return thin_overlap(rows, "user", _STILL_SHARED, seed), twins


def merge_users(rows: pa.Table, names: Mapping[tuple[str, str], str]) -> pa.Table:
    """Give users of a domain another id.

    Args:
        rows: of all domains.
        names: (domain, user id) → its new id.
    """
    pairs = zip(rows["domain"].to_pylist(), rows["user_id"].to_pylist(), strict=True)
    return _replace(rows, "user_id", pa.array([names.get(pair, pair[1]) for pair in pairs], pa.string()))


def borrow_rows(rows: pa.Table, pairs: pa.Table, few: int, share: float) -> pa.Table:
    """Add their partners' train rows to users with few of their own: in the partner's domain, not in theirs.

    There they hide no held-out row, and reach the user's own domain through the union graph and the evidence. Users of
    several domains, who are their own partners, get nothing.

    Args:
        rows: of all domains.
        pairs: target_domain, source_id, target_id, similarity.
        few: most train rows of a user who gets some.
        share: of these users' pairs that are used, the most alike.
    """
    train = rows.filter(pc.equal(rows["split"], TRAIN))
    counts = train.group_by(["user_id"], use_threads=False).aggregate([("item_id", "count")])
    poor = counts.filter(pc.less_equal(counts["item_id_count"], few)).select(["user_id"])
    poor = poor.filter(pc.invert(pc.is_in(poor["user_id"], shared_ids(rows, "user"))))
    used = pairs.join(poor, "source_id", "user_id", join_type="left semi")
    if used.num_rows:
        used = used.filter(pc.greater_equal(used["similarity"], pc.quantile(used["similarity"], 1 - share)[0]))
    partners = train.rename_columns(["target_domain", "target_id", "item_id", "split"])
    taken = used.join(partners, ["target_domain", "target_id"], join_type="inner")
    new = taken.select(["target_domain", "source_id", "item_id", "split"]).rename_columns(rows.column_names)
    return pa.concat_tables([rows, new.cast(rows.schema)])


def keep_domains(rows: pa.Table, domains: Sequence[str]) -> pa.Table:
    """The rows of some domains."""
    return rows.filter(pc.is_in(rows["domain"], pa.array(domains)))


def shrink_domain(rows: pa.Table, domain: str, share: float, core: float, seed: int) -> pa.Table:
    """Keep a share of a domain's users with all their rows there; only those of the core keep held-out rows.

    So domains of all sizes are measured on the same rows, those of users whom all of them have.

    Args:
        rows: of all domains.
        domain: that is shrunk.
        share: of its users that stay.
        core: of its users whose held-out rows stay; at most `share`.
        seed: of the draw.
    """
    is_other = pc.not_equal(rows["domain"], domain)
    draws = _draws_by_row(rows["user_id"], seed)
    is_train = pc.equal(rows["split"], TRAIN)
    stays = pc.and_(pa.array(draws < share), pc.or_(is_train, pa.array(draws < core)))
    return rows.filter(pc.or_(is_other, stays))


def by_size(rows: pa.Table) -> list[str]:
    """The domains, the largest first."""
    counts = rows.group_by(["domain"], use_threads=False).aggregate([("user_id", "count")])
    ordered = counts.sort_by([("user_id_count", "descending"), ("domain", "ascending")])
    domains: list[str] = ordered["domain"].to_pylist()
    return domains


def user_strata(rows: pa.Table, domain: str) -> dict[str, set[tuple[str, str]]]:
    """The users of a domain, as (domain, user id), by the strata of their histories and domains in these rows."""
    lengths = Counter(rows.filter(pc.equal(rows["split"], TRAIN))["user_id"].to_pylist())
    shared = set(shared_ids(rows, "user").to_pylist())
    strata: dict[str, set[tuple[str, str]]] = {}
    for user in pc.unique(rows.filter(pc.equal(rows["domain"], domain))["user_id"]).to_pylist():
        for names, number in (
            (HISTORY_STRATA, int(np.digitize(lengths[user], HISTORY_ENDS))),
            (USER_STRATA, int(user in shared)),
        ):
            strata.setdefault(names[number], set()).add((domain, user))
    return strata


def _draws(ids: pa.Array, seed: int) -> NDArray[np.float64]:
    """A number from 0 to 1 for each id, the same in every variant."""
    return np.array([name_seed(seed, "variant", name) * _UNIT for name in ids.to_pylist()])


def _draws_by_row(ids: pa.ChunkedArray, seed: int) -> NDArray[np.float64]:
    encoded = pc.dictionary_encode(ids).combine_chunks()
    draws: NDArray[np.float64] = _draws(encoded.dictionary, seed)[encoded.indices.to_numpy()]
    return draws


def _replace(rows: pa.Table, column: str, values: pa.Array | pa.ChunkedArray) -> pa.Table:
    return rows.set_column(rows.schema.get_field_index(column), column, values)
