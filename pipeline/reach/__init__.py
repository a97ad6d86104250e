"""The train graph to reach vectors."""
