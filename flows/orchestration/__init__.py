"""Prefect flows, and runs without a server."""
