"""Hamming-ranked retrieval: search on plain code arrays, and the gallery index on disk."""

from fgdeploy.retrieval.items import Added, Hit, Item
from fgdeploy.retrieval.search import search_codes, search_radius
from fgdeploy.retrieval.stats import Stats
from fgdeploy.retrieval.store import Index
from fgdeploy.retrieval.verifying import Problem

__all__ = ["Added", "Hit", "Index", "Item", "Problem", "Stats", "search_codes", "search_radius"]
