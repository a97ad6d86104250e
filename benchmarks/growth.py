"""Growth: how the cost of a training epoch grows with interactions and with domains.

    python benchmarks/growth.py [--batches 8] [--store FOLDER] [--plot FILE.png] [--json]

CPU seconds of one epoch with default settings on one thread, the least of `--repeats`, on generated worlds:

    domains        2, 4, 8, 16, 32 domains of equal size, so interactions grow in proportion
    interactions   4 domains with 1, 2, 4, 8 times as many users, items and interactions

With `--batches N`, larger worlds instead, of up to 10 million interactions: after four other batches N batches are
timed, with Adam as in its later steps, and their median stands for the whole epoch. `--store` keeps the worlds.

    domains                4, 8, 16, 32 domains, each twice as large as above
    interactions           4, 16 and 80 times as many
    by 8192, by 256        BPR in batches of 8,192 and of 256 triples
    by 32nds               BPR in batches of a 32nd of the world's triples

    BPR, alignment   the batches of an epoch, and its alignment steps: one for every ordered pair of domains
    reached          mean number of rows of the inter table that a batch needs
    exponent         slope of log seconds over log size, by least squares; 1 is linear
"""

# mypy: ignore-errors
from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from peers.contenders import Contest, adam, build_contest, epoch_cost
from studies.runs import generated, load_artifacts

from data_contracts.settings.train import TrainSettings
from data_contracts.settings.world import WorldSettings
from data_contracts.store.store import Store
from model.compute.device import keep_freed_memory
from model.data.batches import BATCHES
from model.learners import edda as learning
from model.learners import row_adam
from model.learners.base import TrainingData, optimizer_step

PARTS = ("bpr", "alignment")
TRIPLES = {"by 8192": 8192, "by 256": 256}
LARGE_PARTS = (*TRIPLES, "by 32nds")
WARMING = 4


def build_world_settings(domains: int, times: int = 1) -> WorldSettings:
    """A world of equal domains."""
    return WorldSettings(
        domains=domains, users=1200 * times, items=800 * times, interactions=30_000 * times, shrink=1.0
    )


SERIES = {
    "domains": {number: build_world_settings(number) for number in (2, 4, 8, 16, 32)},
    "interactions": {times: build_world_settings(4, times) for times in (1, 2, 4, 8)},
}
LARGE = {
    "interactions": {times: build_world_settings(4, times) for times in (4, 16, 80)},
    "domains": {number: build_world_settings(number, 2) for number in (4, 8, 16, 32)},
}


def main() -> None:
    """Measure and print, one world after another."""
    options = parsed()
    torch.set_num_threads(1)
    every, costs = (LARGE, measure_large_costs) if options.batches else (SERIES, measure_costs)
    results = {name: list(costs(name, series, options)) for name, series in every.items()}
    if options.plot:
        plot(results, options.plot)
    exponents = {name: {part: exponent(costs, part) for part in part_names(costs)} for name, costs in results.items()}
    if options.json:
        print(json.dumps({"costs": results, "exponents": exponents, "load_average": os.getloadavg()[0]}))
        return
    for name, slopes in exponents.items():
        print(f"{'exponent, ' + name:>46}" + "".join(f"{slope:>14.2f}" for slope in slopes.values()))
    print(f"load average {os.getloadavg()[0]:.1f}")


def part_names(costs: list[dict]) -> list[str]:
    """The parts of an epoch that were timed."""
    return [part for part in (*PARTS, *LARGE_PARTS) if part in costs[0]]


def measure_costs(name: str, series: dict[int, WorldSettings], options: argparse.Namespace) -> Iterator[dict]:
    """The costs of each world of a series, printed as they are measured."""
    if not options.json:
        print(f"{name:>14}{'train rows':>12}{'nodes':>10}{'reached':>10}{'BPR, s':>14}{'alignment, s':>14}")
    for size, world in series.items():
        cost = measured(size, world, options.repeats)
        if not options.json:
            numbers = f"{size:>14}{cost['rows']:>12,}{cost['nodes']:>10,}{cost['reached']:>10,.0f}"
            print(f"{numbers}{cost['bpr']:>14.3f}{cost['alignment']:>14.3f}", flush=True)
        yield cost


def measure_large_costs(name: str, series: dict[int, WorldSettings], options: argparse.Namespace) -> Iterator[dict]:
    """The costs of each large world of a series, printed as they are measured."""
    keep_freed_memory()
    row_adam._EARLY = 1
    if not options.json:
        parts = "".join(f"{part + ': reached':>18}{'s':>12}" for part in LARGE_PARTS)
        print(f"{name:>20}{'train rows':>12}{'nodes':>11}{parts}")
    for size, world in series.items():
        with tempfile.TemporaryDirectory(prefix="edda-growth-") as folder:
            artifacts = load_artifacts(None, Store(options.store or folder), world)
            contest = build_contest(artifacts, TrainSettings(engine="native", device="cpu", alignment=0.0))
            data = contest.data()
        cost = {
            "size": size,
            "rows": sum(positives.users.size for positives in contest.positives),
            "nodes": contest.world.nodes,
        }
        for part, triples in {**TRIPLES, LARGE_PARTS[-1]: -(-cost["rows"] // BATCHES)}.items():
            cost |= sampled(contest, data, part, triples, options.batches)
        if not options.json:
            numbers = "".join(f"{cost[f'reached {part}']:>18,.0f}{cost[part]:>12.1f}" for part in LARGE_PARTS)
            print(f"{size:>20}{cost['rows']:>12,}{cost['nodes']:>11,}{numbers}", flush=True)
        yield cost


def sampled(contest: Contest, data: TrainingData, part: str, triples: int, batches: int) -> dict:
    """CPU seconds of the batches of an epoch, and rows reached, from the median of some batches."""
    data = replace(data, settings=data.settings.model_copy(update={"batch_size": triples}))
    model = contest.start()
    optimiser, steps = adam(model, contest.settings), learning.draw_steps(data, 1)
    seconds, reached = [], []
    for _ in range(WARMING + batches):
        started = time.process_time()
        step = next(steps)
        for _, table, subgraph in model.step_tables(step):
            optimiser.prepare_rows(table, subgraph.rows)
        penalties = data.settings.penalties(data.graphs.dataset.shared_interaction_shares[step.domain])
        optimizer_step(optimiser, model.loss(step, penalties, data.graphs.multiply))
        seconds.append(time.process_time() - started)
        reached.append(step.inter.rows.numel())
    epoch = sum(-(-positives.users.size // triples) for positives in contest.positives)
    return {
        part: epoch * float(np.median(seconds[WARMING:])),
        f"reached {part}": float(np.median(reached[WARMING:])),
    }


def parsed() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batches", type=int, default=0, help="batches timed in each large world; 0: none")
    parser.add_argument("--store", type=Path, help="folder in which to keep the large worlds")
    parser.add_argument("--plot", type=Path, help="where to write the picture")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def measured(size: int, world: WorldSettings, repeats: int) -> dict:
    """The least CPU seconds of an epoch of a world."""
    with tempfile.TemporaryDirectory(prefix="edda-growth-") as folder:
        contest = build_contest(generated(Store(folder), world), TrainSettings(engine="native", device="cpu"))
        data = contest.data()
        costs = [epoch_cost(contest, data) for _ in range(repeats)]
        reached = [step.inter.rows.numel() for step in learning.draw_steps(data, 1)]
    results = {"size": size, "rows": sum(positives.users.size for positives in contest.positives)}
    results |= {"nodes": contest.world.nodes, "reached": float(np.mean(reached))}
    return results | {part: min(cost[f"{part}_cpu"] for cost in costs) for part in PARTS}


def exponent(costs: list[dict], part: str) -> float:
    """Slope of log seconds over log size."""
    sizes, seconds = ([cost[name] for cost in costs] for name in ("size", part))
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def plot(results: dict[str, list[dict]], path: Path) -> None:
    """Seconds over size, with linear growth from the first world as dotted lines."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), dpi=100, layout="constrained")
    for axes, (name, costs) in zip(figure.subplots(1, len(results)), results.items(), strict=True):
        sizes = np.array([cost["size"] for cost in costs])
        for part in part_names(costs):
            (line,) = axes.loglog(sizes, [cost[part] for cost in costs], "o-", label=part)
            axes.loglog(sizes, costs[0][part] * sizes / sizes[0], ":", color=line.get_color())
        axes.set(title=f"an epoch, dotted: linear growth ({name})", xlabel=name, ylabel="CPU seconds")
        axes.minorticks_off()
        axes.set_xticks(sizes, sizes)
        axes.legend()
    figure.savefig(path)


if __name__ == "__main__":
    main()
