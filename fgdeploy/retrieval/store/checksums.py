"""What stands beside data in an index's database, to tell when it is no longer what was written.

An item's checksum holds two CRC-32: one of its code, which segments need alone, and one of the
rest. Both are started from its id, so that they belong to this item only.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

_TEXT_SHIFT = 32  # the text's 31 bits stand above the code's 32


def code_checksum(number: int, code: bytes) -> int:
    """Return the CRC-32 of a code, started from its id."""
    return zlib.crc32(code, number & 0xFFFFFFFF)


def is_code(number: int, code: bytes, crc: int) -> bool:
    """Return whether the checksum beside an item is one of this code."""
    return zlib.crc32(code, number & 0xFFFFFFFF) == crc & 0xFFFFFFFF


def text_of(*values: object) -> bytes:
    """Return what of path, label, sha256, time and json a checksum is made of."""
    return repr(values).encode("utf-8", "replace")  # tells 7 from '7' and text from bytes


def text_checksum(number: int, text: bytes) -> int:
    """Return 31 bits of a CRC-32 of `text_of` an item, started from its id."""
    return zlib.crc32(text, number & 0xFFFFFFFF) >> 1


def is_text(crc: object, number: int, *values: object) -> bool:
    """Return whether the checksum beside an item is one of these values."""
    return isinstance(crc, int) and text_checksum(number, text_of(*values)) == crc >> _TEXT_SHIFT


def checksum(code_crc: int, text_crc: int) -> int:
    """Return the number in the column `crc` of an item."""
    return text_crc << _TEXT_SHIFT | code_crc


def state_checksum(version: int, items: int, last_id: int) -> int:
    """Return the CRC-32 of the table `state`."""
    return zlib.crc32(repr((version, items, last_id)).encode())


def meta_checksum(meta: Mapping[str, str]) -> str:
    """Return the CRC-32 of all of `meta` but its own."""
    text = repr(sorted((key, value) for key, value in meta.items() if key != "crc"))
    return str(zlib.crc32(text.encode()))


def block_crcs(body: memoryview, block: int, threads: int) -> list[int]:
    """Return the CRC-32 of each `block` bytes of a derived file, the last one shorter."""
    spans = [body[start : start + block] for start in range(0, len(body), block)]
    if threads == 1 or len(spans) < 4:
        return [zlib.crc32(span) for span in spans]
    with ThreadPoolExecutor(threads) as pool:  # zlib lets other threads run
        return list(pool.map(zlib.crc32, spans))
