"""Peers in quality: other libraries' own code, each in a process of its own, which needs nothing of EDDA.

    python benchmarks/peers/quality.py NAME '{"setting": value}' TRAIN.npz FOLDER SECONDS

Trains a model on a sparse matrix of users × items and writes its states to `FOLDER/<step>.npz`: the CPU seconds so far,
and factors of users and items, or weights between items. It ends when the model does or the seconds are spent.
"""

# mypy: ignore-errors
from __future__ import annotations

import importlib
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import scipy.sparse as sp

State = dict[str, np.ndarray]
"""`users` and `items`, float32 [users or items, columns]; or `weights`, dense float32 [items, items], or its CSR form
in `data`, `indices`, `indptr`."""

GRID: dict[str, list[dict[str, float | str]]] = {
    "implicit ALS": [
        {"regularization": l2, "alpha": alpha} for l2, alpha in ((0.01, 1), (10, 10), (100, 40), (300, 100))
    ],
    "implicit BPR": [{"learning_rate": rate, "regularization": l2} for rate in (0.01, 0.05) for l2 in (0.01, 0.1)],
    "implicit item-knn": [{"kind": kind, "K": k} for kind in ("Cosine", "BM25") for k in (100, 500)],
    "lenskit ALS": [
        {"regularization": l2, "weight": weight} for l2, weight in ((0.1, 40), (1, 40), (10, 40), (10, 10))
    ],
    "lenskit item-knn": [{"max_nbrs": size} for size in (20, 100, 500)],
    "recbole EASE": [{"reg_weight": l2} for l2 in (30.0, 100.0, 300.0, 1000.0)],
    "recbole LightGCN": [
        {"reg_weight": l2, "n_layers": layers} for l2, layers in ((1e-5, 3), (1e-4, 2), (1e-2, 2), (1e-2, 3))
    ],
}
"""Contender → the settings that are tried; the last word of its name is the model, the first one the library."""

IMPORTS = {
    "implicit": ("implicit.cpu.als", "implicit.cpu.bpr", "implicit.nearest_neighbours"),
    "lenskit": ("pandas", "lenskit.als", "lenskit.data", "lenskit.knn", "lenskit.training"),
    "recbole": ("torch", "recbole.config", "recbole.data", "recbole.model.general_recommender", "recbole.trainer"),
}
"""What a library takes long to load, before the clock starts."""

WIDTH = 128
MOST_STEPS = {"ALS": 30}
"""Iterations of a model; the others have 200."""


def is_kept(step: int) -> bool:
    """Whether a step's state is written: steps 1 to 4, then every fourth root of 2."""
    return step < 5 or int(np.log2(step) * 4) > int(np.log2(step - 1) * 4)


def implicit_factors(model, train: sp.csr_matrix) -> Iterator[State]:
    """A model that learns by iterations, one after another."""
    model.iterations = 1
    while True:
        model.fit(train, show_progress=False)
        columns = WIDTH + (1 if hasattr(model, "learning_rate") else 0)  # BPR has a bias
        yield {"users": model.user_factors[:, :columns], "items": model.item_factors[:, :columns]}


def implicit_als(train: sp.csr_matrix, regularization: float, alpha: float) -> Iterator[State]:
    """Alternating least squares."""
    from implicit.cpu.als import AlternatingLeastSquares

    model = AlternatingLeastSquares(WIDTH, regularization, alpha, num_threads=1, random_state=1)
    return implicit_factors(model, train)


def implicit_bpr(train: sp.csr_matrix, learning_rate: float, regularization: float) -> Iterator[State]:
    """Matrix factorisation by BPR."""
    from implicit.cpu.bpr import BayesianPersonalizedRanking

    model = BayesianPersonalizedRanking(WIDTH, learning_rate, regularization, num_threads=1, random_state=1)
    return implicit_factors(model, train)


def implicit_item_knn(train: sp.csr_matrix, kind: str, K: int) -> Iterator[State]:  # noqa: N803 - the library's name
    """Item neighbours."""
    from implicit import nearest_neighbours

    model = getattr(nearest_neighbours, f"{kind}Recommender")(K=K, num_threads=1)
    model.fit(train, show_progress=False)
    yield sparse_state(model.similarity)


def lenskit_dataset(train: sp.csr_matrix):
    """The pairs as LensKit takes them; its numbers are the matrix's, since every number occurs as an entity."""
    import pandas as pd
    from lenskit.data import DatasetBuilder

    builder, pairs = DatasetBuilder(), train.tocoo()
    builder.add_entities("user", np.arange(train.shape[0]))
    builder.add_entities("item", np.arange(train.shape[1]))
    frame = pd.DataFrame({"user_id": pairs.row.astype(np.int64), "item_id": pairs.col.astype(np.int64)})
    builder.add_interactions("click", frame, entities=["user", "item"], missing="error", default=True)
    return builder.build()


def lenskit_als(train: sp.csr_matrix, regularization: float, weight: float) -> Iterator[State]:
    """Alternating least squares."""
    from lenskit.als import ImplicitMFScorer
    from lenskit.training import TrainingOptions

    data = lenskit_dataset(train)
    scorer = ImplicitMFScorer(
        embedding_size=WIDTH, regularization=regularization, weight=weight, epochs=MOST_STEPS["ALS"]
    )
    for _ in scorer.training_loop(data, TrainingOptions(rng=1)):
        yield {"users": scorer.user_embeddings, "items": scorer.item_embeddings}


def lenskit_item_knn(train: sp.csr_matrix, max_nbrs: int) -> Iterator[State]:
    """Item neighbours: `max_nbrs` of a user's items score an item; here all of a row's `save_nbrs` do."""
    from lenskit.knn import ItemKNNScorer

    scorer = ItemKNNScorer(max_nbrs=max_nbrs, save_nbrs=max_nbrs, feedback="implicit")
    scorer.train(lenskit_dataset(train))
    yield sparse_state(scorer.sim_matrix.to_scipy())


def recbole_model(name: str, train: sp.csr_matrix, settings: dict[str, float]):
    """RecBole's configuration, loader of train pairs and model, from files as it reads them."""
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model, init_seed

    with tempfile.TemporaryDirectory(prefix="recbole-") as folder:
        pairs = train.tocoo()
        (Path(folder) / "pairs").mkdir()
        for split, rows in (("train", slice(None)), ("valid", slice(0, 1)), ("test", slice(0, 1))):
            lines = np.stack([pairs.row[rows], pairs.col[rows]], axis=1)
            path = Path(folder) / "pairs" / f"pairs.{split}.inter"
            np.savetxt(path, lines, "%d", "\t", header="user_id:token\titem_id:token", comments="")
        given = {
            "data_path": folder,
            "benchmark_filename": ["train", "valid", "test"],
            "load_col": {"inter": ["user_id", "item_id"]},
            "train_batch_size": 8192,
            "embedding_size": WIDTH,
            "use_gpu": False,
            "show_progress": False,
            "state": "ERROR",
            "checkpoint_dir": folder,
            **settings,
        }
        argv, sys.argv = sys.argv, sys.argv[:1]  # RecBole reads the command line, too
        config = Config(model=name, dataset="pairs", config_dict=given)
        sys.argv = argv
        init_seed(1, True)
        dataset = create_dataset(config)
        loader = data_preparation(config, dataset)[0]
    return config, loader, get_model(name)(config, loader.dataset)


def recbole_numbers(loader, field: str, size: int) -> np.ndarray:
    """RecBole's number of each user or item; 0, its padding, for those without train pairs."""
    known = loader.dataset.field2token_id[field]
    return np.array([known.get(str(number), 0) for number in range(size)])


def recbole_ease(train: sp.csr_matrix, reg_weight: float) -> Iterator[State]:
    """EASE."""
    _, loader, model = recbole_model("EASE", train, {"reg_weight": reg_weight})
    items = recbole_numbers(loader, "item_id", train.shape[1])
    weights = np.asarray(model.item_similarity)[np.ix_(items, items)].astype(np.float32)
    weights[items == 0] = weights[:, items == 0] = 0.0
    yield {"weights": weights}


def recbole_lightgcn(train: sp.csr_matrix, reg_weight: float, n_layers: int) -> Iterator[State]:
    """LightGCN, one state after every epoch."""
    import torch
    from recbole.utils import get_trainer

    config, loader, model = recbole_model("LightGCN", train, {"reg_weight": reg_weight, "n_layers": n_layers})
    trainer = get_trainer(config["MODEL_TYPE"], "LightGCN")(config, model)
    users = recbole_numbers(loader, "user_id", train.shape[0])
    items = recbole_numbers(loader, "item_id", train.shape[1])
    for epoch in itertools.count():
        trainer._train_epoch(loader, epoch, show_progress=False)
        with torch.no_grad():
            vectors = model.forward()
        yield {"users": vectors[0].numpy()[users], "items": vectors[1].numpy()[items]}


def sparse_state(weights) -> State:
    """Weights between items in CSR form."""
    weights = sp.csr_matrix(weights)
    return {"data": weights.data.astype(np.float32), "indices": weights.indices, "indptr": weights.indptr}


def main() -> None:
    """Train one model and write its states."""
    name, settings, train, folder, seconds = sys.argv[1:]
    matrix = sp.load_npz(train).tocsr().astype(np.float32)
    model = globals()[name.lower().replace(" ", "_").replace("-", "_")]
    for module in IMPORTS[name.split()[0]]:
        importlib.import_module(module)
    spent, started = 0.0, time.process_time()
    for step, state in enumerate(model(matrix, **json.loads(settings)), start=1):
        spent += time.process_time() - started
        is_last = spent > float(seconds) or step == MOST_STEPS.get(name.split()[-1], 200)
        if is_kept(step) or is_last:
            part = Path(folder) / f"{step:04d}.part.npz"
            np.savez(part, seconds=spent, **state)
            part.rename(Path(folder) / f"{step:04d}.npz")
        if is_last:
            break
        started = time.process_time()


if __name__ == "__main__":
    main()
