"""Quality against time: full NDCG@20 on test by CPU seconds from raw logs on, for EDDA and other libraries.

    python benchmarks/quality.py flows/runs/demo.toml --json > demo.json
    python benchmarks/quality.py flows/runs/demo.toml --python lenskit=A/bin/python recbole=B/bin/python --json
    python benchmarks/pictures/quality_curve.py benchmarks/pictures/quality.png demo.json

Everybody gets the same split of each domain, on one thread, and is ranked by the same rules: train and validation items
are left out, a tie ranks last, means over users, then over domains. A point is the state of a model after so many CPU
seconds: EDDA's ingest for everybody, then what the model itself needs. Ranking test rows does not count. For EDDA,
validation after each epoch does, since its blend comes from there.

    edda              evidence alone as soon as there is some; then vectors and evidence, blended anew after each epoch
    edda, vectors     the vectors of a training without evidence
    implicit          ALS, BPR, item neighbours: after each iteration
    lenskit           ALS, item neighbours: by the Python of an environment with `lenskit==2025.8.1`
    recbole           EASE, LightGCN: by one with `recbole==1.2.1 torch==2.13.0 numpy==1.26.4 scipy==1.10.1 pandas<2.3`

A peer is trained once for each setting of `peers.quality.GRID`, on every domain alone, since it knows no domains, and
on the union of all. The curve is that of the setting with the best validation score; the others' seconds do not count.
"""

# mypy: ignore-errors
from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from peers.quality import GRID
from threadpoolctl import threadpool_limits

from data_contracts.contracts import SPLITS, TEST, VALID
from data_contracts.settings.ranking import EvaluateSettings
from data_contracts.settings.train import CheckpointSettings
from data_contracts.store.artifact import Artifact
from flows.config.run_config import RunSpec
from flows.orchestration.up_to_date import bring_up_to_date
from flows.output.console import watcher
from model.compute.column_parallel import SINGLE_PROCESS
from model.compute.threads import torch_threads
from model.data.candidates import known_items
from model.data.dataset import DomainData, Interactions, load_dataset, load_interactions
from model.evaluation.fit import blend_curve, choose_blends, vectors_curve
from model.evaluation.metrics import user_values
from model.evaluation.ranking import are_ranked
from model.evaluation.validation import vector_scorer
from model.evidence.blend import Blend, BlendWeights
from model.evidence.domain_evidence import DomainEvidence, load_evidence
from model.learners.divergence import EpochGuard
from model.learners.edda import build_edda
from model.sparse.rows import pick_rows
from model.training.stage import load_training_data

SEED = 2022
CUTOFF = 20
USERS_AT_ONCE = 512

Scorer = Callable[[np.ndarray], np.ndarray]
"""Users of a domain → float32 (users, items of the domain)."""

Point = dict[str, float]
"""`seconds`, and the means over domains: `valid`, weighted as epochs are selected, `ndcg` and `recall` on test."""


@dataclass(frozen=True)
class Split:
    """One domain as everybody gets it.

    Attributes:
        train: distinct train pairs, float32 [users, items].
        users, items: numbers over all domains of the matrix's rows and columns.
        evidence: of the product.
    """

    domain: DomainData
    interactions: Interactions
    train: sp.csr_matrix
    users: np.ndarray
    items: np.ndarray
    evidence: DomainEvidence

    @property
    def weight(self) -> float:
        """The domain's weight when a state is selected, as in training."""
        rows = int(np.count_nonzero(self.interactions.split == SPLITS.index(VALID)))
        return rows / (rows + 1000)

    def measure(self, score: Scorer, split: str) -> tuple[float, float]:
        """Full NDCG@20 and Recall@20 of one split, means over users; NaN without held-out rows."""
        held = self.interactions.for_split(split).take(are_ranked(self.domain, self.interactions, split))
        masked = known_items(self.interactions, self.domain.users, (0, 1) if split == TEST else (0,))
        users, owners = np.unique(held.users, return_inverse=True)
        ranks = np.empty(owners.size, np.int64)
        for start in range(0, users.size, USERS_AT_ONCE):
            block = users[start : start + USERS_AT_ONCE]
            rows = slice(*np.searchsorted(owners, [start, start + block.size]))
            scores, (indptr, items) = score(block), pick_rows(*masked, block)
            least = scores[owners[rows] - start, held.items[rows]]
            scores[np.repeat(np.arange(block.size), np.diff(indptr)), items] = -np.inf
            ranks[rows] = (scores[owners[rows] - start] >= least[:, None]).sum(axis=1)
        values = user_values(held.users, ranks, (CUTOFF,))
        return tuple(float(values[f"full_{name}@{CUTOFF}"].mean()) if values else np.nan for name in ("ndcg", "recall"))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run's TOML file")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting")
    parser.add_argument("--python", nargs="*", default=[], metavar="LIBRARY=PATH", help="a Python that has a library")
    parser.add_argument("--only", default="", help="contenders, separated by commas; all by default")
    parser.add_argument(
        "--peer-seconds", type=float, default=300.0, help="CPU seconds of a peer's training of a domain"
    )
    parser.add_argument("--json", action="store_true", help="print one line for programs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edda-quality-") as folder, threadpool_limits(1), torch_threads(1):
        for attempt in ("warm", "measured"):  # the first one loads compiled code
            spec = RunSpec(options.run, (*options.set, "compute.threads=1", f"store={folder}/{attempt}"))
            seconds, artifacts = prepare(spec)
        splits = load_splits(artifacts)
        curves, pythons = {}, {"implicit": sys.executable, **dict(pair.split("=", 1) for pair in options.python)}
        for name in [name for name in options.only.split(",") if name] or ["edda", "edda, vectors", *GRID]:
            if name in GRID:
                python = pythons.get(name.split()[0])
                for scope in ("domain", "union") if python else ():
                    peer = Peer(name, scope, python, options.peer_seconds, Path(folder))
                    curves[f"{name}, {scope}"] = peer.best_curve(splits, seconds["ingest"])
            else:
                curves[name] = list(edda_points(spec, artifacts, seconds, splits, has_evidence=name == "edda"))
            for label in [label for label in curves if label.startswith(name)]:
                print(describe(label, curves[label]), file=sys.stderr, flush=True)
    if options.json:
        print(json.dumps({"run": spec.config.name, "seconds": seconds, "curves": curves}))


def describe(name: str, points: Sequence[Point]) -> str:
    """A line about a contender: the state with the best validation score."""
    if not points:
        return f"{name}: left out"
    best = max(points, key=lambda point: point["valid"])
    return (
        f"{name}: {best['recall']:.4f} / {best['ndcg']:.4f} after {best['seconds']:.1f} CPU seconds, "
        f"validation {best['valid']:.4f}; first after {points[0]['seconds']:.1f} with {points[0]['ndcg']:.4f}"
    )


def cpu_seconds() -> float:
    """Of this process, with all of its threads, and of its children that have ended."""
    usages = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def prepare(spec: RunSpec) -> tuple[dict[str, float], dict[str, Artifact]]:
    """CPU seconds of ingest, of what evidence needs more, and of pairs if domains are aligned; and the artifacts."""
    if spec.config.world:
        bring_up_to_date([spec], "world", watcher(), prefect=False)
    seconds, artifacts = {}, {}
    for stage in ("ingest", "neighbours", *(["align"] if spec.config.train.reads_pairs else [])):
        started = cpu_seconds()
        (outcome,) = bring_up_to_date([spec], stage, watcher(), prefect=False)
        seconds[stage] = cpu_seconds() - started
        artifacts |= outcome.artifacts
    return seconds, artifacts


def load_splits(artifacts: Mapping[str, Artifact]) -> list[Split]:
    """Every domain that has test rows."""
    dataset = load_dataset(artifacts["nodes"], artifacts["graph"])
    splits = []
    for domain, evidence in zip(dataset.domains, load_evidence(artifacts, dataset), strict=True):
        rows = load_interactions(artifacts["interactions"], domain, dataset)
        edges = int(domain.indptr[domain.users])
        pairs = np.ones(edges, np.float32), domain.indices[:edges] - domain.users, domain.indptr[: domain.users + 1]
        train = sp.csr_matrix(pairs, shape=(domain.users, domain.items))
        users, items = domain.union_nodes[: domain.users], domain.union_nodes[domain.users :] - dataset.users
        if are_ranked(domain, rows, TEST).any():
            splits.append(Split(domain, rows, train, users, items, evidence))
    return splits


def to_point(seconds: float, splits: Sequence[Split], scorers: Sequence[Scorer]) -> Point:
    """Measure a state of a model."""
    valid = [split.measure(score, VALID)[0] for split, score in zip(splits, scorers, strict=True)]
    ndcg, recall = zip(*(split.measure(score, TEST) for split, score in zip(splits, scorers, strict=True)), strict=True)
    weights = [split.weight for split in splits]
    means = {"valid": np.average(valid, weights=weights), "ndcg": np.mean(ndcg), "recall": np.mean(recall)}
    return {"seconds": round(seconds, 3)} | {name: round(float(value), 5) for name, value in means.items()}


def edda_points(
    spec: RunSpec,
    artifacts: Mapping[str, Artifact],
    prepared: Mapping[str, float],
    splits: Sequence[Split],
    *,
    has_evidence: bool,
) -> Iterator[Point]:
    """Evidence alone, then a point after each epoch, until training would stop."""
    if has_evidence:
        alone = BlendWeights(vectors=0.0, evidence=1.0, spread=1.0)
        seconds = prepared["ingest"] + prepared["neighbours"]
        yield to_point(seconds, splits, [blended(split, None, alone) for split in splits])
    clock, started = sum(prepared.values()), cpu_seconds()
    settings = CheckpointSettings(
        train=spec.config.train, seed=SEED, validation=EvaluateSettings(protocol=spec.config.evaluate.protocol)
    )
    parents = artifacts if has_evidence else {k: v for k, v in artifacts.items() if k != "neighbours"}
    data = load_training_data(settings, parents)
    learner, best, best_epoch = build_edda(data), -1.0, 0
    for epoch in range(1, spec.config.train.epochs + 1):
        started = started if epoch == 1 else cpu_seconds()
        learner.train_epoch(EpochGuard(SEED, epoch, best_epoch, spec.config.train.learning_rate))
        vectors, curves = {}, {}
        for held, of_domain in zip(data.validation, learner.vectors(), strict=True):
            score = vector_scorer(of_domain, held.domain, SINGLE_PROCESS)
            vectors[held.domain.name] = of_domain
            curves[held.domain.name] = (
                blend_curve(held.users, score, held.evidence)
                if held.evidence
                else vectors_curve(held.users, score, held.domain.items)
            )
        chosen = choose_blends(curves)
        clock += cpu_seconds() - started
        names = [split.domain.name for split in splits]
        blends = zip(splits, names, strict=True)
        point = to_point(clock, splits, [blended(split, vectors[n], chosen[n].weights) for split, n in blends])
        yield point
        best, best_epoch = max((best, best_epoch), (point["valid"], epoch), key=lambda pair: pair[0])
        if epoch - best_epoch >= spec.config.train.patience:
            return


def blended(split: Split, vectors, weights: BlendWeights) -> Scorer:
    """The served score; of evidence alone without vectors."""
    blend, first_item = Blend(weights, split.evidence), split.domain.users

    def score(users: np.ndarray) -> np.ndarray:
        scores = np.zeros((users.size, split.domain.items), np.float32)
        if vectors is not None:
            scores = (vectors[users.astype(np.int64)] @ vectors[first_item:].T).numpy()
        blend.apply(scores, split.evidence.user_histories(users))
        return scores

    return score


@dataclass(frozen=True)
class Peer:
    """A model of another library.

    Attributes:
        name: a key of GRID.
        scope: `domain`, a training for each, or `union`, one for all.
        python: has the library.
        seconds: CPU seconds of a training, at most.
        folder: for files.
    """

    name: str
    scope: str
    python: str
    seconds: float
    folder: Path

    def best_curve(self, splits: Sequence[Split], ingest: float) -> list[Point]:
        """The curve of the setting that validates best; empty if the library is not installed or fails."""
        curves = []
        for settings in GRID[self.name]:
            curves.append(self.curve(splits, settings, ingest))
            if not curves[-1]:
                break
        return max(curves, key=lambda points: max((point["valid"] for point in points), default=-1.0))

    def curve(self, splits: Sequence[Split], settings: Mapping[str, float | str], ingest: float) -> list[Point]:
        """Points by step; a domain that has fewer steps than others stays at its last one."""
        groups = [splits] if self.scope == "union" else [[split] for split in splits]
        matrices = [matrix_of(group) for group in groups]
        states = []
        for matrix in matrices:
            states.append(self.train(matrix, settings))
            if not states[-1]:
                return []
        by_split = matrices * len(splits) if self.scope == "union" else matrices
        steps = sorted({step for of_group in states for step in of_group})
        points = []
        for step in steps:
            files = [of_group[max(kept for kept in of_group if kept <= step)] for of_group in states]
            loaded = [dict(np.load(path)) for path in files]
            seconds = ingest + sum(float(state["seconds"]) for state in loaded)
            chosen = loaded * len(splits) if self.scope == "union" else loaded
            scorers = [peer_scorer(*arguments) for arguments in zip(splits, by_split, chosen, strict=True)]
            points.append(to_point(seconds, splits, scorers))
        return points

    def train(self, train: sp.csr_matrix, settings: Mapping[str, float | str]) -> dict[int, Path]:
        """The files of a model's states by step."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        sp.save_npz(folder / "train.npz", train)
        program = str(Path(__file__).parent / "peers" / "quality.py")
        arguments = [self.name, json.dumps(settings), str(folder / "train.npz"), str(folder), str(self.seconds)]
        ended = subprocess.run([self.python, program, *arguments], capture_output=True, text=True, check=False)
        if ended.returncode:
            print(f"{self.name} {settings}: {ended.stderr.strip().splitlines()[-1]}", file=sys.stderr)
            return {}
        return {int(path.stem): path for path in sorted(folder.glob("[0-9]*.npz"))}


def matrix_of(splits: Sequence[Split]) -> sp.csr_matrix:
    """Train pairs of one domain by its numbers, or of several by the numbers over all."""
    if len(splits) == 1:
        return splits[0].train
    shape = tuple(1 + max(int(getattr(split, kind).max()) for split in splits) for kind in ("users", "items"))
    pairs = [(split.users[coo.row], split.items[coo.col]) for split in splits for coo in [split.train.tocoo()]]
    rows, columns = map(np.concatenate, zip(*pairs, strict=True))
    union = sp.csr_matrix((np.ones(rows.size, np.float32), (rows, columns)), shape=shape)
    union.data[:] = 1.0  # a pair of several domains is one
    return union


def peer_scorer(split: Split, train: sp.csr_matrix, state: Mapping[str, np.ndarray]) -> Scorer:
    """Scores of a peer's state: products of factors, or sums of weights over a user's items in its train matrix."""
    is_union = train is not split.train
    rows, columns = (split.users, split.items) if is_union else (np.arange(size) for size in train.shape)
    if "users" in state:
        users, items = state["users"][rows], state["items"][columns].T
        return lambda wanted: users[wanted] @ items
    if "weights" in state:
        weights = state["weights"][:, columns]
    else:
        shape = (state["indptr"].size - 1,) * 2
        weights = sp.csr_matrix((state["data"], state["indices"], state["indptr"]), shape=shape)[:, columns].toarray()
    return lambda wanted: np.asarray(train[rows[wanted]] @ weights)


if __name__ == "__main__":
    main()
