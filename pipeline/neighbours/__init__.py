"""Neighbours: the items that three-step walks tie each item to, with weights."""
