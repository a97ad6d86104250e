"""Training on a GPU beside the CPU: equal losses, seconds an epoch, engines, bfloat16 products, NCCL; in 8 minutes.

    python benchmarks/gpu.py                                  # a generated world of a million interactions
    python benchmarks/gpu.py --run edda-store/runs/aliccp     # a run with pairs
    python benchmarks/gpu.py --device cpu --small             # the same steps without a GPU

    scores       `torch.sparse.sampled_addmm` with repeated columns, which training's scores use, against plain indexing
    parity       losses of the first steps without dropout, each engine against native code on the CPU, as the largest
                 relative difference; above 1e-5 the script fails
    epoch        wall seconds of an epoch (batches drawn, pruned, trained; alignment), the least of `--epochs` after one
                 that warms up; CPU on all cores
    bfloat16     a product of the union graph with a table of 128 columns: seconds, and the largest error relative to
                 the largest value
    processes    an epoch under torch.distributed with one process: NCCL and gloo on CUDA, gloo on a CPU

A job that fails is reported in its row, and the others go on. The status is 1 if anything failed.
"""

# mypy: ignore-errors
from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from studies.runs import generated

from data_contracts.settings.ranking import EvaluateSettings
from data_contracts.settings.train import CheckpointSettings, TrainSettings
from data_contracts.settings.world import WorldSettings
from data_contracts.store.store import Store
from model.compute.column_parallel import SINGLE_PROCESS, process_group
from model.learners.divergence import EpochGuard
from model.learners.edda import build_edda, draw_steps
from model.sparse.batch_scores import batch_scores, score_pattern
from model.sparse.matrix import choose_engine
from model.training.stage import load_training_data

BOUND = 1e-5
PARITY_STEPS = 6
WORLDS = {False: WorldSettings(users=20_000, items=12_000, interactions=550_000),
          True: WorldSettings(users=600, items=400, interactions=8_000, domains=2)}  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a run's folder in a store")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="a small world")
    parser.add_argument("--epochs", type=int, default=2)
    options = parser.parse_args()
    name = torch.cuda.get_device_name() if options.device == "cuda" else "no GPU"
    print(f"{name}; {len(os.sched_getaffinity(0))} cores; torch {torch.__version__}")
    with tempfile.TemporaryDirectory(prefix="edda-gpu-") as folder:
        artifacts = load(options, Store(Path(folder)))
        jobs = {"scores": lambda: scores(options.device)}
        for engine in ("native", "torch-sparse"):
            jobs[f"parity, {engine}"] = lambda engine=engine: parity(artifacts, options.device, engine)
        for device, engine in dict.fromkeys([("cpu", "native"), (options.device, "native"),
                                             (options.device, "torch-sparse")]):  # fmt: skip
            jobs[f"epoch, {device}, {engine}"] = lambda d=device, e=engine: epoch(artifacts, d, e, options.epochs)
        jobs["bfloat16"] = lambda: bfloat16(artifacts, options.device)
        jobs["processes"] = lambda: processes(artifacts, options.device)
        failed = [job for job, work in jobs.items() if not tell(job, work)]
    sys.exit(bool(failed))


def tell(job: str, work: Callable[[], str]) -> bool:
    """Do a job and print its row; False if it failed."""
    try:
        print(f"{job:28} {work()}", flush=True)
    except (ModuleNotFoundError, NotImplementedError) as error:
        print(f"{job:28} left out: {error}", flush=True)
    except Exception as error:  # the other rows are worth having
        print(f"{job:28} FAILED: {type(error).__name__}: {error}", flush=True)
        return False
    return True


def load(options: argparse.Namespace, store: Store) -> dict:
    """The artifacts of the run, or of a generated world."""
    if options.run:
        store = Store(options.run.parent.parent)
        return store.recorded(store.run(options.run.name))
    return generated(store, WORLDS[options.small])


def learner_of(artifacts: dict, device: str, engine: str, processes=SINGLE_PROCESS, **settings):
    """A fresh learner of the defaults with alignment."""
    train = TrainSettings(device=device, engine=engine, alignment=0.3, select_by="auc", **settings)
    checkpoint = CheckpointSettings(train=train, seed=2022, validation=EvaluateSettings())
    return build_edda(load_training_data(checkpoint, artifacts, processes))


def scores(device: str) -> str:
    """Scores and gradients of rows that repeat their items."""
    draws = np.random.default_rng(1)
    users, items = draws.integers(0, 50, 4_000).astype(np.int32), draws.integers(50, 80, (4_000, 9)).astype(np.int32)
    vectors = torch.randn(20_000, 64, generator=torch.Generator().manual_seed(1)).to(device).requires_grad_()
    weights = torch.randn(4_000, 9, generator=torch.Generator().manual_seed(2)).to(device)
    _, multiply = choose_engine("native", torch.device(device))
    pattern = score_pattern(users, items, 20_000).to(torch.device(device))
    found = []
    for scored in (batch_scores(pattern, vectors, multiply), plain(vectors, users, items)):
        (gradient,) = torch.autograd.grad((scored * weights).sum(), vectors)
        found.append((scored.detach(), gradient))
    errors = [float((ours - theirs).abs().max() / theirs.abs().max()) for ours, theirs in zip(*found, strict=True)]
    require(max(errors))
    return f"largest relative error of scores {errors[0]:.1e}, of gradients {errors[1]:.1e}"


def plain(vectors: torch.Tensor, users: np.ndarray, items: np.ndarray) -> torch.Tensor:
    """The scores by indexing."""
    users, items = (torch.from_numpy(each).long().to(vectors.device) for each in (users, items))
    return (vectors[users][:, None] * vectors[items]).sum(dim=2)


def parity(artifacts: dict, device: str, engine: str) -> str:
    """Losses of the first steps, both from one start."""
    losses = []
    for where, how in (("cpu", "native"), (device, engine)):
        learner = learner_of(artifacts, where, how, edge_dropout=0.0)
        steps = zip(range(PARITY_STEPS), draw_steps(learner.data, 1), strict=False)
        losses.append([train_step(learner, step) for _, step in steps])
    worst = max(abs(ours / theirs - 1.0) for theirs, ours in zip(*losses, strict=True))
    require(worst)
    return f"largest relative difference of {PARITY_STEPS} losses {worst:.1e}"


def train_step(learner, step) -> float:
    """One step of the optimiser; returns the loss before it."""
    for _, table, subgraph in learner.model.step_tables(step):
        learner.optimiser.prepare_rows(table, subgraph.rows)
    loss = learner.model.loss(step, (1e-3, 1e-3), learner.data.graphs.multiply, learner.data.objective)
    learner.optimiser.zero_grad(set_to_none=True)
    loss.backward()
    learner.optimiser.step()
    return float(loss.detach())


def require(error: float) -> None:
    """Fail above the bound."""
    if not error <= BOUND:
        raise ValueError(f"the largest relative difference is {error:.1e}, must be ≤ {BOUND}")


def epoch(artifacts: dict, device: str, engine: str, repeats: int) -> str:
    """Seconds of an epoch, and peak memory of the GPU."""
    return timed(learner_of(artifacts, device, engine), device, repeats)


def timed(learner, device: str, repeats: int) -> str:
    """The least seconds of some epochs, after one that warms up."""
    seconds = []
    for number in range(1, repeats + 2):
        synchronise(device)
        started = time.perf_counter()
        learner.train_epoch(EpochGuard(2022, number, 0, 5e-3))
        synchronise(device)
        seconds.append(time.perf_counter() - started)
    memory = f", {torch.cuda.max_memory_allocated() >> 20:,} MiB on the GPU" if device == "cuda" else ""
    return f"{min(seconds[1:]):.2f} s (the first {seconds[0]:.2f} s){memory}"


def synchronise(device: str) -> None:
    """Wait for the GPU."""
    if device == "cuda":
        torch.cuda.synchronize()


def bfloat16(artifacts: dict, device: str) -> str:
    """A product in half the bytes."""
    learner = learner_of(artifacts, "cpu", "native")
    _, matrix = next(iter(learner.data.graphs.inter.blocks(0)))
    sparse = matrix.to(torch.device(device)).to_torch()
    table = torch.randn(matrix.columns, 128, generator=torch.Generator().manual_seed(1)).to(device)
    results, seconds = {}, {}
    for dtype in (torch.float32, torch.bfloat16):
        left, right = sparse.to(dtype), table.to(dtype)
        for _ in range(4):  # the first warms up
            synchronise(device)
            started = time.perf_counter()
            results[dtype] = left @ right
            synchronise(device)
            seconds[dtype] = min(seconds.get(dtype, np.inf), time.perf_counter() - started)
    exact, half = results[torch.float32], results[torch.bfloat16].float()
    error = float((half - exact).abs().max() / exact.abs().max())
    first, second = seconds.values()
    return f"{first * 1e3:.2f} ms in float32, {second * 1e3:.2f} ms in bfloat16, largest relative error {error:.1e}"


def processes(artifacts: dict, device: str) -> str:
    """An epoch in a group of one process."""
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29533"}
    ranks = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    os.environ |= address | ranks
    with process_group(os.environ) as group:
        return timed(learner_of(artifacts, device, "native", group), device, 1)


if __name__ == "__main__":
    main()
