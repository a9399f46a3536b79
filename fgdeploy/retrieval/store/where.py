"""Filters on items in SQL: one reading expression, held to that by SQLite's authoriser.

An expression sees the columns id, path, label, time, sha256 and json and a list of harmless
functions. A statement, a second query, a comment or anything that writes is refused before it runs.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fgdeploy.core.errors import UsageError
from fgdeploy.core.text import shorten, shown

_STEPS = 10_000  # of SQLite between two looks at the clock
_SHOWN = 200  # characters of an expression in a message
COLUMNS = ("id", "path", "label", "time", "sha256", "json")
_FUNCTIONS = {
    *("abs", "coalesce", "glob", "ifnull", "iif", "instr", "length", "like", "lower", "ltrim"),
    *("max", "min", "nullif", "replace", "round", "rtrim", "substr", "trim", "upper"),
    *("date", "time", "datetime", "julianday", "strftime", "unixepoch"),
    *("json_array_length", "json_extract", "json_type", "->", "->>"),
}
_TOKEN = re.compile(
    r"""(?P<text>'(?:[^']|'')*')|(?P<name>"(?:[^"]|"")*"|`[^`]*`|\[[^\]]*\])"""
    r"""|(?P<comment>--|/\*)|(?P<mark>[;'"`])|(?P<bracket>[()])|(?P<query>\b(?:select|values)\b)""",
    re.IGNORECASE,
)
_NAMED = re.compile(r"[:@$]\w")
_CLOCK = re.compile(r"\b(date|time|datetime|julianday|strftime|unixepoch)\s*\(", re.IGNORECASE)

Params = Sequence[object] | Mapping[str, object]


@dataclass
class FilterLimit:
    """What an expression may cost. seconds: after so many it is given up, None for never."""

    seconds: float | None = None


def matching_ids(
    connection: sqlite3.Connection,
    where: str,
    params: Params = (),
    limit: FilterLimit | None = None,
) -> npt.NDArray[np.int64]:
    """Return the ids of the items for which `where` holds, ascending.

    params: values for `?` or `:name` in it. Raises UsageError for anything but one
    expression, or one that takes longer than the limit.
    """
    _check_form(where)
    params = plain(where, params)
    if not isinstance(params, Mapping) and _NAMED.search(_TOKEN.sub(" ", where)):
        raise refused(where, "its names need values by name, such as {'n': 1}")
    with _guarded(connection), _timed(connection, limit):
        try:
            # Not by SQLite's own index of paths, of which nothing has checked each entry.
            found = connection.execute(
                f"SELECT id FROM items NOT INDEXED WHERE ({where}\n)", params
            )
            ids = np.fromiter((row[0] for row in found), np.int64)
        except (sqlite3.Error, sqlite3.Warning, OverflowError, ValueError, TypeError) as error:
            if _is_damage(error):
                raise
            raise refused(where, _reason(error)) from error
    ids.sort()
    return ids


def plain(where: str, params: Params) -> Params:
    """Return the values of a filter as SQLite compares them: NumPy's numbers as Python's.

    Raises UsageError for what no column could equal, which would find nothing in silence.
    """
    if isinstance(params, Mapping):
        return {name: _value(where, value) for name, value in params.items()}
    if isinstance(params, (str, bytes)) or not isinstance(params, (Sequence, np.ndarray)):
        raise refused(where, f"expected its values in a list, got {shown(params)}")
    return [_value(where, value) for value in params]


def _value(where: str, value: object) -> object:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise refused(where, f"expected text, a number or None as a value, got {shown(value)}")


def reads_the_clock(where: str) -> bool:
    """Return whether an expression may hold for other items a moment later."""
    return _CLOCK.search(where) is not None


_HELP = f"columns are {', '.join(COLUMNS)}, such as: label = 'owl' and time > '2026-01-31'"


def refused(where: object, why: str) -> UsageError:
    """Return the error that says why an expression is no filter."""
    return UsageError(f"--where {shorten(repr(where), _SHOWN)}: {why}; {_HELP}")


def _check_form(where: str) -> None:
    """Refuse what is no single expression, whatever SQLite would make of it."""
    if not isinstance(where, str) or not where.strip():
        raise refused(where, "expected an expression")
    depth = 0
    for token in _TOKEN.finditer(where):
        kind, text = token.lastgroup, token.group()
        if kind in ("comment", "query") or (kind == "mark" and text == ";"):
            raise refused(where, f"{shown(repr(text))} is not allowed in it")
        if kind == "mark":
            raise refused(where, "a quote is not closed")
        # SQLite takes an unknown name in double quotes for text, which hides a misspelt column.
        if kind == "name" and text[1:-1].lower() not in COLUMNS:
            raise refused(where, f"no column {shown(text)}; text stands in single quotes")
        depth += {"(": 1, ")": -1}.get(text, 0)
        if depth < 0:
            break
    if depth != 0 or "\0" in where:
        raise refused(where, "its brackets do not match")


@contextlib.contextmanager
def _guarded(connection: sqlite3.Connection) -> Iterator[None]:
    """Allow a SELECT on the columns of `items`, and nothing else.

    SQLite asks about the one statement again where it prepares it anew for the value of a LIKE;
    that there is no second query in it the form has shown.
    """

    def authorise(action: int, one: str | None, two: str | None, *_: str | None) -> int:
        if action == sqlite3.SQLITE_SELECT:
            return sqlite3.SQLITE_OK
        # "" stands for the rows themselves, where no column but the id is read
        if action == sqlite3.SQLITE_READ and one == "items" and two in (*COLUMNS, "ROWID", ""):
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_FUNCTION and (two or "").lower() in _FUNCTIONS:
            return sqlite3.SQLITE_OK
        return sqlite3.SQLITE_DENY

    connection.set_authorizer(authorise)
    try:
        yield
    finally:
        # Python 3.10 knows no None here
        allow = None if sys.version_info >= (3, 11) else (lambda *_: sqlite3.SQLITE_OK)
        connection.set_authorizer(allow)


@contextlib.contextmanager
def _timed(connection: sqlite3.Connection, limit: FilterLimit | None) -> Iterator[None]:
    """Let SQLite give up after some seconds; it looks at the clock between steps, not in one."""
    if limit is None or limit.seconds is None:
        yield
        return
    end = time.monotonic() + limit.seconds
    connection.set_progress_handler(lambda: time.monotonic() > end, _STEPS)
    try:
        yield
    finally:
        connection.set_progress_handler(None, 0)


def _is_damage(error: Exception) -> bool:
    text = str(error)
    return isinstance(error, sqlite3.DatabaseError) and any(
        phrase in text
        for phrase in ("is malformed", "malformed database", "not a database", "disk I/O", "locked")
    )


def _reason(error: Exception) -> str:
    text = shorten(" ".join(str(error).split()), _SHOWN)
    if "not authorized" in text or "prohibited" in text:
        return "it may read columns and call plain functions, nothing else"
    if text == "interrupted":
        return "it takes too long here"
    return text
