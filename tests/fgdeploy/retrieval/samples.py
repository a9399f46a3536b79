"""What the tests of the store share: models, items, and looks behind the index's back."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fgdeploy.retrieval import Added, Index, Item, Problem
from fgdeploy.retrieval.store.making import DATABASE
from fgdeploy.retrieval.store.transfer import import_items, open_export

MODEL, OTHER = "ab" * 32, "cd" * 32
BITS = 32
ZERO = np.zeros((1, BITS // 8), np.uint8)
NOBODY = 65534


def photo(name: str, code: int = 0, label: str | None = None) -> Item:
    return Item(f"/photos/{name}", code.to_bytes(BITS // 8, "big"), label, f"sha of {name} {code}")


def database(path: Path) -> Path:
    return path / DATABASE


@contextlib.contextmanager
def raw(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the database behind the index's back."""
    connection = sqlite3.connect(database(path), isolation_level=None)
    try:
        yield connection
    finally:
        connection.close()


def force(path: Path, column: str, change: str) -> None:
    """Change items as damage would: `column`, as the schema has it, may hold anything meanwhile."""
    for old, new in ((column, column.split()[0]), (column.split()[0], column)):
        with raw(path) as connection:
            connection.execute("PRAGMA writable_schema = ON")
            connection.execute(
                "UPDATE sqlite_master SET sql = replace(sql, ?, ?) WHERE name = 'items'",
                (f"    {old},", f"    {new},"),
            )
        if new != column:
            with raw(path) as connection:
                connection.execute(change)


def names(index: Index) -> list[str]:
    return [Path(item.path or "").name for item in index.items()]


def use_all(path: Path) -> list[Problem]:
    """Do everything that reads an index, and return what is wrong with it."""
    with Index.open(path) as index:
        len(index)
        index.by_path(["/photos/17.jpg"])
        index.by_content([f"{17:064}"])
        index.stats()
        list(index.items())
        index.search(ZERO, 5)
        index.search(ZERO, 5, where="label = 'label 3'")
        return [problem for problem in index.verify() if problem.fatal]


def brought_in(index: Index, source: Path) -> Added:
    with open_export(source) as incoming:
        return import_items(index, incoming)
