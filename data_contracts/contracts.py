"""The contracts of every artifact, in the order in which a run makes them."""

from __future__ import annotations

import pyarrow as pa

from data_contracts.schema import Column, Contract, Reference

USER, ITEM = "user", "item"
KINDS = (USER, ITEM)
TRAIN, VALID, TEST = "train", "valid", "test"
SPLITS = (TRAIN, VALID, TEST)
REASONS = (
    *("arity", "header", "length", "missing", "number", "undecodable", "split", "syntax", "rating", "cold", "leaked"),
)
"""Why a row of the raw logs is rejected."""
COVERAGE_FILE = "coverage.json"
MACRO = "macro"
"""In place of a domain's name: the mean over domains."""

DOMAIN_BYTES = 241
"""Most bytes of a domain's name, percent-encoded: `source_domain=<name>` is a folder, whose name may have 255."""

SHARE = "share_"
"""Prefix of metrics that say which parts a score comes from; they do not measure accuracy."""
COVERAGE, GINI = "coverage@20", "gini@20"
NOVELTY, POPULARITY, TAIL_SHARE = "novelty@20", "popularity@20", "tail_share@20"
BEYOND_ACCURACY = (COVERAGE, GINI, NOVELTY, POPULARITY, TAIL_SHARE)
"""Metrics of what test users are recommended; they do not measure accuracy."""
UNBOUNDED = (NOVELTY, POPULARITY)
"""Metrics that may exceed 1."""
ALL = "all"
"""The stratum of all held-out rows."""
HISTORY_STRATA = ("history 0", "history 1-2", "history 3-5", "history 6-10", "history 11+")
"""Strata of users by their train rows in all domains together."""
HISTORY_ENDS = (1, 3, 6, 11)
"""The first length of each stratum of histories after the first."""
USER_STRATA = ("user in one domain", "user in several domains")
ITEM_STRATA = ("item in one domain", "item in several domains")
STRATA = (*HISTORY_STRATA, *USER_STRATA, *ITEM_STRATA)
"""Strata in the order of tables."""
UNION = ""
"""In place of a domain's name: all domains together."""

_DOMAIN = Column("domain", pa.string(), "the domain's name (market, ad slot, product category)")
_USER_ID = Column("user_id", pa.string(), "the user as the logs name it")
_ITEM_ID = Column("item_id", pa.string(), "the item as the logs name it")
_KIND = Column("kind", pa.string(), "what the node is", allowed=KINDS)
_NODE = Column("node", pa.int32(), "number in its domain's graph, users before items", minimum=0)
_NODE_REFERENCE = Reference(("domain", "node"), "nodes", ("domain", "node"))

WORLD = Contract(
    "world",
    1,
    "A generated multi-domain log with planted twins: one person under two names, in two domains, with one taste.",
    (
        Column("source_domain", pa.string(), "domain of the first name"),
        Column("target_domain", pa.string(), "domain of the second name"),
        Column("source_user_id", pa.string(), "the person's name in the source domain"),
        Column("target_user_id", pa.string(), "the person's name in the target domain"),
    ),
    key=("source_domain", "target_domain", "source_user_id"),
    sorted_by=("source_domain", "target_domain", "source_user_id"),
    files=("logs/*.csv.gz",),
)

REJECTS = Contract(
    "rejects",
    3,
    "Every row of the raw logs that did not become an interaction, with the reason.",
    (
        Column("file", pa.string(), "the log file, relative to its source's fixed folder"),
        Column("line", pa.int64(), "line in the file (row of Parquet) from 1, empty ones and header too", minimum=1),
        Column("reason", pa.string(), "why it was rejected", allowed=REASONS),
        Column("text", pa.string(), "offending field, unreadable line, or user id, tab, item id", may_be_empty=True),
    ),
    key=(),
    sorted_by=("file", "line"),
)

INTERACTIONS = Contract(
    "interactions",
    3,
    "Cleaned, deduplicated, split positives of every domain; no pair is trained in one domain and held out in another.",
    (
        _DOMAIN,
        _USER_ID,
        _ITEM_ID,
        Column("user", pa.int32(), "number over all domains: the rank of its id, or as an update found it", minimum=0),
        Column("item", pa.int32(), "number over all domains: the rank of its id, or as an update found it", minimum=0),
        Column("split", pa.string(), "what the row may be used for", allowed=SPLITS),
        Column("timestamp", pa.int64(), "earliest time of the merged rows", "as in the logs", nullable=True),
        Column("count", pa.int32(), "raw rows merged into this one", "rows", minimum=1),
    ),
    key=("domain", "user", "item", "split"),
    sorted_by=("user", "item", "split"),
    partitioned_by=("domain",),
)

NODES = Contract(
    "nodes",
    1,
    "Every user and item of a domain: its number in the domain's graph, its number over all domains, its id.",
    (
        _DOMAIN,
        _KIND,
        _NODE,
        Column("entity", pa.int32(), "number among all domains' users (or items): `user` or `item`", minimum=0),
        Column("id", pa.string(), "the user or item as the logs name it"),
        Column("train_degree", pa.int32(), "distinct neighbours in the train split", "edges", minimum=0),
        Column("is_anchor", pa.bool_(), "lives in two or more domains and is of an anchor kind"),
    ),
    key=("domain", "node"),
    sorted_by=("node",),
    partitioned_by=("domain",),
)

GRAPH = Contract(
    "graph",
    1,
    "The train graph of each domain in compressed rows: the list's offsets and values are indptr and indices.",
    (
        _DOMAIN,
        _NODE,
        Column("neighbours", pa.list_(pa.int32()), "nodes joined to it by a train interaction, ascending", minimum=0),
    ),
    key=("domain", "node"),
    sorted_by=("node",),
    partitioned_by=("domain",),
    references=(_NODE_REFERENCE, Reference(("domain", "neighbours"), "nodes", ("domain", "node"))),
)

NEIGHBOURS = Contract(
    "neighbours",
    1,
    "For each item the items that three-step walks, item, user, item, tie it to most, over all domains' train rows.",
    (
        Column("domain", pa.string(), "whose train rows were walked; empty: those of all domains", may_be_empty=True),
        Column("item", pa.int32(), "as in `interactions`", minimum=0),
        Column("neighbours", pa.list_(pa.int32()), "other items, as in `interactions`, ascending", minimum=0),
        Column("weights", pa.list_(pa.float32()), "of the walks to each of them", above=0.0),
    ),
    key=("domain", "item"),
    sorted_by=("domain", "item"),
    references=(
        Reference(("item",), "nodes", ("entity",), where=("kind", ITEM)),
        Reference(("neighbours",), "nodes", ("entity",), where=("kind", ITEM)),
    ),
    files=("rows/*.safetensors",),  # by domain, or `union`: the same rows, by item number
)

REACH = Contract(
    "reach",
    1,
    "Sparse anchor-reach vectors: how likely a random walk from a node ends at each anchor of its domain.",
    (
        _DOMAIN,
        _NODE,
        Column("anchors", pa.list_(pa.int32()), "anchor nodes that walks end on, ascending", minimum=0),
        Column("weights", pa.list_(pa.float32()), "share of the walks that end there", "probability", above=0.0),
    ),
    key=("domain", "node"),
    sorted_by=("node",),
    partitioned_by=("domain",),
    references=(_NODE_REFERENCE, Reference(("domain", "anchors"), "nodes", ("domain", "node"))),
)

PAIRS = Contract(
    "pairs",
    2,
    "Aligned pairs: nodes of two domains that tend to reach the same shared anchors; identity pairs have rank 0.",
    (
        Column("source_domain", pa.string(), "domain of the node that looks for partners"),
        Column("target_domain", pa.string(), "domain of its partners"),
        Column("source_node", pa.int32(), "node in the source domain's graph", minimum=0),
        Column("target_node", pa.int32(), "node in the target domain's graph", minimum=0),
        Column("kind", pa.string(), "what the source node is; with pairs.kinds = apart its partner too", allowed=KINDS),
        Column("similarity", pa.float32(), "cosine of the reach vectors over shared anchors", above=0.0, maximum=1.0),
        Column("rank", pa.int32(), "1 = most similar; 0 = the same user or item", minimum=0),
        Column("identity", pa.bool_(), "the two nodes are one user or item that lives in both domains"),
    ),
    key=("source_domain", "target_domain", "source_node", "rank"),
    sorted_by=("target_domain", "source_node", "rank"),
    partitioned_by=("source_domain",),
    references=(
        Reference(("source_domain", "source_node", "kind"), "nodes", ("domain", "node", "kind")),
        Reference(("target_domain", "target_node"), "nodes", ("domain", "node")),
    ),
    files=(COVERAGE_FILE,),  # how many nodes have partners, by domains and kind
)

CHECKPOINT = Contract(
    "checkpoint",
    1,
    "The trained tables of the epoch that validated best (model.safetensors) and the history of all epochs.",
    (
        Column("epoch", pa.int32(), "epoch, from 1; 0 is a warm start before it learns", minimum=0),
        Column("domain", pa.string(), "the domain, or `macro` for the mean over domains"),
        Column("metric", pa.string(), "loss, alignment loss or a validation metric"),
        Column("value", pa.float64(), "the metric's value"),
    ),
    key=("epoch", "domain", "metric"),
    sorted_by=("epoch", "domain", "metric"),
    files=("model.safetensors", "model.json"),
)

BLEND = Contract(
    "blend",
    1,
    "How much evidence from walks weighs beside the vectors, by domain: every blend tried on the validation split.",
    (
        _DOMAIN,
        Column("share", pa.float64(), "of evidence: 0 = vectors alone, 1 = evidence alone, a half = they spread "
               "equally for the median user", minimum=0.0, maximum=1.0),
        Column("vectors", pa.float64(), "what the dot product of the final vectors is multiplied by", minimum=0.0),
        Column("evidence", pa.float64(), "what a user's evidence is multiplied by, times its growth", minimum=0.0),
        Column("spread", pa.float64(), "deviation of the vectors' scores over items, median of users", above=0.0),
        Column("growth", pa.float64(), "the power of the number of a user's train items that it grows by"),
        Column("full_ndcg@20", pa.float64(), "mean over users", minimum=0.0, maximum=1.0),
        Column("full_recall@20", pa.float64(), "mean over users", minimum=0.0, maximum=1.0),
        Column("users", pa.int64(), "validation users behind it", "users", minimum=0),
        Column("chosen", pa.bool_(), "what is served: the best NDCG"),
    ),
    key=("domain", "share"),
    sorted_by=("domain", "share"),
)  # fmt: skip

RANKS = Contract(
    "ranks",
    1,
    "Where each held-out test row's item ranked, so that runs can be compared row by row.",
    (
        Column("seed", pa.int64(), "training seed"),
        _DOMAIN,
        Column("user", pa.int32(), "as in `interactions`", minimum=0),
        Column("item", pa.int32(), "as in `interactions`", minimum=0),
        Column("rank", pa.int32(), "among it and its candidates; null where no row has any", minimum=1, nullable=True),
        Column("auc", pa.float64(), "the row's part in the domain's auc, which is the mean; likewise", nullable=True),
        Column("full_rank", pa.int64(), "among all items; null where left out of it", minimum=1, nullable=True),
    ),
    key=("seed", "domain", "user", "item"),
    sorted_by=("seed", "domain", "user", "item"),
)

METRICS = Contract(
    "metrics",
    5,
    "Accuracy, where scores come from, what is recommended; by seed, domain, split, stratum.",
    (
        Column("seed", pa.int64(), "training seed", nullable=True),
        Column("epoch", pa.int32(), "the selected epoch", minimum=0, nullable=True),
        Column("domain", pa.string(), "the domain, or `macro` for the mean over the domains that have the metric"),
        Column("split", pa.string(), "the held-out split", allowed=(VALID, TEST)),
        Column("stratum", pa.string(), "which held-out rows: all, or full_recall@k and full_ndcg@k of some: by the "
               "user's train rows in all domains, by whether the user or the item lives in one domain or in several",
               allowed=(ALL, *STRATA)),
        Column("metric", pa.string(), "auc, recall@k over candidates; full_recall@k, full_ndcg@k, full_mrr; of test "
               "share_inter, share_intra (or share_vectors) and share_evidence of a score's spread over items, and of "
               "test users' lists " + ", ".join(BEYOND_ACCURACY)),
        Column("value", pa.float64(), "the estimate; with a null seed the mean over seeds"),
        Column("low", pa.float64(), "lower end of the 95 % interval"),
        Column("high", pa.float64(), "upper end of the 95 % interval"),
        Column("rows", pa.int64(), "held-out interactions behind it", "rows", minimum=0),
        Column("users", pa.int64(), "users behind it; with `macro` the sum over domains", "users", minimum=0),
    ),
    key=("seed", "domain", "split", "stratum", "metric"),
)  # fmt: skip

EMBEDDINGS = Contract(
    "embeddings",
    2,
    "Final vectors of every user and item of every domain; a dot product of two is the model's score.",
    (
        _DOMAIN,
        _KIND,
        Column("id", pa.string(), "the user or item as the logs name it"),
        Column("vector", pa.list_(pa.float32()), "inter part, then intra part"),
    ),
    key=("domain", "kind", "id"),
    partitioned_by=("domain",),
    files=("vectors/*.safetensors",),  # by domain, `users` and `items`: the same vectors in the order of the rows
)

RECOMMENDATIONS = Contract(
    "recommendations",
    2,
    "The best items for every user of every domain, items seen in training left out; with export.why also the reasons.",
    (
        _DOMAIN,
        _USER_ID,
        _ITEM_ID,
        Column("score", pa.float32(), "as served: dot product of final vectors, blended with evidence if there is any"),
        Column("rank", pa.int32(), "1 = best", minimum=1),
        Column("because_of", pa.list_(pa.string()), "items of the user's history that most of its evidence comes from, "
               "at most three, the largest share first; null without export.why", nullable=True),
        Column("because_of_domains", pa.list_(pa.list_(pa.string())), "where the user has each in the train split; "
               "likewise", nullable=True),
        Column("because_of_shares", pa.list_(pa.float32()), "share of each in the item's evidence; likewise",
               minimum=0.0, maximum=1.0, nullable=True),
        Column("evidence_share", pa.float32(), "share of evidence in the score, vectors have the rest: |e| / (|v| + "
               "|e|) of its weighted parts; null without export.why, and where both are 0", minimum=0.0, maximum=1.0,
               nullable=True),
    ),
    key=("domain", "user_id", "rank"),
    sorted_by=("user_id", "rank"),
    partitioned_by=("domain",),
)  # fmt: skip

INDEX = Contract(
    "index",
    2,
    "An approximate index of each domain's items (items/*.faiss), and how it compares with exact search one by one.",
    (
        _DOMAIN,
        Column("items", pa.int64(), "items in the index", "items", minimum=0),
        Column("recall", pa.float64(), "share of the best 20 served items found, over users", minimum=0.0, maximum=1.0),
        Column("exact_p50", pa.float64(), "median time of an exact answer", "ms", minimum=0.0),
        Column("exact_p99", pa.float64(), "99th percentile of an exact answer's time", "ms", minimum=0.0),
        Column("index_p50", pa.float64(), "median time of an answer by the index", "ms", minimum=0.0),
        Column("index_p99", pa.float64(), "99th percentile of an answer's time by the index", "ms", minimum=0.0),
    ),
    key=("domain",),
    sorted_by=("domain",),
    files=("items/*.faiss",),
)

VARIANT = Contract(
    "variant",
    1,
    "The interactions of a run with other ids or fewer rows: the raw log of an experiment, already split.",
    (
        _DOMAIN,
        _USER_ID,
        _ITEM_ID,
        Column("split", pa.string(), "as in the run's interactions", allowed=SPLITS),
    ),
    key=("domain", "user_id", "item_id"),
    sorted_by=("domain", "user_id", "item_id"),
)

GRADIENTS = Contract(
    "gradients",
    1,
    "Gradients of the domains' losses on a model's tables before some epochs of its training: do they conflict?",
    (
        Column("epoch", pa.int32(), "the epoch that is trained next, from 1", minimum=1),
        Column("table", pa.string(), "the table over all domains, or a domain's own", allowed=("inter", "intra")),
        _DOMAIN,
        Column("other_domain", pa.string(), "whose gradient it is compared with; empty: none", may_be_empty=True),
        Column("metric", pa.string(), "norm, cosine, negative: the share of common rows whose gradients point apart, "
               "or rows: that both read", allowed=("norm", "cosine", "negative", "rows")),
        Column("value", pa.float64(), "the metric's value; null where no row is common", nullable=True),
    ),
    key=("epoch", "table", "domain", "other_domain", "metric"),
    sorted_by=("epoch", "table", "domain", "other_domain", "metric"),
)  # fmt: skip

EXPERIMENT = Contract(
    "experiment",
    1,
    "Test metrics of every case of an experiment, by seed, domain and stratum.",
    (
        Column("case", pa.string(), "its factors, as `factor = level` joined by semicolons"),
        Column("seed", pa.int64(), "training seed"),
        Column("domain", pa.string(), "the domain, or `macro` for the mean over domains"),
        Column("stratum", pa.string(), "which held-out rows, as in `metrics`", allowed=(ALL, *STRATA)),
        Column("metric", pa.string(), "of the test split, or what the experiment measures besides"),
        Column("value", pa.float64(), "the metric's value"),
    ),
    key=("case", "seed", "domain", "stratum", "metric"),
    sorted_by=("case", "seed", "domain", "stratum", "metric"),
)

CONTRACTS = {
    contract.name: contract
    for contract in (
        WORLD, REJECTS, INTERACTIONS, NODES, GRAPH, NEIGHBOURS, REACH, PAIRS, CHECKPOINT, BLEND, METRICS, RANKS,
        EMBEDDINGS, RECOMMENDATIONS, INDEX, VARIANT, GRADIENTS, EXPERIMENT,
    )
}  # fmt: skip
