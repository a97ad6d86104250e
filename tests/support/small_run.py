"""A small run that tests make in several ways, and the digests of its files."""

from pathlib import Path

from data_contracts.open_store import open_store
from data_contracts.store.digests import file_digest

RUN = """
name = "killed"
[world]
domains = 3
users = 150
items = 80
interactions = 2500
[reach]
compared_nodes = 5
[train]
epochs = 60
patience = 60
width = 8
batch_size = 256
learning_rate = 0.02
initial_spread = 0.1
alignment = 0.05
[evaluate]
resamples = 20
[compute]
threads = 1
state_seconds = 0
"""
SMALL_RUN = (
    RUN.replace("domains = 3", "domains = 2")
    .replace("150", "50")
    .replace("2500", "500")
    .replace("epochs = 60", "epochs = 2")
)


def every_file(root: Path | str) -> dict[str, str]:
    """Digest of each file of the run's artifacts in a store."""
    store = open_store(root)
    artifacts = store.recorded(store.run("killed"))
    return {f"{role}/{entry.path}": file_digest(artifact.path / entry.path)
            for role, artifact in artifacts.items() for entry in artifact.manifest.files}  # fmt: skip
