"""Read the list files that come with a dataset: text tables, JSON and MATLAB structs.

What is wrong in one of them raises a DataError that names the file and the line or entry.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fgdeploy.core.errors import DataError, MissingDependency

AGAIN = "unpack the official archive again"


class Files:
    """The files below a folder.

    Each directory is listed once, on first use, which is faster than to ask for 600,000 files.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._listed: dict[str, frozenset[str]] = {}

    def locate(self, name: str, where: str) -> Path:
        """Return the path of the file `name`, relative to the folder, with slashes.

        `where` says who names it. Raises DataError if it is not there or leads out of the folder.
        """
        folder, _, file = name.rpartition("/")
        if name.startswith("/") or "\\" in name or ".." in name.split("/"):
            raise DataError(f"{where}: {name!r} leads out of {self._root}; {AGAIN}")
        if folder not in self._listed:
            self._listed[folder] = _names_of_files(self._root / folder)
        if file not in self._listed[folder]:
            raise DataError(f"{where}: no file {name!r} in {self._root}; {AGAIN}")
        return self._root / name


def _names_of_files(folder: Path) -> frozenset[str]:
    try:
        with os.scandir(folder) as entries:
            return frozenset(
                entry.name
                for entry in entries
                # isfile, as entry.is_file() raises for a link that leads to itself
                if (os.path.isfile(entry) if entry.is_symlink() else entry.is_file())
            )
    except (OSError, ValueError):  # no such folder, or a name that no folder can have
        return frozenset()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); {AGAIN}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error}; {AGAIN}") from None


def lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield where it stands and the text of each line that is not blank. Raises DataError."""
    # split, as splitlines would also break at characters that editors do not count as lines
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if line.strip():
            yield f"{path} line {number}", line.strip()


def rows(path: Path, columns: str, last: bool = False) -> Iterator[tuple[str, str, str]]:
    """Yield where it stands and the two columns of each line. Raises DataError.

    The columns are parted by the first blank, or by the last one if the first column may hold
    blanks. `columns` says for the message what they are.
    """
    for where, line in lines(path):
        cells = line.rsplit(maxsplit=1) if last else line.split(maxsplit=1)
        if len(cells) != 2:
            raise DataError(f"{where}: expected {columns}, got {line!r}; {AGAIN}")
        yield where, cells[0], cells[1]


def table(path: Path, columns: str) -> dict[str, tuple[str, str]]:
    """Map the first column of a list to where it stands and the second. Raises DataError."""
    found: dict[str, tuple[str, str]] = {}
    for where, key, value in rows(path, columns):
        if key in found:
            raise DataError(f"{where}: {key!r} is listed twice; {AGAIN}")
        found[key] = where, value
    return found


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file. Raises DataError."""
    try:
        content = json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}; {AGAIN}") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a JSON object, got {type(content).__name__}; {AGAIN}")
    return content


def records(
    path: Path, content: dict[str, Any], key: str, fields: Mapping[str, type]
) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Yield where it stands and the `fields` of each object in the list `key`. Raises DataError."""
    listed = content.get(key)
    if not isinstance(listed, list):
        raise DataError(f"{path}: expected a list {key!r}, got {type(listed).__name__}; {AGAIN}")
    for number, record in enumerate(listed):
        where = f"{path} {key}[{number}]"
        if not isinstance(record, dict) or any(
            type(record.get(name)) is not kind for name, kind in fields.items()
        ):
            expected = ", ".join(f"{name} ({kind.__name__})" for name, kind in fields.items())
            raise DataError(f"{where}: expected {expected}, got {str(record)[:80]!r}; {AGAIN}")
        yield where, tuple(record[name] for name in fields)


def read_mat(path: Path) -> dict[str, Any]:
    """Return the variables of a MATLAB file (version 5 to 7); reading it runs none of its content.

    Raises DataError, and MissingDependency without SciPy.
    """
    try:
        from scipy.io import loadmat
    except ImportError:
        raise MissingDependency("scipy", "train", "reading Stanford Cars") from None
    try:
        content: dict[str, Any] = loadmat(str(path), appendmat=False)
    except (
        Exception
    ) as error:  # a damaged file makes the reader raise anything, zlib.error included
        reason = " ".join(str(error).split())
        raise DataError(f"{path} cannot be read as a MATLAB file: {reason}; {AGAIN}") from None
    return content


def structs(
    path: Path, content: dict[str, Any], key: str, fields: Mapping[str, type]
) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Yield where it stands and the `fields` of each struct in the array `key`. Raises DataError.

    Entries count from 1, as in MATLAB.
    """
    array = content.get(key)
    known = getattr(getattr(array, "dtype", None), "names", None) or ()
    if missing := [name for name in fields if name not in known]:
        raise DataError(f"{path}: expected structs {key!r} with {', '.join(missing)}; {AGAIN}")
    for number, struct in enumerate(array.ravel() if array is not None else (), start=1):
        where = f"{path} {key}({number})"
        yield (
            where,
            tuple(_one(struct[name], kind, f"{where}.{name}") for name, kind in fields.items()),
        )


def strings(path: Path, content: dict[str, Any], key: str) -> list[str]:
    """Return the strings of the cell array `key`. Raises DataError."""
    cells = content.get(key)
    if cells is None:
        raise DataError(f"{path}: expected the strings {key!r}; {AGAIN}")
    return [
        _one(cell, str, f"{path} {key}({number})")
        for number, cell in enumerate(cells.ravel(), start=1)
    ]


def _one(array: Any, kind: type, where: str) -> Any:
    value = array.item() if getattr(array, "size", 0) == 1 else None
    if type(value) is not kind:
        raise DataError(f"{where}: expected one {kind.__name__}, got {str(array)[:80]!r}; {AGAIN}")
    return value
