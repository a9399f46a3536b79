"""A segment: codes and ids of many items in one immutable file, mapped into memory.

Derived from the database and never trusted: the header, its sizes and every block carry CRCs, and
the database holds the header's. Layout, little-endian:

    0       header (68 bytes): magic, width, rows, number, first id, whether ids are consecutive,
            CRC-32 of the table, the index's uid, CRC-32 of the header
    4096    codes (rows, width)
    …       ids int64 (rows,), left out where they are first, first + 1, …
    …       table: CRC-32 of each block of 131,072 codes, then of each block of ids
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fgdeploy.core import atomic
from fgdeploy.core.codes import UInt8Array
from fgdeploy.core.text import counted

BLOCK_ROWS = 1 << 17
_HEADER = struct.Struct("<8sIIQQqIi16s")
_MAGIC = b"FGDSEG1\0"
_CODES_AT = 4096

Ids = npt.NDArray[np.int64]


class SegmentError(Exception):
    """A derived file that is missing, cut off or changed; the database can make it again."""


@dataclass(frozen=True)
class Header:
    """What a segment says of itself. consecutive: its ids are first_id, first_id + 1, …"""

    width: int
    rows: int
    number: int
    first_id: int
    consecutive: bool
    uid: bytes

    def pack(self, table: bytes) -> bytes:
        """Return the header's bytes, with the CRC of the table and its own."""
        body = _HEADER.pack(
            *(_MAGIC, self.width, int(self.consecutive), self.rows, self.number, self.first_id),
            *(zlib.crc32(table), 0, self.uid),
        )
        return body + struct.pack("<I", zlib.crc32(body))

    @property
    def ids_at(self) -> int:
        """Where the ids begin."""
        return -(-(_CODES_AT + self.rows * self.width) // 64) * 64

    @property
    def table_at(self) -> int:
        """Where the table begins."""
        return self.ids_at + (0 if self.consecutive else 8 * self.rows)

    @property
    def blocks(self) -> int:
        """How many blocks of rows there are."""
        return -(-self.rows // BLOCK_ROWS)

    @property
    def size(self) -> int:
        """The size of the file in bytes."""
        return self.table_at + 4 * self.blocks * (1 if self.consecutive else 2)


def path_of(folder: Path, number: int) -> Path:
    """Return the file of a segment."""
    return folder / f"segment-{number}.codes"


def write(folder: Path, header: Header, blocks: Iterable[tuple[Ids, UInt8Array]]) -> int:
    """Write a segment from blocks of BLOCK_ROWS rows, the last one shorter; ids ascending.

    Returns the header's CRC, for the database. Raises OSError.
    """
    codes_crc: list[int] = []
    ids_crc: list[int] = []
    with atomic.new_file(path_of(folder, header.number)) as stream:
        row = 0
        for ids, codes in blocks:
            data = np.ascontiguousarray(codes).tobytes()
            stream.seek(_CODES_AT + row * header.width)
            stream.write(data)
            codes_crc.append(zlib.crc32(data))
            if not header.consecutive:
                data = ids.astype("<i8").tobytes()
                stream.seek(header.ids_at + 8 * row)
                stream.write(data)
                ids_crc.append(zlib.crc32(data))
            row += len(ids)
        if row != header.rows:
            raise ValueError(f"a segment of {counted(header.rows, 'row')} was given {row}")
        table = np.array([*codes_crc, *ids_crc], "<u4").tobytes()
        stream.seek(header.table_at)
        stream.write(table)
        stream.truncate(header.size)
        packed = header.pack(table)
        stream.seek(0)
        stream.write(packed)
    return _crc_of(packed)


class Segment:
    """A segment that was opened: codes uint8 (rows, width), mapped; ids ascending."""

    def __init__(self, folder: Path, number: int, crc: int, width: int, uid: bytes) -> None:
        """Map the file and check its header. Raises SegmentError."""
        self.path = path_of(folder, number)
        try:
            with open(self.path, "rb") as stream:
                packed = stream.read(_HEADER.size + 4)
                size = os.fstat(stream.fileno()).st_size
                if len(packed) < _HEADER.size + 4 or _crc_of(packed) != crc:
                    raise SegmentError(f"{self.path.name}: its header is not the one written")
                self.header, self._table_crc = _unpack(packed)
                if self.header.size != size or (self.header.width, self.header.uid) != (width, uid):
                    raise SegmentError(
                        f"{self.path.name}: expected {self.header.size} bytes, got {size}"
                    )
                self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError:
            raise SegmentError(f"{self.path.name} is missing") from None
        except (OSError, ValueError) as error:
            raise SegmentError(f"{self.path.name} cannot be read ({error})") from error
        shape = (self.header.rows, width)
        self.codes: UInt8Array = np.frombuffer(
            self._map, np.uint8, self.header.rows * width, _CODES_AT
        ).reshape(shape)
        self._ids: Ids | None = None
        if not self.header.consecutive:
            self._ids = np.frombuffer(self._map, "<i8", self.header.rows, self.header.ids_at)

    def __len__(self) -> int:
        return self.header.rows

    def ids(self, rows: Ids | slice) -> Ids:
        """Return the ids of some rows."""
        if self._ids is not None:
            return self._ids[rows]
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            return np.arange(start, stop, step) + self.header.first_id
        return rows + self.header.first_id

    def rows_of(self, ids: Ids) -> Ids:
        """Return the rows of those of the ids that are here."""
        if self._ids is None:
            rows = ids - self.header.first_id
            return rows[(rows >= 0) & (rows < len(self))]
        rows = np.searchsorted(self._ids, ids)
        inside = rows < len(self)
        rows, ids = rows[inside], ids[inside]
        found: Ids = rows[self._ids[rows] == ids]
        return found

    def span(self, first: int, last: int) -> tuple[int, int]:
        """Return the rows, from and up to, whose ids lie between two."""
        if self._ids is not None:
            start, end = np.searchsorted(self._ids, (first, last + 1))
            return int(start), int(end)
        start, end = (number - self.header.first_id for number in (first, last + 1))
        return min(max(start, 0), len(self)), min(max(end, 0), len(self))

    def check(self, threads: int = 1) -> None:
        """Compare every block with its CRC. Raises SegmentError."""
        header = self.header
        table = bytes(self._map[header.table_at : header.size])
        if zlib.crc32(table) != self._table_crc:
            raise SegmentError(f"{self.path.name}: its table of CRCs was changed")
        spans = [
            _span(_CODES_AT, header.width, header.rows, number) for number in range(header.blocks)
        ]
        if not header.consecutive:
            spans += [
                _span(header.ids_at, 8, header.rows, number) for number in range(header.blocks)
            ]
        whole = memoryview(self._map)

        def crc(span: tuple[int, int]) -> int:
            return zlib.crc32(whole[span[0] : span[1]])  # lets other threads run

        expected = np.frombuffer(table, "<u4").tolist()
        if threads > 1 and len(spans) > threads:
            with ThreadPoolExecutor(threads) as pool:
                found: Sequence[int] = list(pool.map(crc, spans))
        else:
            found = [crc(span) for span in spans]
        for number, (got, wanted) in enumerate(zip(found, expected, strict=True)):
            if got != wanted:
                raise SegmentError(f"{self.path.name}: block {number} was changed (CRC)")


def _crc_of(packed: bytes) -> int:
    """Return a header's CRC; with its own CRC behind it, a CRC of all is the same for any."""
    body, own = packed[:-4], packed[-4:]
    return zlib.crc32(body) if struct.pack("<I", zlib.crc32(body)) == own else -1


def _span(start: int, width: int, rows: int, number: int) -> tuple[int, int]:
    first, last = number * BLOCK_ROWS, min((number + 1) * BLOCK_ROWS, rows)
    return start + first * width, start + last * width


def _unpack(packed: bytes) -> tuple[Header, int]:
    magic, width, consecutive, rows, number, first_id, table_crc, _, uid = _HEADER.unpack_from(
        packed
    )
    if magic != _MAGIC:
        raise SegmentError("it is of an unknown format")
    return Header(width, rows, number, first_id, bool(consecutive), uid), table_crc
