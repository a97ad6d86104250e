"""What the keys of ingest's artifacts depend on. Planning a run needs this and nothing else of ingest."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import Any

from data_contracts.contracts import REJECTS
from data_contracts.schema import Contract
from data_contracts.settings.ingest import IngestSettings
from pipeline.logs.discovery import LogFile
from pipeline.logs.formats import format_by_name
from pipeline.logs.records import compression_of


def ingest_inputs(contract: Contract, settings: IngestSettings, logs: Sequence[LogFile]) -> dict[str, Any]:
    """Everything that an artifact depends on: settings, and of each file content, domain, split, and how it is read.

    Rejects name files, and depend on names, too, but not on folders. Interactions do not, so after a log is renamed
    (logrotate) nothing but the rejects is made again.
    """
    elsewhere = ("path", "path_pattern", "domain", "format")  # read, or in another entry
    files = [
        {
            "sha256": log.sha256,
            "domain": log.domain,
            "split": log.split,
            "compression": compression_of(log.path),
            "source": {name: value for name, value in log.source.keyed().items() if name not in elsewhere}
            | {"format": format_by_name(log)},
        }
        | ({"name": log.name} if contract is REJECTS else {})
        for log in sorted(logs, key=lambda log: log.name)
    ]
    by_content = files if contract is REJECTS else sorted(files, key=partial(json.dumps, sort_keys=True))
    return {"settings": settings.keyed(), "files": by_content}
