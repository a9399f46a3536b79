"""Hamming-ranked retrieval: search on plain code arrays, and the gallery index on disk."""

from fgdeploy.retrieval.scan.merge_found import merge_nearest, search_parts
from fgdeploy.retrieval.scan.search import search_codes, search_radius
from fgdeploy.retrieval.store.index import Index
from fgdeploy.retrieval.store.items import Added, Hit, Item
from fgdeploy.retrieval.store.stats import Stats
from fgdeploy.retrieval.store.verifying import Problem

__all__ = [
    "Added",
    "Hit",
    "Index",
    "Item",
    "Problem",
    "Stats",
    "merge_nearest",
    "search_codes",
    "search_parts",
    "search_radius",
]
