"""SQLite's errors in the user's words."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from fgdeploy.core import machine
from fgdeploy.core.errors import IndexStoreError

# SQLite's own phrases (sqlite3ErrStr), at the start of a message -> what to say.
_PHRASES = {
    "database is locked": "another process is writing to it; wait for it to finish",
    "database table is locked": "another process is writing to it; wait for it to finish",
    "database or disk is full": "the disk is full; nothing was lost, free some space and try again",
    "attempt to write a readonly database": (
        "it cannot be written (read-only or no permission); check its rights"
    ),
    "unable to open database file": (
        "it cannot be opened (no permission, or its folder is read-only); check its rights"
    ),
    "disk I/O error": "the disk gave an error; check it, and: fgdeploy index verify",
    "no such table": "this database is not a gallery index; build the index under another name",
    "no such column": "this database is not a gallery index; build the index under another name",
}


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into IndexStoreError: what happened to the index at `path`."""
    try:
        yield
    except (sqlite3.ProgrammingError, sqlite3.InterfaceError, sqlite3.IntegrityError) as error:
        raise IndexStoreError(
            f"{path}: {_line(error)}; open the index anew, once in each thread"
        ) from error
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        text = _line(error)
        if (limit := machine.file_limit()) and text.startswith(("disk I/O", "database or disk")):
            raise IndexStoreError(
                f"{path}: a file cannot be written; the system limits files to {limit:,} bytes, "
                "raise that (ulimit -f); nothing was lost"
            ) from error
        for phrase, reason in _PHRASES.items():
            if text.startswith(phrase):
                raise IndexStoreError(f"{path}: {reason}") from error
        if text.startswith("near "):  # a statement of ours, not the user's file
            raise IndexStoreError(f"{path}: {text}") from error
        raise damaged(path, text) from error
    except UnicodeEncodeError as error:
        raise IndexStoreError(
            f"{path}: the name {error.object!r} is not UTF-8; rename the file or folder"
        ) from error
    except PermissionError as error:
        raise IndexStoreError(
            f"{path}: it cannot be read (no permission); check its rights"
        ) from error


def damaged(path: Path, what: str) -> IndexStoreError:
    """Return the error for an index whose content cannot be right."""
    return IndexStoreError(f"{path} is damaged ({what}); restore a copy, or build the index again")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
