"""Where the hasher meets the store: photos into an index, queries against it, a contact sheet."""

from fgdeploy.gallery.adding import AddReport, add_photos, fill, open_or_create
from fgdeploy.gallery.backfilling import EmbedReport, embed_items
from fgdeploy.gallery.belonging import bundle_of, index_of
from fgdeploy.gallery.migrating import MigrationReport, go_back, migrate, old_of
from fgdeploy.gallery.pruning import gone, prune
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
from fgdeploy.gallery.several import SeveralIndexes
from fgdeploy.gallery.throttling import Throttle

__all__ = [
    "AddReport",
    "EmbedReport",
    "MigrationReport",
    "Query",
    "QuerySettings",
    "SeveralIndexes",
    "Throttle",
    "add_photos",
    "answer",
    "bundle_of",
    "code_queries",
    "embed_items",
    "file_queries",
    "fill",
    "find_id",
    "go_back",
    "gone",
    "index_of",
    "item_queries",
    "migrate",
    "old_of",
    "open_or_create",
    "photo_queries",
    "prune",
]
