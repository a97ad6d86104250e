"""What people run: configuration, the command line, the Prefect flow and the reports that wire the stages."""

NO_TELEMETRY = {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
"""Environment in which nothing that the project starts sends telemetry; the user's own environment comes first."""
