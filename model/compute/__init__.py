"""Processes, threads, devices and memory."""
