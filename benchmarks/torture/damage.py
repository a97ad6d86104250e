"""Accidental damage to a finished run: is it refused, harmless, or does it give other answers in silence?

    python benchmarks/torture/damage.py --store edda-store --run demo --config flows/runs/demo.toml --count 200

Copies the store, builds an index, and damages one file at a time, drawn from all files of the run's artifacts, their
manifests and the run's record: a flipped bit, a zeroed tail, another digit, a cut, another file of the same kind in
its place; in manifests also an entry dropped, doubled or with other rows, and another artifact copied under the key.
Every time everything that reads the run is asked again: the plan, the record, all rows (also by SQL), tensors,
recommendations, exact and by the index. The table counts by kind of file

    refused     an error of one line; `named` are those that name the damaged file or its folder
    harmless    all answers are the same
    WRONG       an answer differs, and nothing was said
    crash       another kind of error, or one of several lines
"""

# mypy: ignore-errors
from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import tempfile
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

from byte_damage import change_digit, cut, flip, zero_tail

from data_contracts.store.artifact import Artifact
from data_contracts.store.store import Store
from flows.config.run_config import load_config
from flows.inspection.sql import ask
from flows.runner.lookup import find_run
from flows.runner.plan import make_plan
from model.data.dataset import load_dataset
from model.edda.checkpoint import load_checkpoint
from model.serving.approximate import build_index, open_index
from model.serving.recommender import Recommender

OUTCOMES = ("refused", "named", "harmless", "WRONG", "crash")


def edit_entries(content: bytes, draw: random.Random) -> bytes:
    """Drop or double an entry of a manifest, or change its rows; without its own digest, as one of version 0.1."""
    manifest = json.loads(content)
    manifest.get("made", {}).pop("sha256", None)
    files = manifest["files"]
    entry = draw.randrange(len(files))
    change = draw.choice(("drop", "double", "rows"))
    if change == "drop":
        del files[entry]
    elif change == "double":
        files.append(files[entry])
    else:
        files[entry]["rows"] = draw.choice((10**30, -1, (files[entry]["rows"] or 0) + 1))
    return json.dumps(manifest, indent=2).encode()


DAMAGES = (flip, flip, zero_tail, change_digit, cut)


def answers(store: Path, run: str, index: Artifact) -> Iterator[tuple[str, object]]:
    """What everything that reads a run says, by reader."""
    view = find_run(run, str(store))
    config = view.store.root / "run.toml"
    plan = make_plan(load_config(config, [f"store={json.dumps(str(store))}"]))
    yield "plan", sorted((role, artifact.key) for role, artifact in plan.existing().items())
    yield "record", view.store.run(run).model_dump()
    for role, artifact in view.artifacts.items():
        yield f"rows of {role}", hashlib.sha256(str(artifact.read().to_pydict()).encode()).hexdigest()
        yield f"settings of {role}", (artifact.manifest.settings, artifact.statistics, artifact.manifest.rows)
        with ask(
            {role: artifact}, f'select count(*), sum(hash(t)::hugeint) from "{role.replace("-", "_")}" t'
        ) as result:
            yield f"SQL on {role}", list(result.rows)
        if role.startswith("checkpoint"):
            checkpoint = load_checkpoint(artifact, load_dataset(view.artifacts["nodes"], view.artifacts["graph"]))
            tensors = {
                name: hashlib.sha256(tensor.numpy()).hexdigest() for name, tensor in checkpoint.model.tensors().items()
            }
            yield f"tensors of {role}", (tensors, checkpoint.epoch, checkpoint.model.shape, checkpoint.backbone)
    searches = {"exact": Recommender(view.artifacts), "index": Recommender(view.artifacts, open_index(index))}
    for domain in sorted(partition["domain"] for partition in view.artifacts["nodes"].partitions()):
        ids = view.artifacts["nodes"].read(["kind", "id"], domain=domain).to_pylist()
        users, items = ([row["id"] for row in ids if row["kind"] == kind] for kind in ("user", "item"))
        for name, recommender in searches.items():
            for user in (users[0], users[len(users) // 2]):
                yield f"{name} {domain} {user}", recommender.for_user(domain, user, 20, 3)
            yield f"{name} {domain} {items[0]}", recommender.similar(domain, items[0], 20, 3)


def kind_of(path: Path) -> str:
    """Name of a JSON file, ending of another."""
    return path.name if path.suffix == ".json" else path.suffix


def judge(right: dict[str, object], ask_all: Callable[[], Iterator[tuple[str, object]]], path: Path) -> tuple[str, str]:
    """The outcome of one damage, and what was said or answered."""
    try:
        wrong = [name for name, answer in ask_all() if answer != right[name]]
    except (OSError, ValueError, LookupError) as error:
        text = str(error)
        if "\n" in text or not isinstance(error, ValueError | OSError):
            return "crash", traceback.format_exc()
        return ("named" if str(path) in text or str(path.parent) in text else "refused"), text
    except Exception:
        return "crash", traceback.format_exc()
    return ("WRONG", ", ".join(wrong)) if wrong else ("harmless", "")


def damage(path: Path, files: list[Path], draw: random.Random) -> str:
    """Damage a file; returns how."""
    content = path.read_bytes()
    others = [other for other in files if kind_of(other) == kind_of(path) and other != path]
    hows = [*DAMAGES, *([edit_entries] if path.name == "manifest.json" else []), *(["swap"] if others else [])]
    how = draw.choice(hows)
    path.write_bytes(draw.choice(others).read_bytes() if how == "swap" else how(content, draw))
    return how if how == "swap" else how.__name__


def main() -> None:
    """Damage one file after the other and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--run", required=True)
    parser.add_argument("--config", type=Path, required=True, help="the run's TOML file")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    draw, table, shown = random.Random(options.seed), defaultdict(Counter), []
    with tempfile.TemporaryDirectory(prefix="edda-damage-") as folder:
        root = Path(folder) / "store"
        shutil.copytree(options.store, root, symlinks=True)
        shutil.copyfile(options.config, root / "run.toml")
        view = find_run(options.run, str(root))
        index = build_index(Store(root), view.artifacts)
        used = [*view.artifacts.values(), index]
        files = sorted({path for artifact in used for path in artifact.folder.rglob("*") if path.is_file()})
        files.append(root / "runs" / options.run / "run.json")
        ask_all = lambda: answers(root, options.run, Artifact(index.contract, index.folder))  # noqa: E731
        right = dict(ask_all())
        by_kind = defaultdict(list)
        for path in files:
            by_kind[kind_of(path)].append(path)
        for number in range(options.count):
            path = draw.choice(by_kind[draw.choice(sorted(by_kind))])
            content = path.read_bytes()
            how = damage(path, files, draw)
            outcome, said = ("harmless", "") if path.read_bytes() == content else judge(right, ask_all, path)
            path.write_bytes(content)
            table[kind_of(path)][outcome] += 1
            if outcome in ("WRONG", "crash", "refused"):
                shown.append(f"{number} {outcome}: {how} of {path.relative_to(root)}: {said}")
        assert dict(ask_all()) == right
    print("\n".join(shown))
    print(f"\n{'file':<16}" + "".join(f"{name:>10}" for name in OUTCOMES))
    for kind, counts in sorted(table.items()):
        print(f"{kind:<16}" + "".join(f"{counts[name]:>10}" for name in OUTCOMES))
    totals = sum(table.values(), Counter())
    print(f"{'all':<16}" + "".join(f"{totals[name]:>10}" for name in OUTCOMES))


if __name__ == "__main__":
    main()
