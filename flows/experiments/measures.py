"""What experiments measure besides the metrics of a run: groups of users, planted twins found, gradients by domain."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.contracts import ALL, CHECKPOINT, INTERACTIONS, MACRO, NEIGHBOURS, PAIRS, RANKS, TEST
from data_contracts.roles import Role
from flows.compare.experiments import NDCG
from flows.experiments.cases import Bench, Row
from flows.runner.execute import Outcome

Members = Collection[tuple[str, str]]
"""Users by domain and id."""

Measure = Callable[[Bench, Outcome], Sequence[Row]]

PartnerUse = Literal["histories", "filter"]
"""What partners bring to the evidence: their histories, or a filter between items."""

UserValues = dict[tuple[int, str, str], float]
"""(seed, domain, user id) → value."""

FOUND = "twins found"
"""Share of the planted twins whose most similar partner in the other domain is their twin."""
PARTNER_WEIGHT = "weight of partners' evidence"
"""That validated best of those that were tried."""
CONFLICT, NORM = "gradients in conflict", "gradient norm"
"""Share of rows of the inter table on which two domains' gradients point apart, and the norm of a domain's gradient."""
CHANCE = "gradients in conflict within a domain"
"""The same share for two halves of one domain's batches: how much of a conflict is noise."""

_MEASURED_EPOCHS = 32
"""Most epochs of a training whose gradients are compared."""


def group_ndcg(group: str) -> str:
    """Name of the NDCG@20 of a group of users."""
    return f"{NDCG} of {group}"


def measure_groups(groups: Mapping[str, Members]) -> Measure:
    """NDCG@20 of groups of users in their domains, as macro: the mean over a group's users and domains.

    Args:
        groups: name → users, as the case names them.
    """
    return lambda _bench, outcome: _group_rows(_user_ndcg(outcome), groups)


def measure_domain(group: str, domain: str, strata: Mapping[str, Members]) -> Measure:
    """NDCG@20 of one domain as that of a group, by strata that are the same in all cases.

    Args:
        group: its name.
        domain: its only domain.
        strata: stratum → its users.
    """

    def measure(_bench: Bench, outcome: Outcome) -> list[Row]:
        values = {user: value for user, value in _user_ndcg(outcome).items() if user[1] == domain}
        everybody = {user[1:] for user in values}
        return [
            (seed, MACRO, stratum, group_ndcg(group), mean)
            for stratum, members in {ALL: everybody, **strata}.items()
            for seed, mean in _means(values, members).items()
        ]

    return measure


def measure_partners(pairs: pa.Table, groups: Mapping[str, Members], use: PartnerUse) -> Measure:
    """NDCG@20 of a run, measured again with evidence by aligned partners: by domain and by group.

    Args:
        pairs: source_id, target_id, similarity, of users.
        groups: name → users.
        use: what the partners bring.
    """

    def measure(_bench: Bench, outcome: Outcome) -> list[Row]:
        from flows.experiments.bridge_filter import bridge_filter
        from flows.experiments.partner_evidence import partner_histories, rank_with_partners
        from model.compute.threads import torch_threads

        applied = bridge_filter if use == "filter" else partner_histories
        config, values, rows = outcome.config, UserValues(), list[Row]()
        with torch_threads(config.compute.threads):
            ranked = rank_with_partners(outcome.artifacts, config.train.seeds, pairs, applied, config.blend)
            for seed, weight, ndcg in ranked:
                rows.append((seed, MACRO, ALL, PARTNER_WEIGHT, weight))
                values |= {(seed, *user): value for user, value in ndcg.items()}
        for seed, means in _domain_means(values).items():
            means[MACRO] = sum(means.values()) / len(means)
            rows += [(seed, domain, ALL, NDCG, mean) for domain, mean in means.items()]
        return [*rows, *_group_rows(values, groups)]

    return measure


def _group_rows(values: UserValues, groups: Mapping[str, Members]) -> list[Row]:
    return [
        (seed, MACRO, ALL, group_ndcg(name), mean)
        for name, members in groups.items()
        for seed, mean in _means(values, members).items()
    ]


def _means(values: UserValues, members: Members) -> dict[int, float]:
    """Seed → the mean over members, if any has a value."""
    by_seed: dict[int, list[float]] = {}
    for (seed, *user), value in values.items():
        if tuple(user) in members:
            by_seed.setdefault(seed, []).append(value)
    return {seed: sum(of) / len(of) for seed, of in sorted(by_seed.items())}


def _domain_means(values: UserValues) -> dict[int, dict[str, float]]:
    """Seed → domain → the mean over its users."""
    by_seed: dict[int, dict[str, list[float]]] = {}
    for (seed, domain, _), value in values.items():
        by_seed.setdefault(seed, {}).setdefault(domain, []).append(value)
    return {seed: {domain: sum(of) / len(of) for domain, of in by_domain.items()}
            for seed, by_domain in sorted(by_seed.items())}  # fmt: skip


def _user_ndcg(outcome: Outcome) -> UserValues:
    """NDCG@20 of each user's test rows in a domain."""
    from model.evaluation.metrics import user_values

    ranks = outcome.artifacts[RANKS.name].read(["seed", "domain", "user", "full_rank"])
    ranks = ranks.filter(pc.is_valid(ranks["full_rank"]))
    names = outcome.artifacts[INTERACTIONS.name].read(["user", "user_id", "split"])
    names = names.filter(pc.equal(names["split"], TEST)).group_by(["user", "user_id"]).aggregate([])
    ids = dict(zip(names["user"].to_pylist(), names["user_id"].to_pylist(), strict=True))
    values: UserValues = {}
    for pair in ranks.group_by(["seed", "domain"], use_threads=False).aggregate([]).to_pylist():
        chosen = pc.and_(pc.equal(ranks["seed"], pair["seed"]), pc.equal(ranks["domain"], pair["domain"]))
        of_pair = ranks.filter(chosen).sort_by("user")
        users = of_pair["user"].to_numpy()
        ndcg = user_values(users, of_pair["full_rank"].to_numpy(), (20,))[NDCG]
        distinct = pc.unique(of_pair["user"]).to_pylist()
        values |= {(pair["seed"], pair["domain"], ids[u]): float(v) for u, v in zip(distinct, ndcg, strict=True)}
    return values


def measure_twins(twins: pa.Table) -> Measure:
    """How many planted twins the pairs of a case find.

    Args:
        twins: as in the contract `world`.
    """

    def measure(bench: Bench, outcome: Outcome) -> list[Row]:
        if PAIRS.name not in outcome.artifacts:
            return []
        columns = ("source_domain", "target_domain", "source_user_id", "target_user_id")
        planted = set(zip(*(twins[name].to_pylist() for name in columns), strict=True))
        found = bench.user_pairs_of(outcome)
        ends = ("source_domain", "target_domain", "source_id", "target_id")
        best = set(zip(*(found[name].to_pylist() for name in ends), strict=True))
        swapped = {(target, source, other, user) for source, target, user, other in best}
        share = (len(planted & best) + len(planted & swapped)) / (2 * len(planted)) if planted else 0.0
        return [(seed, MACRO, ALL, FOUND, share) for seed in outcome.config.train.seeds]

    return measure


def measure_gradients_by_domain(bench: Bench, outcome: Outcome) -> list[Row]:
    """Conflict of each domain with the others on the inter table, and norms of gradients, as means over epochs."""
    from data_contracts.settings.train import CheckpointSettings
    from model.training.gradients import measure_gradients

    config, rows = outcome.config, []
    train = config.train.model_copy(
        update={"select_by": "auc", "epochs": min(config.train.epochs, _MEASURED_EPOCHS), "seeds": (0,)}
    )
    for seed in config.train.seeds:
        settings = CheckpointSettings(train=train, seed=seed, validation=config.evaluate)
        read = outcome.plan.own_parents(str(Role(CHECKPOINT, seed)))
        parents = {role: outcome.artifacts[role] for role in read if role != NEIGHBOURS.name}  # which only selects
        with bench.watch(f"gradients-{seed}") as progress:
            table = measure_gradients(bench.store, settings, parents, config.compute, progress).read()
        for metric, by_domain in _by_domain(table).items():
            rows += [(seed, domain, ALL, metric, value) for domain, value in by_domain.items()]
            if by_domain:
                rows.append((seed, MACRO, ALL, metric, sum(by_domain.values()) / len(by_domain)))
    return rows


def _by_domain(gradients: pa.Table) -> dict[str, dict[str, float]]:
    """Measure → domain → its mean over epochs, of conflict also over other domains."""
    chosen = pc.and_(pc.equal(gradients["table"], "inter"), pc.is_valid(gradients["value"]))
    values: dict[str, dict[str, list[float]]] = {CONFLICT: {}, CHANCE: {}, NORM: {}}
    for row in gradients.filter(chosen).to_pylist():
        ends = {row["domain"], row["other_domain"]} - {""}
        name = {"norm": NORM, "negative": CONFLICT if len(ends) == 2 else CHANCE}.get(row["metric"])
        if name:
            for domain in ends:
                values[name].setdefault(domain, []).append(row["value"])
    return {name: {domain: sum(of) / len(of) for domain, of in sorted(found.items())}
            for name, found in values.items()}  # fmt: skip


def together(*measures: Measure) -> Measure:
    """Several measures."""

    def measure(bench: Bench, outcome: Outcome) -> list[Row]:
        return [row for each in measures for row in each(bench, outcome)]

    return measure
