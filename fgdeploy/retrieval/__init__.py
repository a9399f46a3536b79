"""Hamming-ranked retrieval: search on plain code arrays, and the gallery index on disk."""

from fgdeploy.retrieval.search import search_codes, search_radius
from fgdeploy.retrieval.store import Hit, Index, Item, Problem

__all__ = ["Hit", "Index", "Item", "Problem", "search_codes", "search_radius"]
