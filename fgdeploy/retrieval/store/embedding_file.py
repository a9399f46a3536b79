"""Embeddings of many items in one immutable file, mapped into memory and checked when first used.

Made from photos: neither codes nor the database can make it again. Layout, little-endian:

    0       header (88 bytes): magic, kind, width, rows, number, CRC-32 of the table, the index's
            uid, SHA-256 of the model's fingerprint, CRC-32 of the header
    4096    rows (rows, width) float32 or int8; int8: scales float32 (rows,); ids int64 (rows,),
            ascending; seals uint64 (rows,); each from a multiple of 64 on
    …       table: CRC-32 of each 4 MiB from 4096 on

A row's seal says of which photo it is (`seal_of`): it counts only where the item with its id still
has that seal, so that a replaced photo is never ranked by the embedding of the one before.
"""

from __future__ import annotations

import hashlib
import mmap
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from fgdeploy.core import atomic
from fgdeploy.retrieval.store.checksums import block_crcs
from fgdeploy.retrieval.store.int8_rows import quantised, restored
from fgdeploy.retrieval.store.segment import Ids

KINDS: dict[str, npt.DTypeLike] = {"float": "<f4", "int8": "i1"}
_NUMBERS = {kind: number for number, kind in enumerate(KINDS)}
_HEADER = struct.Struct("<8sIIQQI16s32s")
_MAGIC = b"FGDEMB1\0"
_START, _BLOCK, _ALIGNED = 4096, 1 << 22, 64

Seals = npt.NDArray[np.uint64]


class EmbeddingFileError(Exception):
    """A file of embeddings that is missing, cut off, changed or of another model."""


@dataclass(frozen=True)
class RowFormat:
    """How embeddings are kept. kind: a key of KINDS; width: values in a row."""

    kind: str
    width: int

    @property
    def scaled(self) -> bool:
        """Whether rows have scales."""
        return self.kind == "int8"

    @property
    def row_bytes(self) -> int:
        """The bytes of an item in a file: its row, scale, id and seal."""
        return self.width * np.dtype(KINDS[self.kind]).itemsize + 4 * self.scaled + 16

    @classmethod
    def of_text(cls, text: str) -> RowFormat:
        """Return what `str` of one gave. Raises ValueError for other text."""
        kind, _, width = text.partition(" ")
        if kind not in KINDS or not width.isdecimal() or not 0 < int(width) < 1 << 31:
            raise ValueError(f"{text!r} is no format of embeddings")
        return cls(kind, int(width))

    def __str__(self) -> str:
        return f"{self.kind} {self.width}"


@dataclass(frozen=True)
class Owner:
    """Whose embeddings a file holds. uid: of the index; model: its fingerprint."""

    uid: bytes
    model: str

    @property
    def digest(self) -> bytes:
        """The SHA-256 of the fingerprint."""
        return hashlib.sha256(self.model.encode()).digest()


def seal_of(number: int, code: bytes, sha256: str | None) -> int:
    """Return 64 bits that change when an item's code or content does."""
    text = repr((number, code, sha256 or None)).encode("utf-8", "replace")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


@dataclass(frozen=True)
class Rows:
    """Embeddings in memory: ids ascending (N,), seals (N,), values (N, width), scales (N,)."""

    ids: Ids
    seals: Seals
    values: npt.NDArray[Any]
    scales: npt.NDArray[np.float32] | None

    @classmethod
    def packed(cls, form: RowFormat, ids: Ids, seals: Seals, rows: npt.NDArray[np.float32]) -> Rows:
        """Return float rows (N, width) as they are kept; of two with one id the later one."""
        order = len(ids) - 1 - np.unique(ids[::-1], return_index=True)[1]
        rows = np.ascontiguousarray(rows[order], "<f4")
        values, scales = quantised(rows) if form.scaled else (rows, None)
        return cls(ids[order], seals[order], values, scales)

    def wide(self, rows: Ids) -> npt.NDArray[np.float64]:
        """Return some rows as float64."""
        if self.scales is None:
            return np.asarray(self.values[rows], np.float64)
        return restored(self.values[rows], self.scales[rows])


def path_of(folder: Path, number: int) -> Path:
    """Return the file of a number."""
    return folder / f"embeddings-{number}.rows"


def write(
    folder: Path,
    number: int,
    form: RowFormat,
    owner: Owner,
    index: tuple[Ids, Seals],
    parts: Iterable[tuple[npt.NDArray[Any], npt.NDArray[np.float32] | None]],
) -> int:
    """Write a file with these ids, ascending, and seals; parts: values and scales, piece by piece.

    Returns the header's CRC, for the database. Raises OSError.
    """
    ids, seals = index
    with atomic.new_file(path_of(folder, number)) as stream:
        stream.seek(_START)
        body, scales, rows = _Summed(stream), [], 0
        for values, more in parts:
            body.write(np.ascontiguousarray(values, KINDS[form.kind]).tobytes())
            rows += len(values)
            scales += [] if more is None else [more]
        if rows != len(ids):
            raise ValueError(f"{len(ids)} ids and {rows} embeddings")
        body.pad()
        for piece in scales:
            body.write(piece.astype("<f4").tobytes())
        body.pad()
        body.write(ids.astype("<i8").tobytes())
        body.pad()
        body.write(seals.astype("<u8").tobytes())
        table = body.table()
        stream.write(table)
        packed = _HEADER.pack(
            *(_MAGIC, _NUMBERS[form.kind], form.width, len(ids), number),
            *(zlib.crc32(table), owner.uid, owner.digest),
        )
        crc = zlib.crc32(packed)
        stream.seek(0)
        stream.write(packed + struct.pack("<I", crc))
    return crc


class _Summed:
    """A stream that is written to block by block, and the CRC-32 of each."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._crcs, self._crc, self._size = stream, list[int](), 0, 0
        self._total = 0

    def pad(self) -> None:
        self.write(bytes(-self._total % _ALIGNED))

    def write(self, data: bytes) -> None:
        self._stream.write(data)
        self._total += len(data)
        view = memoryview(data)
        while view:
            part = view[: _BLOCK - self._size]
            self._crc, self._size = zlib.crc32(part, self._crc), self._size + len(part)
            view = view[len(part) :]
            if self._size == _BLOCK:
                self._crcs.append(self._crc)
                self._crc = self._size = 0

    def table(self) -> bytes:
        return np.array(self._crcs + ([self._crc] if self._size else []), "<u4").tobytes()


def opened(
    folder: Path, number: int, crc: int, form: RowFormat, owner: Owner, threads: int
) -> Rows:
    """Map a file and compare all of it with its CRCs. Raises EmbeddingFileError."""
    path = path_of(folder, number)
    try:
        with open(path, "rb") as stream:
            mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise EmbeddingFileError(f"{path.name} is missing") from None
    except (OSError, ValueError) as error:
        raise EmbeddingFileError(f"{path.name} cannot be read ({error})") from error
    rows, table_crc = _header_of(path, mapped, number, crc, form, owner)
    scales_at, ids_at, seals_at, end = _places(form, rows)
    table = mapped[end:]
    if len(table) != 4 * -(-(end - _START) // _BLOCK) or zlib.crc32(table) != table_crc:
        raise EmbeddingFileError(f"{path.name}: its size or its table of CRCs was changed")
    if block_crcs(memoryview(mapped)[_START:end], _BLOCK, threads) != list(
        np.frombuffer(table, "<u4")
    ):
        raise EmbeddingFileError(f"{path.name} was changed (CRC)")
    return Rows(
        np.frombuffer(mapped, "<i8", rows, ids_at),
        np.frombuffer(mapped, "<u8", rows, seals_at),
        np.frombuffer(mapped, KINDS[form.kind], rows * form.width, _START).reshape(rows, -1),
        np.frombuffer(mapped, "<f4", rows, scales_at) if form.scaled else None,
    )


def _places(form: RowFormat, rows: int) -> tuple[int, int, int, int]:
    """Return where scales, ids and seals begin, and where the table does."""
    row = np.dtype(KINDS[form.kind]).itemsize * form.width
    at, places = _START, []
    for size in (rows * row, 4 * rows * form.scaled, 8 * rows):
        at += size + -size % _ALIGNED
        places.append(at)
    return places[0], places[1], places[2], places[2] + 8 * rows


def _header_of(
    path: Path, mapped: mmap.mmap, number: int, crc: int, form: RowFormat, owner: Owner
) -> tuple[int, int]:
    """Return how many rows a header tells of, and the CRC of the table."""
    packed, own = mapped[: _HEADER.size], mapped[_HEADER.size : _HEADER.size + 4]
    if len(own) < 4 or struct.pack("<I", zlib.crc32(packed)) != own:
        raise EmbeddingFileError(f"{path.name}: its header was changed (CRC)")
    magic, kind, width, rows, found, table_crc, uid, model = _HEADER.unpack(packed)
    if magic != _MAGIC:
        raise EmbeddingFileError(f"{path.name} is of an unknown format")
    if model != owner.digest:
        raise EmbeddingFileError(f"{path.name} holds embeddings of another model")
    if (kind, width) != (_NUMBERS[form.kind], form.width):
        raise EmbeddingFileError(f"{path.name}: expected rows of {form.width} {form.kind} values")
    if (found, uid) != (number, owner.uid) or zlib.crc32(packed) != crc:
        raise EmbeddingFileError(f"{path.name}: its header is not the one written")
    return rows, table_crc
