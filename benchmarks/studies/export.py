"""Peak memory and seconds of export on a made-up world without training: tables are random, graphs built directly.

    python benchmarks/studies/export.py --users 500000 --items 20000 --width 64

Each stage runs in its own process, so that it has its own peak; `start` is a process that only imports the stage. `own`
is memory that only the process can free. The rest of `resident` are pages of files, which the kernel can reclaim.
"""

# mypy: ignore-errors
from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
from safetensors.numpy import save_file
from scipy import sparse

from data_contracts.contracts import CHECKPOINT, CONTRACTS, GRAPH, INTERACTIONS, NODES
from data_contracts.resources import peak_memory_mib
from data_contracts.settings.machine import ComputeSettings
from data_contracts.settings.ranking import ExportSettings
from data_contracts.store.artifact import Artifact
from data_contracts.store.draft import Draft
from data_contracts.store.store import Store

PER_USER = 10
"""Interactions of each user, before duplicates are merged."""


def main() -> None:
    """Make the world, export it, print the costs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("users", 500_000), ("items", 20_000), ("width", 64), ("top", 20)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--folder", help="where to put the temporary store")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        keys = in_process(make, Path(folder), options.users, options.items, options.width)["keys"]
        print(f"{options.users:,} users, {options.items:,} items, vectors of {options.width} columns: "
              f"{4 * options.width * (options.users + options.items) / 2**20:,.0f} MiB")  # fmt: skip
        for stage in ("start", "embeddings", "recommendations"):
            results = in_process(run_stage, Path(folder), keys, stage, options.top)
            keys = results["keys"]
            print(f"{stage:<16} {results['seconds']:7.1f} s, of CPU {results['cpu']:7.1f} s; "
                  f"own {results['own']:6,} MiB, resident {results['peak']:6,} MiB", flush=True)  # fmt: skip


def in_process(function, *arguments) -> dict:
    """Measure a function in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measured, (function, *arguments))


def measured(function, *arguments) -> dict:
    """The keys that a function returns, with its wall and CPU seconds and the memory of this process in MiB."""
    began, cpu, own, ended = time.perf_counter(), time.process_time(), [0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.01):
            memory = psutil.Process().memory_info()
            own[0] = max(own[0], (memory.rss - memory.shared) // 2**20)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        keys = function(*arguments)
    finally:
        ended.set()
        watcher.join()
    seconds = {"seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu}
    return {"keys": keys, **seconds, "own": own[0], "peak": peak_memory_mib()}


def run_stage(folder: Path, keys: dict[str, str], stage: str, top: int) -> dict[str, str]:
    """Run one stage of export, or only import it; the keys of all artifacts made so far."""
    from model.serving import export

    parents = {name: Artifact(CONTRACTS[name], folder / name / key) for name, key in keys.items()}
    if stage == "embeddings":
        made = export.export_embeddings(Store(folder), ExportSettings(), parents, ComputeSettings())
        return {**keys, stage: made.key}
    if stage == "recommendations":
        wanted = {name: parents[name] for name in ("graph", "embeddings")}
        export.export_recommendations(Store(folder), ExportSettings(top=top), wanted, ComputeSettings(threads=1))
    return keys


def make(folder: Path, users: int, items: int, width: int) -> dict[str, str]:
    """One domain with popular and rare items, and a checkpoint with random tables, each of half the width."""
    random = np.random.default_rng(0)
    item = (items * random.random(users * PER_USER) ** 2).astype(np.int64)
    pairs = np.unique(np.repeat(np.arange(users), PER_USER) * items + item)
    user, item = (pairs // items).astype(np.int32), (pairs % items).astype(np.int32)
    ids = [pa.array([f"{kind}{number:08d}" for number in range(size)]) for kind, size in (("u", users), ("i", items))]
    store = Store(folder)
    made = {
        "interactions": store.make(INTERACTIONS, {}, {}, lambda draft: interactions(draft, user, item, ids)),
        "nodes": store.make(NODES, {}, {}, lambda draft: nodes(draft, user, item, ids)),
        "graph": store.make(GRAPH, {}, {}, lambda draft: graph(draft, user, item, (users, items))),
        "checkpoint": store.make(CHECKPOINT, {}, {}, lambda draft: checkpoint(draft, users + items, width // 2)),
    }
    return {name: artifact.key for name, artifact in made.items()}


def interactions(draft: Draft, user, item, ids) -> None:
    """Write all interactions as train rows."""
    for start in range(0, user.size, 2**20):
        u, i = (pa.array(column[start : start + 2**20]) for column in (user, item))
        rest = {"split": pa.repeat("train", len(u)), "timestamp": pa.nulls(len(u), pa.int64()),
                "count": pa.array(np.ones(len(u), np.int32))}  # fmt: skip
        named = {"user_id": ids[0].take(u), "item_id": ids[1].take(i)}
        draft.write(pa.table({**named, "user": u, "item": i, **rest}), domain="d")


def nodes(draft: Draft, user, item, ids) -> None:
    """Write nodes, users first."""
    degrees = [np.bincount(column, minlength=len(own)) for column, own in zip((user, item), ids, strict=True)]
    sizes = [len(own) for own in ids]
    degree, nobody = np.concatenate(degrees).astype(np.int32), np.zeros(sum(sizes), bool)
    entity = np.concatenate([np.arange(size, dtype=np.int32) for size in sizes])
    table = {"kind": pa.concat_arrays([pa.repeat("user", sizes[0]), pa.repeat("item", sizes[1])]),
             "node": np.arange(sum(sizes), dtype=np.int32), "entity": entity, "id": pa.concat_arrays(ids),
             "train_degree": degree, "is_anchor": nobody}  # fmt: skip
    draft.write(pa.table(table), domain="d")


def graph(draft: Draft, user, item, sizes: tuple[int, int]) -> None:
    """Write the graph in both directions, as compressed rows."""
    ends = np.concatenate([user, item + sizes[0]]), np.concatenate([item + sizes[0], user])
    rows = sparse.csr_array((np.ones(ends[0].size, np.int8), ends), shape=(sum(sizes), sum(sizes)))
    rows.sort_indices()
    lists = pa.ListArray.from_arrays(rows.indptr.astype(np.int32), rows.indices.astype(np.int32))
    draft.write(pa.table({"node": np.arange(sum(sizes), dtype=np.int32), "neighbours": lists}), domain="d")


def checkpoint(draft: Draft, size: int, width: int) -> None:
    """Write a checkpoint as training does, with random tables."""
    random = np.random.default_rng(1)
    tables = {name: random.standard_normal((size, width), dtype=np.float32) for name in ("inter", "intra/d")}
    save_file(tables, draft.folder / "model.safetensors")
    shape = {"tables": "both", "width": width, "nodes": size, "domains": {"d": size}, "aligned": False}
    backbone = {"layers": 2, "own": 0.1, "neighbours": 0.9, "averaged": False, "union": True}
    description = {"model": "edda", "seed": 1, "epoch": 1, "shape": shape, "backbone": backbone}
    (draft.folder / "model.json").write_text(json.dumps(description))
    draft.write(pa.table({"epoch": pa.array([1], pa.int32()), "domain": ["d"], "metric": ["loss"], "value": [0.5]}))


if __name__ == "__main__":
    main()
