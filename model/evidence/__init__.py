"""Evidence from item neighbours, and its blend with the vectors' scores."""
