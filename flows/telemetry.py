"""Nothing that the project starts calls home, unless the environment says otherwise."""

from __future__ import annotations

NO_TELEMETRY = {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
