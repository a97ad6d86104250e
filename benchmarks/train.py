"""Training: our epoch compared with the plain formulation on DGL and torch's CSR, and with the bytes it must move.

    python benchmarks/train.py                              # a small generated world
    python benchmarks/train.py --run edda-store/runs/aliccp edda-store/runs/aliad

An epoch is the batches of every domain and then one alignment step for every ordered pair of domains, with the released
settings. All contenders take the same batches, negatives and pairs, each in its own process.

    edda                as the stage trains: drawing batches, pruning them (in a second thread), optimiser steps; freed
                        memory is kept for the next step, as in the stage
    edda, torch-sparse  the same, with products by torch-sparse
    dgl                 the plain formulation (`peers/train.py`) on DGL's message passing, with torch's Adam
    torch               the same on torch's CSR with int32 indices, with fused Adam

    BPR, alignment   CPU seconds of an epoch, of all threads: ours for a whole epoch, peers' for the first `--batches`
                     batches of each domain, scaled up to all batches. Drawing batches counts for edda only.
    epoch            both together. `ratio_to_dgl` and `ratio_to_torch` are the peer's epoch divided by edda's; `…_bpr`
                     do not include the alignment steps.
    peak             resident memory in MiB, including Python and its libraries
    floor            the fewest bytes an epoch must move, over the bandwidth of copying 256 MiB in edda's process (or
                     its products' multiply-adds over the rate of a dense product, if that is longer): the layer-0
                     rows that a batch reaches read once, their gradients written and read, table and both moments read
                     and written; 8 bytes for each edge kept. Adam needs these for the rows that a batch reaches if it
                     catches up on the others' momentum later, for all rows of the tables of a step (`floor, all rows`)
                     if it does not. Rows between layers are assumed to stay in the cache.

Times are the least of `--repeats` rounds in which contenders take turns, each after a warm-up step (edda: an epoch).
Parity: losses of the first `--steps` steps from one start, without dropout, as the largest difference relative
to ours; and with dropout, tables ten times as wide, as the difference of means over `--draws` masks of all steps, in
standard errors.
"""

# mypy: ignore-errors
from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from peers.installed import has_peer
from peers.train import PEERS

from data_contracts.settings.train import TrainSettings
from data_contracts.store.runs import RunRecord
from data_contracts.store.store import Store

OURS = ("edda", "edda, torch-sparse")
LIBRARIES = {"edda, torch-sparse": "torch_sparse", "dgl": "dgl", "torch": "torch"}
RELEASED = TrainSettings(
    engine="native",
    device="cpu",
    width=64,
    intra_width=64,
    initial_spread=0.1,
    batch_size=8192,
    negatives=1,
    order="sequential",
    inter_graph="by-domain",
    l2=1e-4,
    intra_penalty=1.0,
    intra_shared_at_most=1.0,
    learning_rate=1e-3,
)
PARTS = ("bpr", "alignment", "epoch")
PARITY = (
    "{}: without dropout losses differ by {:.1e}, gradients by {:.1e} of the largest; with dropout our mean loss is "
    "{:.5f}, theirs {:.5f}, {:+.2f} standard errors apart"
)


def main() -> None:
    """Measure and print."""
    options = parsed()
    if options.job:
        print(json.dumps(job(options)))
        return
    results = {}
    with tempfile.TemporaryDirectory(prefix="edda-train-", dir=options.folder) as scratch:
        for run in options.run or [prepared(Path(scratch))]:
            results[run.name] = measured(run, options)
            if not options.json:
                report(run.name, results[run.name])
    if options.json:
        print(json.dumps({"runs": results, "threads": options.threads, "load_average": os.getloadavg()[0]}))


def parsed() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, nargs="+", help="runs' folders in a store, instead of a generated world")
    parser.add_argument("--batches", type=int, default=3, help="batches of each domain that peers take")
    parser.add_argument("--repeats", type=int, default=2, help="rounds of all contenders")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch and DGL")
    parser.add_argument("--measure", choices=("cost", "parity"), nargs="+", default=("cost", "parity"))
    parser.add_argument("--steps", type=int, default=6, help="steps of parity, from one start")
    parser.add_argument("--draws", type=int, default=12, help="draws of parity: dropout masks for half of the steps")
    parser.add_argument("--folder", help="where to put the generated world; the system's temporary folder by default")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    return parser.parse_args()


def prepared(folder: Path) -> Path:
    """A run of a small generated world, prepared up to its pairs."""
    from studies.runs import generated

    store = Store(folder / "store")
    return store.link_run(RunRecord.build("generated", generated(store)))


def measured(run: Path, options: argparse.Namespace) -> dict:
    """One data set: costs, ratios and floor, and parity, as asked for."""
    names = [name for name in (*OURS, *PEERS) if name not in LIBRARIES or has_peer(LIBRARIES[name])]
    results = measure_costs(names, run, options) if "cost" in options.measure else {}
    if "parity" in options.measure:
        results["parity"] = {name: in_process(f"parity {name}", run, options) for name in names if name != "edda"}
    return results


def measure_costs(names: list[str], run: Path, options: argparse.Namespace) -> dict:
    """The least cost of each contender, peers' ratios to edda's, and the floor."""
    rounds = [{name: in_process(name, run, options) for name in names} for _ in range(options.repeats)]
    costs = {name: least([costs[name] for costs in rounds]) for name in names}
    results = {"contenders": costs, "floor": rounds[0]["edda"]["floor"]}
    for name in PEERS:
        if name in costs:
            results[f"ratio_to_{name}"] = costs[name]["epoch_cpu"] / costs["edda"]["epoch_cpu"]
            results[f"ratio_to_{name}_bpr"] = costs[name]["bpr_cpu"] / costs["edda"]["bpr_cpu"]
    return results


def least(costs: list[dict]) -> dict[str, float]:
    """The smallest seconds and memory of a contender's rounds."""
    results = {name: min(cost[name] for cost in costs) for name in costs[0] if name not in {"floor", "share"}}
    for clock in ("cpu", "wall"):
        results[f"epoch_{clock}"] = results[f"bpr_{clock}"] + results[f"alignment_{clock}"]
    return results | {"share": costs[0]["share"]}


def in_process(job: str, run: Path, options: argparse.Namespace) -> dict:
    """The result of a job in a new process."""
    numbers = {"batches": options.batches, "threads": options.threads, "steps": options.steps, "draws": options.draws}
    command = [sys.executable, __file__, "--job", job, "--run", str(run)]
    command += [part for name, value in numbers.items() for part in (f"--{name}", str(value))]
    threads = {"OMP_NUM_THREADS": str(options.threads)}
    done = subprocess.run(command, env=os.environ | threads, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed")
    return json.loads(done.stdout.splitlines()[-1])


def job(options: argparse.Namespace) -> dict:
    """The job of this process: the cost of one contender, or its parity with edda."""
    import torch
    from peers.contenders import edda_cost, load_contest, parity_with, plain_cost

    torch.set_num_threads(options.threads)
    contest = load_contest(options.run[0], RELEASED)
    if options.job.startswith("parity "):
        return parity_with(contest, options.job.removeprefix("parity "), options.steps, options.draws)
    if options.job in OURS:
        return edda_cost(contest, options.job)
    return plain_cost(contest, options.job, options.batches)


def report(name: str, results: dict) -> None:
    """Print the results for a data set."""
    print(f"{name}; load average {os.getloadavg()[0]:.1f}")
    if "contenders" in results:
        report_costs(results["contenders"], results["floor"])
    for contender, parity in results.get("parity", {}).items():
        print(PARITY.format(contender, *parity.values()))


def report_costs(contenders: dict[str, dict], floor: dict) -> None:
    """Print costs, ratios and floors."""
    ours = contenders["edda"]
    titles = f"{'BPR':>18}{'alignment':>18}{'epoch':>18}{'peak MiB':>10}{'times edda (BPR)':>20}{'batches':>9}"
    print(f"{'CPU (wall) seconds':20}{titles}")
    for contender, cost in contenders.items():
        cells = [f"{cost[part + '_cpu']:.2f} ({cost[part + '_wall']:.2f})" for part in PARTS]
        ratios = [cost[f"{part}_cpu"] / ours[f"{part}_cpu"] for part in ("epoch", "bpr")]
        row = f"{contender:20}" + "".join(f"{cell:>18}" for cell in cells) + f"{cost['peak_mib']:>10,.0f}"
        print(row + f"{f'{ratios[0]:.1f} ({ratios[1]:.1f})':>20}{cost['share']:>9}")
    for which, label in (("touched", "floor"), ("all", "floor, all rows")):
        seconds = floor[f"{which}_seconds"]
        over = ", ".join(f"{part} {ours[f'{part}_cpu'] / seconds[part]:.1f}" for part in PARTS if seconds[part])
        print(f"{label:20}" + "".join(f"{seconds[part]:>18.2f}" for part in PARTS) + f"   edda over it: {over}")
    print(f"{'':20}copying {floor['gigabytes_per_second']:.1f} GB/s, products {floor['gigaflops']:.0f} Gflop/s")


if __name__ == "__main__":
    main()
