"""Items into the database: new, changed, or known already by id, path or content."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fgdeploy.core.codes import UInt8Array
from fgdeploy.core.errors import IndexStoreError
from fgdeploy.retrieval.store.checksums import checksum, code_checksum, text_checksum, text_of
from fgdeploy.retrieval.store.ids import IdSet, automatic
from fgdeploy.retrieval.store.items import Added, Item, Row, name_of, now, row_checksum, utc
from fgdeploy.retrieval.store.schema import MAX_ID
from fgdeploy.retrieval.store.sqlite_errors import damaged

_ROWS_AT_ONCE = 32  # of one statement
_KEYS_AT_ONCE = 500  # parameters of one statement; old SQLite takes 999
_FIELDS = "id, code, path, label, sha256, time, json"
_UPDATE = (
    "UPDATE items SET id = ?, code = ?, path = ?, label = ?, sha256 = ?, time = ?, json = ?, "
    "crc = ? WHERE id = ?"
)


@dataclass
class Changes:
    """What a batch does to the database; a row of `after` is new where `before` has no such id.

    automatic: the ids that were given to items without one. ids: those of all items, None for
    copies that were left out.
    """

    before: dict[int, Row] = field(default_factory=dict)
    after: dict[int, Row] = field(default_factory=dict)
    automatic: list[int] = field(default_factory=list)
    ids: list[int | None] = field(default_factory=list)
    added: Added = field(default_factory=Added)

    def new(self) -> list[int]:
        """Return the ids of rows that were not there."""
        return [number for number in self.after if number not in self.before]

    def recoded(self) -> list[int]:
        """Return the ids of rows that were there with another code."""
        return [
            number
            for number, row in self.after.items()
            if number in self.before and self.before[number][1] != row[1]
        ]


def plan(connection: sqlite3.Connection, items: Sequence[Item], given: IdSet) -> Changes:
    """Find out what adding these checked items changes.

    An item is the one of its id; else of its path; else of its content (sha256), which then stays
    as it is. given: ids that items of the same call give, which no other gets. Raises
    IndexStoreError where a path would belong to two items, or no id is left.
    """
    changes, time, next_id = Changes(), now(), first_free(connection)
    own = {item.id for item in items if item.id is not None}
    by_id = {row[0]: row for row in rows_by(connection, "id", own)}
    paths = {item.path for item in items if item.path is not None}
    by_path = {row[2]: row for row in rows_by(connection, "path", paths)}
    contents = {item.sha256 for item in items if item.sha256 and item.id is None}
    holders: dict[object, set[int]] = {}  # content -> ids
    for row in rows_by(connection, "sha256", contents):
        holders.setdefault(row[4], set()).add(row[0])
    for rows in (by_id, by_path):
        changes.before.update({row[0]: row for row in rows.values()})
    taken = {number: path for path, (number, *_) in by_path.items()}
    for item in items:
        found = by_path.get(item.path) if item.id is None else by_id.get(item.id)
        if found is None and item.sha256 and item.id is None and holders.get(item.sha256):
            changes.added.known += 1
            changes.added.copies += 1
            changes.ids.append(None)
            continue
        if found is not None:
            number = found[0]
        elif item.id is not None:
            number = item.id
        else:
            number = next(automatic(next_id, given))
            changes.automatic.append(number)
        next_id = max(next_id, number + 1)
        owner = by_path.get(item.path) if item.path is not None else None
        if owner is not None and owner[0] != number:
            raise IndexStoreError(
                f"{name_of(item)} is the path of item {owner[0]}, so item {number} cannot have it; "
                "remove that item first"
            )
        row = _row(item, number, found, time)
        changes.ids.append(number)
        if row == found:
            changes.added.known += 1
            continue
        changes.added.changed += found is not None
        changes.added.new += found is None
        changes.after[number] = by_id[number] = row
        if (old := taken.pop(number, None)) is not None:
            by_path.pop(old, None)
        if row[2] is not None:
            by_path[row[2]], taken[number] = row, row[2]
        if found is not None and found[4] in holders:
            holders[found[4]].discard(number)
        if row[4] is not None:
            holders.setdefault(row[4], set()).add(number)
    return changes


def _row(item: Item, number: int, found: Row | None, time: str) -> Row:
    path = item.path
    if path is None and found is not None:
        path = found[2]
    content = item.sha256 or None
    given = utc(item.time) if item.time else None
    if found is not None and given is None:
        same = (number, item.code, path, item.label, content, found[5], item.json)
        if same == found:
            return found
    return (number, item.code, path, item.label, content, given or time, item.json)


def write(connection: sqlite3.Connection, changes: Changes) -> None:
    """Write rows; which derived files hold their codes is not touched."""
    old = [row for number, row in changes.after.items() if number in changes.before]
    fresh = [row for number, row in changes.after.items() if number not in changes.before]
    if old:  # paths may wander between items: first free them all
        for number in (row[0] for row in old):
            connection.execute("UPDATE items SET path = NULL WHERE id = ?", (number,))
        connection.executemany(_UPDATE, ((*row, row_checksum(row), row[0]) for row in old))
    _insert(connection, f"{_FIELDS}, crc", [(*row, row_checksum(row)) for row in fresh])


def rows_by(connection: sqlite3.Connection, column: str, keys: Iterable[object]) -> Iterator[Row]:
    """Yield the rows whose `column` (a name of ours) is among the keys."""
    yield from _selected(connection, _FIELDS, column, keys)


def _selected(
    connection: sqlite3.Connection, fields: str, column: str, keys: Iterable[object]
) -> Iterator[Any]:
    wanted = list(keys)
    for start in range(0, len(wanted), _KEYS_AT_ONCE):
        part = wanted[start : start + _KEYS_AT_ONCE]
        marks = ", ".join("?" * len(part))
        yield from connection.execute(
            f"SELECT {fields} FROM items WHERE {column} IN ({marks})", part
        )


def rows_after(connection: sqlite3.Connection, folder: Path, number: int, most: int) -> list[Row]:
    """Return up to `most` rows with ids above `number`, ascending, each checked."""
    found = connection.execute(
        f"SELECT {_FIELDS}, crc FROM items WHERE id > ? ORDER BY id LIMIT ?", (number, most)
    )
    return [_checked(row, folder) for row in found]


def checked_rows(
    connection: sqlite3.Connection, folder: Path, column: str, keys: Iterable[object]
) -> Iterator[Row]:
    """Yield the rows whose `column` is among the keys. Raises IndexStoreError for damaged ones."""
    for row in _selected(connection, f"{_FIELDS}, crc", column, keys):
        yield _checked(row, folder)


def _checked(row: tuple[Any, ...], folder: Path) -> Row:
    *values, crc = row
    found: Any = tuple(values)
    whole = type(found[0]) is int and isinstance(found[1], bytes)  # an id comes from an index
    if not whole or crc != row_checksum(found):
        raise damaged(folder, f"item {found[0]} is not what was added (CRC)")
    checked: Row = found
    return checked


def possible(numbers: Iterable[int]) -> list[int]:
    """Return those of the numbers that may be an id, which SQLite can be asked for."""
    return [number for number in numbers if 0 <= number <= MAX_ID]


def first_free(connection: sqlite3.Connection) -> int:
    """Return the id after the last one that was ever given."""
    return int(connection.execute("SELECT last_id FROM state").fetchone()[0]) + 1


def insert_codes(connection: sqlite3.Connection, codes: UInt8Array, first: int) -> None:
    """Insert codes (N, bytes) as items without path, with ids from `first` on."""
    time, whole, width = now(), codes.tobytes(), codes.shape[1]
    each = (whole[start : start + width] for start in range(0, len(whole), width))
    shared = text_of(None, None, None, time, None)
    rows = [
        (number, code, time, checksum(code_checksum(number, code), text_checksum(number, shared)))
        for number, code in enumerate(each, start=first)
    ]
    _insert(connection, "id, code, time, crc", rows)


def _insert(
    connection: sqlite3.Connection, columns: str, rows: Sequence[tuple[object, ...]]
) -> None:
    """Insert rows, many in a statement: a fifth faster than one by one, more with long rows."""
    one = f"({', '.join('?' * len(columns.split(',')))})"
    into = f"INSERT INTO items ({columns}) VALUES "
    together = into + ", ".join([one] * _ROWS_AT_ONCE)
    many = len(rows) - len(rows) % _ROWS_AT_ONCE
    for start in range(0, many, _ROWS_AT_ONCE):
        part = rows[start : start + _ROWS_AT_ONCE]
        connection.execute(together, list(itertools.chain.from_iterable(part)))
    connection.executemany(into + one, rows[many:])
