"""Evidence from walks, and how it is blended with the vectors."""
