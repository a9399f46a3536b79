"""The folder of an index: made whole under its name, or told apart from what else lies there."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from fgdeploy.core import atomic
from fgdeploy.core.codes import check_bits
from fgdeploy.core.errors import IndexStoreError, UsageError
from fgdeploy.core.numbers import as_whole
from fgdeploy.core.text import shown
from fgdeploy.retrieval.store import schema
from fgdeploy.retrieval.store.sqlite_errors import explained

DATABASE = "index.sqlite"
SUFFIX = ".fgi"
_MANIFEST = "manifest.json"  # what makes a folder a bundle


class Taken(IndexStoreError):
    """Something lies where an index was to be made, or did a moment ago."""


def folder_of(path: object) -> Path:
    """Return the path of an index. Raises UsageError for what is no path."""
    if not isinstance(path, (str, os.PathLike)) or isinstance(os.fspath(path), bytes):
        raise UsageError(f"expected the path of an index, NAME{SUFFIX}, got {shown(path)}")
    return Path(path)


def make(folder: Path, fingerprint: str, bits: int) -> None:
    """Make an empty index. Raises Taken if something is there, IndexStoreError or UsageError."""
    if folder.suffix != SUFFIX:
        raise UsageError(f"{folder}: an index's name ends in {SUFFIX}")
    if not isinstance(fingerprint, str) or not fingerprint:
        raise UsageError(f"expected the fingerprint of a model in text, got {shown(fingerprint)}")
    width = as_whole(bits)
    if width is None:
        raise UsageError(f"expected a whole number of bits, got {shown(bits)}")
    check_bits(width)
    taken = Taken(f"{folder} is there already; open it, or choose another name")
    if os.path.lexists(folder):
        raise taken
    if not folder.parent.is_dir():
        raise IndexStoreError(
            f"no folder {folder.parent} to write {folder.name} into; create it first"
        )
    try:
        with atomic.new_folder(folder) as fresh, explained(folder):
            connection = sqlite3.connect(fresh / DATABASE)
            try:
                schema.create(connection, fingerprint, width)
            finally:
                connection.close()
    except (FileExistsError, NotADirectoryError):  # another process was faster
        raise taken from None


def no_index(folder: Path) -> IndexStoreError:
    """Return the error for a path where no index lies, which says what does."""
    if not os.path.lexists(folder):
        return IndexStoreError(
            f"no index at {folder}; make one with: fgdeploy index add {folder} PHOTOS"
        )
    if (folder / _MANIFEST).is_file():
        what = f"it is a bundle; an index is a folder NAME{SUFFIX}"
    elif folder.is_dir():
        what = f"it is a folder without {DATABASE}; name another, or remove it first"
    else:
        kind = "a link to nothing" if folder.is_symlink() and not folder.exists() else "a file"
        what = f"it is {kind}; an index is a folder NAME{SUFFIX}"
    return IndexStoreError(f"no index at {folder}: {what}")
