"""Searches for settings, and the scoreboard of models that were tuned equally hard."""
