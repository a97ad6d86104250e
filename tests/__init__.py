"""The tests. Caches have a folder before anything needs them, also for a user without a home in a folder of others."""

import os
from pathlib import Path

from data_contracts.cache_folders import can_write, private_temporary_folder, provide_caches

provide_caches()
if not can_write(Path(os.environ.get("HOME", "/"))):
    os.environ.setdefault("PREFECT_HOME", str(private_temporary_folder() / "prefect"))
if not can_write(Path.cwd()):
    os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str(private_temporary_folder() / "hypothesis"))
