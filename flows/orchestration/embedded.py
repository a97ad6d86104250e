"""Run the flow from this process: on Prefect's embedded API, or on the server that PREFECT_API_URL names."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

from flows import NO_TELEMETRY
from flows.config.run_config import RunSpec
from flows.output.console import Watch
from flows.runner.execute import Outcome
from pipeline.logs.discovery import Digests

log = logging.getLogger(__name__)

ENVIRONMENT = {
    **NO_TELEMETRY,
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    "PREFECT_CLI_PROMPT": "false",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
}
"""No telemetry; a long time-out for the embedded API, which takes 15 to 25 s to start on a busy machine; no warnings
about log messages before and after a flow."""


def run_flows(specs: Sequence[RunSpec], stage: str | None, watch: Watch, digests: Digests) -> list[Outcome]:
    """Run the flow for each run.

    Args:
        specs: the runs.
        stage: one stage and what it needs; all stages if None.
        watch: shows progress.
        digests: of the log files that this process has read.

    Returns:
        What each run has now, in the same order.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if "flows.orchestration.flow" not in sys.modules:
        log.info("starting Prefect%s", "" if os.environ.get("PREFECT_API_URL") else "'s embedded API")
    from flows.orchestration.flow import run_flow  # Prefect reads the environment when it is imported

    return [run_flow(spec, stage, watch, digests) for spec in specs]
