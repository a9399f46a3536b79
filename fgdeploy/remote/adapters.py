"""Which adapter an address is for, imported when it is needed."""

from __future__ import annotations

import importlib

from fgdeploy.core.errors import UsageError
from fgdeploy.core.text import shown
from fgdeploy.remote.remote_index import RemoteIndex
from fgdeploy.remote.remote_table import RemoteTable
from fgdeploy.remote.server_address import is_address

# scheme -> module with `open_table(address) -> RemoteTable`
_MODULES = {
    "milvus": "milvus_table",
    "milvus+lite": "milvus_table",
    "postgresql": "postgres_table",
}


def table_at(address: str) -> RemoteTable:
    """Connect to what an address names; whoever calls closes it.

    Raises UsageError for an address that can never be right, MissingDependency, RemoteError.
    """
    known = ", ".join(f"{name}://" for name in _MODULES)
    if not is_address(address):
        raise UsageError(f"{shown(repr(address))} is no address; expected one of {known}")
    scheme = address.partition("://")[0].lower()
    if (module := _MODULES.get(scheme)) is None:
        raise UsageError(f"no server is known by {shown(scheme)}://; expected one of {known}")
    table: RemoteTable = importlib.import_module(f"fgdeploy.remote.{module}").open_table(address)
    return table


def connect(address: str) -> RemoteIndex:
    """Open the index that was pushed to an address, to be searched; whoever calls closes it.

    Raises as `table_at`, and RemoteError where nothing is there or a first push has not ended.
    """
    table = table_at(address)
    try:
        return RemoteIndex(table)
    except BaseException:
        table.close()
        raise
