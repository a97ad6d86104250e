"""Run the flow from this process: on Prefect's embedded API, or on the server that PREFECT_API_URL names."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.config.run_config import RunConfig, load_config
from flows.runner.plan import make_plan
from flows.telemetry import NO_TELEMETRY

if TYPE_CHECKING:
    from flows.runner.execute import Outcome

log = logging.getLogger(__name__)

ENVIRONMENT = {
    **NO_TELEMETRY,
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    "PREFECT_CLI_PROMPT": "false",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
}
"""No telemetry; patience with the embedded API, which takes 15 to 25 s to start on a busy machine; what is logged
before and after a flow is no concern of Prefect's."""


def run_flows(runs: Sequence[tuple[Path, list[str]]], stage: str | None) -> list[Outcome]:
    """Run the flow for each TOML file and its overrides.

    Args:
        runs: TOML files with overrides.
        stage: one stage and what it needs; all by default.

    Returns:
        What each run has now, in the same order.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    log.info("starting Prefect%s", "" if os.environ.get("PREFECT_API_URL") else "'s embedded API")
    from flows.orchestration.flow import edda

    wanted: Any = stage or "full"
    for path, overrides in runs:
        edda(str(path), overrides=overrides, stage=wanted)
    return [_recorded(load_config(path, overrides)) for path, overrides in runs]


def _recorded(config: RunConfig) -> Outcome:
    from flows.runner.execute import Outcome

    plan = make_plan(config)
    return Outcome(plan, plan.found(), plan.store.run(config.name)[1]["made"])
