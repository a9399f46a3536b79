"""Photo lists in text files: CSV, also with tabs or semicolons, read strictly, line by line.

A row is one line. A cell with the separator or a double quote in it stands in double quotes, the
quote doubled (RFC 4180). What is not so is refused with its line, as guesses lose rows.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fgdeploy.core.errors import DataError
from fgdeploy.photos.pixels import Reading

SUFFIXES = frozenset({".csv", ".tsv"})
_SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons"}
_CELL = r'(?:"(?:[^"]|"")*"|[^"{0}]*)'
_ROWS = {one: re.compile(f"{_CELL}(?:{{0}}{_CELL})*".format(one)) for one in _SEPARATORS}
_SHOWN = 60  # characters of a cell in a message


@dataclass(frozen=True)
class Columns:
    """What photos are called in a list, and how they are meant: what a list cannot say itself.

    path, label, split: header names; case does not count. None: `split` where there is one.
    bit_depth: bits that count in 16-bit photos, of a folder too; None: see `Reading`.
    """

    path: str = "path"
    label: str = "class"
    split: str | None = None
    bit_depth: int | None = None

    def __post_init__(self) -> None:
        Reading(bit_depth=self.bit_depth)  # refuses a depth that there is not


AS_NAMED = Columns()


@dataclass(frozen=True)
class Row:
    """One row of a list, and its line."""

    line: int
    path: str
    label: str | None
    split: str | None


def read_rows(source: Path, columns: Columns = AS_NAMED) -> list[Row]:
    """Return the rows of a list that are not blank. Raises DataError with the line number."""
    lines = _lines(source)
    header = next(lines, (1, ""))[1]
    separator, names = _header(source, header, columns)
    at_path, at_label = (names.index(_key(name)) for name in (columns.path, columns.label))
    split = _key(columns.split or "split")
    at_split = names.index(split) if split in names else None
    rows = []
    for number, cells in _body(source, lines, separator, len(names)):
        of_split = None if at_split is None else cells[at_split].strip().lower() or None
        rows.append(Row(number, cells[at_path], cells[at_label].strip() or None, of_split))
    return rows


def read_named(
    source: Path, choices: Sequence[Sequence[str]]
) -> tuple[tuple[str, ...], list[tuple[int, dict[str, str]]]]:
    """Return which of some sets of columns a list has, and its rows: line and cells by name.

    Other columns are among the cells. Raises DataError, for a header that fits none too.
    """
    lines = _lines(source)
    header = next(lines, (1, ""))[1]
    names = {one: list(map(_key, _cells(header, one) or ())) for one in _SEPARATORS}
    fitting = [(one, set_) for one in names for set_ in choices if set(set_) <= set(names[one])]
    if len(fitting) != 1:
        wanted = " or ".join(",".join(set_) for set_ in choices)
        raise DataError(
            f"{source}: expected a header with the columns {wanted}, got "
            f"{shown(header)[1:-1].strip() or 'an empty first line'}"
        )
    separator, chosen = fitting[0]
    known = names[separator]
    if twice := [name for name, count in Counter(known).items() if name and count > 1]:
        raise DataError(f"{source}: two columns are named {shown(twice[0])}; rename one of them")
    body = _body(source, lines, separator, len(known))
    return tuple(chosen), [(line, dict(zip(known, cells, strict=True))) for line, cells in body]


def _body(
    source: Path, lines: Iterator[tuple[int, str]], separator: str, columns: int
) -> Iterator[tuple[int, list[str]]]:
    """Yield the line and the cells of each row that is not blank."""
    for number, line in lines:
        cells = _cells(line, separator)
        if cells is None:
            raise DataError(
                f"{source} line {number}: a double quote stands alone or a cell holds a line "
                f"break, got {shown(line)}; put the cell in double quotes and double each inside"
            )
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != columns:
            raise DataError(
                f"{source} line {number}: expected {columns} columns, got {len(cells)}; "
                f"put names that hold {_SEPARATORS[separator]} in double quotes"
            )
        yield number, cells


def lists_photos(source: Path, columns: Columns = AS_NAMED) -> bool:
    """Tell whether a file's header is that of a list of photos."""
    with open(source, encoding="utf-8-sig", errors="replace") as stream:
        line = stream.readline(_LONGEST_HEADER)
    return len(_fitting(line.rstrip("\r\n"), columns)) == 1


_LONGEST_HEADER = 10_000  # characters


def shown(text: str) -> str:
    """Return a text for a message, cut to a length that can be read."""
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")


def _lines(source: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a text file without their ends, numbered from 1."""
    number = 0
    try:
        with open(source, newline="", encoding="utf-8-sig") as stream:
            for number, line in enumerate(stream, start=1):
                if "\0" in line:
                    raise DataError(f"{source} line {number}: holds a NUL character; remove it")
                yield number, line.rstrip("\r\n")
    except FileNotFoundError:
        raise DataError(f"no CSV at {source}; check the path") from None
    except OSError as error:
        raise DataError(f"{source} cannot be read ({error.strerror}); check the path") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{source} is not a UTF-8 CSV: {error}; save it as UTF-8") from None


def _cells(line: str, separator: str) -> list[str] | None:
    """Return the cells of a line, None where its quotes are not in order."""
    if '"' not in line:
        return line.split(separator)
    if not _ROWS[separator].fullmatch(line):
        return None
    try:
        return next(csv.reader([line], delimiter=separator, strict=True))
    except csv.Error:  # a cell beyond the limit of the csv module
        return None


def _key(name: str) -> str:
    return name.strip().lower()


def _fitting(header: str, columns: Columns) -> dict[str, list[str]]:
    """Return the names in a header by each separator with which the wanted ones are among them."""
    wanted = {_key(name) for name in (columns.path, columns.label, columns.split) if name}
    names = {one: list(map(_key, _cells(header, one) or ())) for one in _SEPARATORS}
    return {one: found for one, found in names.items() if wanted <= set(found)}


def _header(source: Path, header: str, columns: Columns) -> tuple[str, list[str]]:
    """Return the separator and the names of the columns."""
    fitting = _fitting(header, columns)
    if len(fitting) > 1:
        raise DataError(
            f"{source}: the header {shown(header)} can be read with "
            f"{' and with '.join(_SEPARATORS[one] for one in fitting)}; keep to one of them"
        )
    if not fitting:
        wanted = f"{columns.path},{columns.label}"
        wanted += f",{columns.split}" if columns.split else "[,split]"
        raise DataError(
            f"{source}: expected a header with the columns {wanted}, got "
            f"{shown(header)[1:-1].strip() or 'an empty first line'}; name others with "
            "--path-column, --label-column and --split-column"
        )
    separator, names = next(iter(fitting.items()))
    if twice := [name for name, count in Counter(names).items() if name and count > 1]:
        raise DataError(f"{source}: two columns are named {shown(twice[0])}; rename one of them")
    return separator, names
