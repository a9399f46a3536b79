"""Where the hasher meets the store: photos into an index, queries against it, a contact sheet."""

from fgdeploy.gallery.adding import AddReport, add_photos, open_or_create
from fgdeploy.gallery.queries import (
    Query,
    QuerySettings,
    answer,
    code_queries,
    file_queries,
    find_id,
    item_queries,
    photo_queries,
)

__all__ = [
    "AddReport",
    "Query",
    "QuerySettings",
    "add_photos",
    "answer",
    "code_queries",
    "file_queries",
    "find_id",
    "item_queries",
    "open_or_create",
    "photo_queries",
]
