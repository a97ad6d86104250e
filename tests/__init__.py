"""The tests. Caches have a folder before Numba and Matplotlib are imported, also for a user without a home."""

from data_contracts.cache_folders import provide_caches

provide_caches()
