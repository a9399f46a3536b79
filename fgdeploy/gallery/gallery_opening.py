"""The gallery that names mean: an index's folder."""

from __future__ import annotations

import os
from collections.abc import Sequence

from fgdeploy.core.errors import UsageError
from fgdeploy.gallery.searchable import Searchable
from fgdeploy.retrieval import Index


def open_gallery(names: Sequence[str | os.PathLike[str]]) -> Searchable:
    """Open what is named, to be searched; whoever calls closes it.

    Raises UsageError for no name, IndexStoreError as `Index.open` does.
    """
    match names:
        case [name]:
            return Index.open(name)
        case []:
            raise UsageError("no index is named; name one, such as gallery.fgi")
        case _:
            raise UsageError(f"expected one index, got {len(names)}; name one")
