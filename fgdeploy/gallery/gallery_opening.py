"""The gallery that names mean: an index's folder, several as one, or one on a server."""

from __future__ import annotations

import os
from collections.abc import Sequence

from fgdeploy.core.errors import UsageError
from fgdeploy.gallery.searchable import Searchable
from fgdeploy.gallery.several import SeveralIndexes
from fgdeploy.remote.server_address import is_address
from fgdeploy.retrieval import Index


def open_gallery(names: Sequence[str | os.PathLike[str]]) -> Searchable:
    """Open what is named, to be searched; whoever calls closes it.

    A folder, several of them as one, or the address of a server that an index was pushed to. Raises
    UsageError for no name or an address beside others, IndexStoreError as `Index.open` and
    `SeveralIndexes` do, RemoteError and MissingDependency for an address.
    """
    match names:
        case [str(name)] if is_address(name):
            from fgdeploy.remote.adapters import connect

            return connect(name)
        case [name]:
            return Index.open(name)
        case _:
            if any(isinstance(name, str) and is_address(name) for name in names):
                raise UsageError(
                    "several indexes were named, and one of them is on a server; only folders are "
                    "searched as one: name the address alone, or push all of them to it"
                )
            return SeveralIndexes.open(names)
