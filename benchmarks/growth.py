"""Growth: what an epoch of training costs as interactions and as domains become more.

    python benchmarks/growth.py [--plot growth.png] [--json]

CPU seconds of one epoch at default settings, one thread, the least of `--repeats`, on generated worlds:

    domains        2, 4, 8, 16, 32 domains of one size, so that interactions grow alike
    interactions   4 domains, users, items and interactions 1, 2, 4, 8 times as many

    BPR, alignment   an epoch's batches, and its alignment steps: one for every ordered pair of domains
    reached          rows of the inter table that a batch needs, on average
    exponent         slope of log seconds over log size, by least squares; 1 is linear
"""

# mypy: ignore-errors
from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from runs import generated
from train_contenders import contest_of, epoch_cost

from data_contracts.settings import WorldSettings
from data_contracts.store import Store
from data_contracts.training import TrainSettings
from model import learning

PARTS = ("bpr", "alignment")


def world_of(domains: int, times: int = 1) -> WorldSettings:
    """A world of equal domains."""
    return WorldSettings(
        domains=domains, users=1200 * times, items=800 * times, interactions=30_000 * times, shrink=1.0
    )


SERIES = {
    "domains": {number: world_of(number) for number in (2, 4, 8, 16, 32)},
    "interactions": {times: world_of(4, times) for times in (1, 2, 4, 8)},
}


def main() -> None:
    """Measure and print, world by world."""
    options = parsed()
    torch.set_num_threads(1)
    found = {name: list(costs_of(name, series, options)) for name, series in SERIES.items()}
    if options.plot:
        plot(found, options.plot)
    exponents = {name: {part: exponent(costs, part) for part in PARTS} for name, costs in found.items()}
    if options.json:
        print(json.dumps({"costs": found, "exponents": exponents, "load_average": os.getloadavg()[0]}))
        return
    for name in SERIES:
        print(f"{'exponent, ' + name:>46}" + "".join(f"{exponents[name][part]:>14.2f}" for part in PARTS))
    print(f"load average {os.getloadavg()[0]:.1f}")


def costs_of(name: str, series: dict[int, WorldSettings], options: argparse.Namespace) -> Iterator[dict]:
    """The costs of each world of a series, printed as they come."""
    if not options.json:
        print(f"{name:>14}{'train rows':>12}{'nodes':>10}{'reached':>10}{'BPR, s':>14}{'alignment, s':>14}")
    for size, world in series.items():
        cost = measured(size, world, options.repeats)
        if not options.json:
            numbers = f"{size:>14}{cost['rows']:>12,}{cost['nodes']:>10,}{cost['reached']:>10,.0f}"
            print(f"{numbers}{cost['bpr']:>14.3f}{cost['alignment']:>14.3f}", flush=True)
        yield cost


def parsed() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--plot", type=Path, help="picture to draw")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def measured(size: int, world: WorldSettings, repeats: int) -> dict:
    """The least CPU seconds of an epoch of a world."""
    with tempfile.TemporaryDirectory(prefix="edda-growth-") as folder:
        contest = contest_of(generated(Store(folder), world), TrainSettings(engine="native", device="cpu"))
        lesson = contest.lesson()
        costs = [epoch_cost(contest, lesson) for _ in range(repeats)]
        reached = [step.inter.rows.numel() for step in learning._steps(lesson, 1)]
    found = {"size": size, "rows": sum(positives.users.size for positives in contest.positives)}
    found |= {"nodes": contest.world.nodes, "reached": float(np.mean(reached))}
    return found | {part: min(cost[f"{part}_cpu"] for cost in costs) for part in PARTS}


def exponent(costs: list[dict], part: str) -> float:
    """Slope of log seconds over log size."""
    sizes, seconds = ([cost[name] for cost in costs] for name in ("size", part))
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def plot(found: dict[str, list[dict]], path: Path) -> None:
    """Seconds over size, with what linear growth from the first would be."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), dpi=100, layout="constrained")
    for axes, (name, costs) in zip(figure.subplots(1, len(found)), found.items(), strict=True):
        sizes = np.array([cost["size"] for cost in costs])
        for part in PARTS:
            (line,) = axes.loglog(sizes, [cost[part] for cost in costs], "o-", label=part)
            axes.loglog(sizes, costs[0][part] * sizes / sizes[0], ":", color=line.get_color())
        axes.set(title=f"an epoch, dotted: linear growth ({name})", xlabel=name, ylabel="CPU seconds")
        axes.minorticks_off()
        axes.set_xticks(sizes, sizes)
        axes.legend()
    figure.savefig(path)


if __name__ == "__main__":
    main()
