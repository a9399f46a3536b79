"""The file of a segment's look-up tables for `multi_index`: derived, immutable, mapped, checked.

Layout, little-endian: header (44 bytes: magic, width, parts, rows, CRC-32 of the table of CRCs, the
index's uid, CRC-32 of the header); at 4096 the starts (uint32), then the rows (parts, N) int32,
then the CRC-32 of each 4 MiB from 4096 on.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from pathlib import Path

import numpy as np

from fgdeploy.core import atomic
from fgdeploy.core.codes import UInt8Array
from fgdeploy.core.errors import MissingDependency
from fgdeploy.retrieval.scan.search import Allowed, Found, has_numba
from fgdeploy.retrieval.store.checksums import block_crcs
from fgdeploy.retrieval.store.segment import Segment, SegmentError

_HEADER = struct.Struct("<8sHHQI16s")
_MAGIC = b"FGDTAB1\0"
_START, _BLOCK = 4096, 1 << 22
WIDTHS = (8, 16)  # bytes of a code for which they pay
MOST_K = 1000  # answers of one query


def path_of(folder: Path, number: int) -> Path:
    """Return the file of a segment's tables."""
    return folder / f"segment-{number}.tables"


def write(folder: Path, segment: Segment, threads: int) -> int:
    """Build and write the tables of a segment; returns the CRC of the header, for the database.

    Needs 12 bytes of memory for each row and 8 bytes of code. Raises MissingDependency, OSError.
    """
    if not has_numba():
        raise MissingDependency("numba", "search", "multi-index hashing")
    from fgdeploy.retrieval.scan import multi_index

    header = segment.header
    parts = len(multi_index.parts_of(header.width))
    counts = multi_index.starts_of(header.width)
    numbers = np.zeros(counts + parts * header.rows, "<u4")  # built in place, written as it is
    rows = numbers[counts:].view("<i4").reshape(parts, header.rows)
    multi_index.build(segment.codes, numbers[:counts], rows, threads)
    body = numbers.data.cast("B")
    table = np.array(block_crcs(body, _BLOCK, threads), "<u4").tobytes()
    packed = _HEADER.pack(
        *(_MAGIC, header.width, parts, header.rows, zlib.crc32(table), header.uid)
    )
    crc = zlib.crc32(packed)
    with atomic.new_file(path_of(folder, header.number)) as stream:
        stream.write(packed + struct.pack("<I", crc))
        stream.seek(_START)
        stream.write(body)
        stream.write(table)
    return crc


class Tables:
    """Look-up tables that were opened and checked."""

    def __init__(self, folder: Path, segment: Segment, crc: int, threads: int) -> None:
        """Map the file and compare all of it with its CRCs. Raises SegmentError."""
        from fgdeploy.retrieval.scan import multi_index

        header, path = segment.header, path_of(folder, segment.header.number)
        counts = multi_index.starts_of(header.width)
        parts = len(multi_index.parts_of(header.width))
        size = 4 * counts + 4 * parts * header.rows
        end = _START + size
        try:
            with open(path, "rb") as stream:
                mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError:
            raise SegmentError(f"{path.name} is missing") from None
        except (OSError, ValueError) as error:
            raise SegmentError(f"{path.name} cannot be read ({error})") from error
        packed, table = mapped[: _HEADER.size], mapped[end:]
        expected = (_MAGIC, header.width, parts, header.rows, zlib.crc32(table), header.uid)
        if (
            len(mapped) != end + 4 * -(-size // _BLOCK)
            or zlib.crc32(packed) != crc
            or mapped[_HEADER.size : _HEADER.size + 4] != struct.pack("<I", crc)
            or _HEADER.unpack(packed) != expected
        ):
            raise SegmentError(f"{path.name}: it is not what was written")
        found = block_crcs(memoryview(mapped)[_START:end], _BLOCK, threads)
        if found != np.frombuffer(table, "<u4").tolist():
            raise SegmentError(f"{path.name} was changed (CRC)")
        self._starts = np.frombuffer(mapped, "<u4", counts, _START)
        self._rows = np.frombuffer(mapped, "<i4", parts * header.rows, _START + 4 * counts).reshape(
            parts, header.rows
        )

    def nearest(
        self,
        queries: UInt8Array,
        codes: UInt8Array,
        k: int,
        alive: Allowed | None,
        threads: int,
    ) -> tuple[Found, np.ndarray[tuple[int], np.dtype[np.bool_]]]:
        """Return rows and distances (Q, k), and for which queries they are proven to be right."""
        from fgdeploy.retrieval.scan import multi_index

        bitmap = None if alive is None else alive.bitmap
        rows, distances, proven = multi_index.nearest(
            queries, codes, k, self._starts, self._rows, bitmap, threads
        )
        return (rows, distances), proven


def fits(rows: int, width: int) -> bool:
    """Return whether tables may be built for so many codes."""
    return width in WIDTHS and 0 < rows < 1 << 31
