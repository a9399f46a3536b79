"""A strict reading of CSV, written from RFC 4180 alone, to hold the product's to."""

from __future__ import annotations

DELIMITERS = (",", "\t", ";")


class NotCsvError(ValueError):
    """A text that is no CSV, or one that may be read in two ways."""


def records(text: str, delimiter: str) -> list[list[str]]:
    """Return the cells of each line that is not empty. Raises NotCsvError.

    A quote begins a cell or belongs to an unquoted one; what follows the closing quote is a
    delimiter or the end of the line; no cell holds a line break or NUL.
    """
    found: list[list[str]] = []
    for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        if "\0" in line:
            raise NotCsvError("NUL")
        if line:
            found.append(_cells(line, delimiter))
    return found


def _cells(line: str, delimiter: str) -> list[str]:
    cells, rest = [], line
    while True:
        if rest.startswith('"'):
            cell, rest = _quoted(rest[1:])
            if rest and not rest.startswith(delimiter):
                raise NotCsvError("text behind a closing quote")
        else:
            cell, mark, tail = rest.partition(delimiter)
            rest = mark + tail
        cells.append(cell)
        if not rest:
            return cells
        rest = rest[1:]


def _quoted(rest: str) -> tuple[str, str]:
    cell = ""
    while True:
        part, mark, rest = rest.partition('"')
        if not mark:
            raise NotCsvError("a quote that is not closed on its line")
        cell += part
        if not rest.startswith('"'):
            return cell, rest
        cell, rest = cell + '"', rest[1:]


def rows(content: bytes) -> list[dict[str, str]]:
    """Return the rows below the header by the names of the columns. Raises NotCsvError."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise NotCsvError(str(error)) from None
    readings = []
    for delimiter in DELIMITERS:
        try:
            found = records(text, delimiter)
        except NotCsvError:
            continue
        header = [name.strip().lower() for name in found[0]] if found else []
        if header.count("path") == header.count("class") == 1 and header.count("split") < 2:
            readings.append((header, found[1:]))
    if len(readings) != 1:
        raise NotCsvError(f"{len(readings)} ways to read it")
    header, body = readings[0]
    body = [row for row in body if any(cell.strip() for cell in row)]
    if any(len(row) != len(header) for row in body):
        raise NotCsvError("ragged")
    return [dict(zip(header, row, strict=True)) for row in body]
