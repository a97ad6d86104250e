"""Damaged files, told with what to do about them."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

DAMAGES = (OSError, KeyError, pa.ArrowException, UnicodeDecodeError)
"""What reading a damaged Parquet file raises."""


def damaged(path: Path, folder: Path, error: Exception) -> OSError:
    """The error that tells of a file, of the artifact in a folder, that cannot be read."""
    return OSError(f"{path} is damaged: {error}; delete {folder} to make it again")
