"""Items of a file whose ids other photos have in the index, whose place they would take."""

from __future__ import annotations

from collections.abc import Mapping

from fgdeploy.core.text import shorten
from fgdeploy.retrieval.store.index import Index
from fgdeploy.retrieval.store.items import Item

_PATH = 300  # characters of a path in a message


def first_stranger(index: Index, batch: Mapping[int, Item]) -> tuple[int, str] | None:
    """Return the first id that means another photo in the index, and what is wrong with it.

    Items with one id are of one photo if they have the same path, content or code.
    """
    for own, there in index.by_id(batch).items():
        item = batch[own]
        same_path = item.path == there.path and item.path is not None
        same_content = item.sha256 == there.sha256 != ""
        if not (same_path or same_content or item.code == there.code):
            return own, (
                f"id {own} is {_photo(there)} in {index.path} and {_photo(item)} in the file; "
                "import into a new index, or remove that item first"
            )
    return None


def _photo(item: Item) -> str:
    return "another item" if item.path is None else shorten(item.path, _PATH)
