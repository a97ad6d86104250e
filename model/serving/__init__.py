"""Recommendations from vectors and evidence: export, exact and approximate search, explanations."""
