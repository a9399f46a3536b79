"""The gallery that names mean: an index's folder."""

from __future__ import annotations

import os
from collections.abc import Sequence

from fgdeploy.core.errors import UsageError
from fgdeploy.gallery.searchable import Searchable
from fgdeploy.remote.server_address import is_address
from fgdeploy.retrieval import Index


def open_gallery(names: Sequence[str | os.PathLike[str]]) -> Searchable:
    """Open what is named, to be searched; whoever calls closes it.

    A folder, or the address of a server that an index was pushed to. Raises UsageError for no name,
    IndexStoreError as `Index.open` does, RemoteError and MissingDependency for an address.
    """
    match names:
        case [str(name)] if is_address(name):
            from fgdeploy.remote.adapters import connect

            return connect(name)
        case [name]:
            return Index.open(name)
        case []:
            raise UsageError("no index is named; name one, such as gallery.fgi")
        case _:
            raise UsageError(f"expected one index, got {len(names)}; name one")
