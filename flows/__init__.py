"""What people run: configuration, the command line, the Prefect flow and the reports; it wires the stages."""

NO_TELEMETRY = {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
"""Environment variables that switch off the telemetry of all that is started; the user's own values take priority."""
