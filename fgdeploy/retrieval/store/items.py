"""What a gallery holds: items, and what is checked before one goes in."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone

import numpy as np

from fgdeploy.core.codes import UInt8Array, code_bytes
from fgdeploy.core.errors import IndexStoreError, UsageError
from fgdeploy.core.text import shorten, shown
from fgdeploy.retrieval.store.checksums import checksum, code_checksum, text_checksum, text_of
from fgdeploy.retrieval.store.ids import id_of

# id, code, path, label, sha256, time, json: as the database has them, without the checksum
Row = tuple[int, bytes, "str | None", "str | None", "str | None", str, "str | None"]

_PATH = 300  # characters of a path in a message


@dataclass(frozen=True)
class Item:
    """A photo in the gallery.

    path: a path or URI, or None. code: packed bytes. sha256: of the photo's bytes, or "". id: from
    0 to 2**62, given by the index where it is None. time: ISO 8601, kept as UTC; the time of adding
    where it is "". json: any JSON text of the user's.
    """

    path: str | None
    code: bytes
    label: str | None = None
    sha256: str = ""
    id: int | None = None
    time: str = ""
    json: str | None = None


@dataclass(frozen=True)
class Hit:
    """One answer to a query. rank counts from 1; distance is the number of unequal bits.

    cost: the asymmetric distance, where answers were re-ranked by it. source: the index that holds
    it, where several are searched as one.
    """

    rank: int
    distance: int
    id: int
    path: str | None
    label: str | None
    cost: float | None = None
    source: str | None = None


@dataclass
class Added:
    """What became of items that were added. known: there already, unchanged.

    copies: those of `known` whose content is there in another item.
    """

    new: int = 0
    changed: int = 0
    known: int = 0
    copies: int = field(default=0, compare=False)

    @property
    def total(self) -> int:
        """How many items were given."""
        return self.new + self.changed + self.known

    def __iadd__(self, more: Added) -> Added:
        self.new += more.new
        self.changed += more.changed
        self.known += more.known
        self.copies += more.copies
        return self


def item_of(row: Row) -> Item:
    """Return the item that a row of the database holds."""
    number, code, path, label, sha256, time, text = row
    return Item(path, code, label, sha256 or "", number, time, text)


def row_checksum(row: Row) -> int:
    """Return the checksum that belongs beside a row."""
    number, code, *text = row
    return checksum(code_checksum(number, code), text_checksum(number, text_of(*text)))


def now() -> str:
    """Return the time in the form that items carry."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def utc(text: str) -> str:
    """Return an ISO 8601 time as UTC, without a zone taken for UTC. Raises UsageError."""
    try:
        given = datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith("Z") else text)
        if given.tzinfo is None:
            given = given.replace(tzinfo=timezone.utc)
        return given.astimezone(timezone.utc).isoformat()
    except (ValueError, OverflowError):
        raise UsageError(
            f"{shown(repr(text))} is not a time; expected ISO 8601, "
            "such as 2026-01-31T12:00:00+00:00"
        ) from None


class Checker:
    """Checks items before they go in. Raises IndexStoreError, or UsageError for what is no item."""

    def __init__(self, bits: int) -> None:
        self.width = code_bytes(bits)
        self._bits, self._spare = bits, (1 << (-bits % 8)) - 1

    def check(self, item: Item) -> Item:
        """Check one item, and return it with Python's own numbers and text in place of NumPy's."""
        if not isinstance(item, Item):
            raise UsageError(f"expected an Item, got {shown(item)}; see fgdeploy.retrieval.Item")
        code = item.code
        if not isinstance(code, bytes):
            raise UsageError(
                f"{name_of(item)}: expected a code in bytes, got {type(code).__name__}; "
                "a row of an array gives them by .tobytes()"
            )
        if len(code) != self.width:
            raise IndexStoreError(
                f"{name_of(item)}: expected a code of {self.width} bytes, got {len(code)}; "
                "hash it with the bundle that built the index"
            )
        if self._spare and code[-1] & self._spare:
            raise IndexStoreError(
                f"{name_of(item)}: its code has bits set behind bit {self._bits}; "
                "pack it with fgdeploy.core.codes.pack"
            )
        for what in ("path", "label", "sha256", "time", "json"):
            value = getattr(item, what)
            if value is not None and not isinstance(value, str):
                raise UsageError(
                    f"{name_of(item)}: expected a {what} in text, got {type(value).__name__}"
                )
            if value is not None and type(value) is not str:  # np.str_, an enum
                item = replace(item, **{what: str.__str__(value)})  # type: ignore[arg-type]
        if item.id is not None and type(item.id) is not int:
            item = replace(item, id=id_of(item.id))
        elif item.id is not None:
            id_of(item.id)
        if item.json is not None:
            _check_json(item)
        return item

    def check_array(self, codes: UInt8Array) -> None:
        """Check packed codes (N, bytes)."""
        if codes.shape[1] != self.width:
            raise IndexStoreError(
                f"expected codes of {self.width} bytes, got {codes.shape[1]}; "
                "hash them with the bundle that built the index"
            )
        if self._spare and np.any(codes[:, -1] & np.uint8(self._spare)):
            raise IndexStoreError(
                f"codes have bits set behind bit {self._bits}; pack them with "
                "fgdeploy.core.codes.pack"
            )


def name_of(item: Item) -> str:
    """Return what to call an item in a message."""
    if item.path is not None:
        return shorten(str(item.path), _PATH)
    return "item without id" if item.id is None else f"item {shown(item.id)}"


def _check_json(item: Item) -> None:
    try:
        json.loads(item.json or "", parse_constant=_no_number)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"{name_of(item)}: json is not JSON ({error}); use json.dumps") from None


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")  # SQLite would not read the item's JSON
