"""Explanations of the report's terms, shown where a reader points at one, and listed at its end."""

from __future__ import annotations

import re

from markupsafe import Markup, escape

TERMS = {
    "anchor": "a user or item that lives in two or more domains and so ties them together",
    "anchors": "users and items that live in two or more domains and so tie them together",
    "reach": "how likely random walks from a user or item end at each anchor of its domain",
    "aligned pairs": "users or items of two domains whose random walks tend to end at the same anchors",
    "cosine": "similarity of two vectors: 1 if they point the same way, 0 if they have nothing in common",
    "twins": "one generated person under two names, in two domains; finding them is what alignment is for",
    "epoch": "one pass over all train interactions",
    "seed": "the number that random draws start from",
    "loss": "what training makes small: how often a user's own item scores below one drawn at random",
    "validation": "interactions kept from training, by which epochs and weights are chosen",
    "NDCG@k": "quality of the k first items: 1 if what the user chose is on top, less the further down, 0 if absent",
    "full_ndcg@k": "NDCG@k where all items of the domain are ranked",
    "full_recall@k": "share of the user's test items among the k first, all items of the domain ranked",
    "full_mrr": "mean of 1 / rank of the test item, all items of the domain ranked",
    "recall@k": "share of the user's test items among the k first of some candidates",
    "AUC": "chance that a test item of the user scores above another item; .5 is guessing",
    "95 % interval": "where the true value lies in 95 of 100 cases, judging by the spread of the data",
    "blend": "the sum of vectors and evidence that items are ranked by",
    "evidence": "weights that short random walks, item, user, item, give to items near those of the user",
    "vectors": "numbers that the model learned for each user and item; their product scores an item",
    "inter": "the part of the vectors that all domains share",
    "intra": "the part of the vectors that a domain has for itself",
    "macro": "the mean over domains, in which each counts alike",
    "coverage@k": "share of the domain's items that at least one test user is recommended",
    "gini@k": "how unevenly items are recommended: 0 if all equally often, 1 if always the same",
    "novelty@k": "mean of -log2 of the share of users who have the item in train; higher is less known",
    "popularity@k": "mean number of train users of the recommended items",
    "tail_share@k": "share of recommendations outside the most popular items that have 80 % of the train rows",
    "popularity bias": "how many times as popular recommended items are as those that users chose themselves",
    "stratum": "a part of the test rows, by history or by overlap",
    "leaked": "held-out rows dropped because the same user and item are in the train split of another domain",
    "cold": "held-out rows dropped because their user or item has no train row in the domain",
    "duplicates": "rows of the same user and item, merged into one",
    "resident memory": "what the process holds in the machine's memory, shared libraries and mapped files included",
}
"""Term → its explanation in plain words."""

_BY_LOWER = {term.lower(): term for term in TERMS}
_LONGEST_FIRST = "|".join(re.escape(term) for term in sorted(TERMS, key=len, reverse=True)).replace("@k", r"@(?:k|\d+)")
_ANY = re.compile(rf"(?<![\w@.-])({_LONGEST_FIRST})(?![\w@-]|\.\w)", re.IGNORECASE)


def explain_terms(text: str) -> Markup:
    """A text as HTML, in which each term has its explanation where it is used first; `@20` is a case of `@k`."""
    seen: set[str] = set()

    def explain(match: re.Match[str]) -> str:
        name, at, length = match[1].partition("@")
        term = _BY_LOWER[f"{name}@k".lower() if at else name.lower()]
        if term in seen:
            return match[1]
        seen.add(term)
        meaning = re.sub(r"\bk\b", length or "k", TERMS[term])
        return f'<abbr title="{escape(meaning)}">{match[1]}</abbr>'

    return Markup(_ANY.sub(explain, str(escape(text))))
