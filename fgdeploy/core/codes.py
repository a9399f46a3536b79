"""Packed hash codes: bits to bytes, Hamming distances, and the file that `fgdeploy hash` writes.

A code of K bits is ceil(K/8) bytes, most significant bit first, padded with zeros. Zero padding
is equal in every code, so it never adds to a distance.
"""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fgdeploy.core import atomic
from fgdeploy.core.errors import DataError, UsageError

MIN_BITS, MAX_BITS = 8, 512

UInt8Array = npt.NDArray[np.uint8]

_PIECE = 4096  # texts that are written at once

_POPCOUNT = np.array([bin(value).count("1") for value in range(256)], dtype=np.uint8)


def check_bits(bits: int) -> int:
    """Return `bits`, or raise UsageError unless it lies in 8..512."""
    if not MIN_BITS <= bits <= MAX_BITS:
        raise UsageError(
            f"a code has {MIN_BITS} to {MAX_BITS} bits, not {bits}; choose another --bits"
        )
    return bits


def code_bytes(bits: int) -> int:
    """Return the number of bytes that a code of `bits` bits takes."""
    return (bits + 7) // 8


def pack(hashes: npt.NDArray[np.floating]) -> UInt8Array:
    """Pack real-valued hashes (N, bits) into codes (N, ceil(bits/8)); a bit is `hash > 0`."""
    return np.packbits(hashes > 0, axis=-1)


def unpack(codes: UInt8Array, bits: int) -> UInt8Array:
    """Unpack codes (N, bytes) into 0/1 values (N, bits)."""
    return np.unpackbits(codes, axis=-1, count=bits)


def _popcount(values: npt.NDArray[np.unsignedinteger]) -> npt.NDArray[np.uint8]:
    if hasattr(np, "bitwise_count"):
        return np.asarray(np.bitwise_count(values), dtype=np.uint8)
    octets = values[..., None].view(np.uint8)  # NumPy 1.x, as on older Jetsons
    return np.asarray(_POPCOUNT[octets].sum(axis=-1, dtype=np.uint8))


def _as_words(codes: UInt8Array) -> npt.NDArray[np.uint64]:
    count, width = codes.shape
    if width % 8 == 0:
        return np.ascontiguousarray(codes).view(np.uint64)
    padded = np.zeros((count, (width + 7) // 8 * 8), dtype=np.uint8)
    padded[:, :width] = codes
    return padded.view(np.uint64)


def hamming(queries: UInt8Array, codes: UInt8Array) -> npt.NDArray[np.uint16]:
    """Return all Hamming distances (Q, N) between packed queries and codes, (Q or N, bytes)."""
    if queries.shape[1] != codes.shape[1]:
        raise DataError(
            f"codes of {queries.shape[1]} and {codes.shape[1]} bytes cannot be compared; "
            "hash both with one model"
        )
    left, right = _as_words(queries), _as_words(codes)
    distances = _popcount(left[:, None, 0] ^ right[None, :, 0]).astype(np.uint16)
    for word in range(1, left.shape[1]):
        distances += _popcount(left[:, None, word] ^ right[None, :, word])
    return distances


@dataclass(frozen=True)
class CodeFile:
    """The codes of a set of photos, with what made them.

    codes: uint8 (N, ceil(bits/8)); paths and labels: N strings (an empty label is none);
    fingerprint: the model's, so that codes of different models are never compared.
    """

    codes: UInt8Array
    paths: Sequence[str]
    labels: Sequence[str]
    bits: int
    fingerprint: str

    def save(self, target: Path) -> None:
        """Write an .npz file without pickled objects, atomically.

        paths and labels are gone through twice, and need not be in memory: a million long paths
        take 400 MB as NumPy holds them.
        """
        with (
            atomic.new_file(target) as stream,
            zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED, allowZip64=True) as archive,
        ):
            _put(archive, "codes", self.codes.shape, self.codes.dtype, [self.codes])
            for name, texts in (("paths", self.paths), ("labels", self.labels)):
                kind = np.dtype(f"<U{max(max(map(len, texts), default=0), 1)}")
                _put(archive, name, (len(texts),), kind, _pieces(texts, kind))
            for name, value in (
                ("bits", np.array(np.int64(self.bits))),
                ("fingerprint", np.array(np.str_(self.fingerprint))),
            ):
                _put(archive, name, (), value.dtype, [value])

    @classmethod
    def load(cls, source: Path) -> CodeFile:
        """Read a file that `save` wrote; never unpickles. Raises DataError."""
        try:
            with open(source, "rb") as stream, np.load(stream, allow_pickle=False) as data:
                loaded = cls(
                    codes=_array(data, "codes"),
                    paths=_array(data, "paths", "U", 1).tolist(),
                    labels=_array(data, "labels", "U", 1).tolist(),
                    bits=_array(data, "bits", "iu", 0).item(),
                    fingerprint=_array(data, "fingerprint", "U", 0).item(),
                )
        except FileNotFoundError:
            raise DataError(f"no code file at {source}; make one with: fgdeploy hash") from None
        except Exception as error:  # a damaged zip or array header raises anything, zlib.error too
            reason = " ".join(str(error).split())[:200]
            raise DataError(
                f"{source} is not a code file ({reason}); make one with: fgdeploy hash"
            ) from error
        width = code_bytes(loaded.bits)
        if loaded.codes.dtype != np.uint8 or loaded.codes.shape != (len(loaded.paths), width):
            raise DataError(
                f"{source}: expected uint8 codes ({len(loaded.paths)}, {width}), got "
                f"{loaded.codes.dtype} {loaded.codes.shape}; hash the photos again"
            )
        if len(loaded.labels) != len(loaded.paths) or not MIN_BITS <= loaded.bits <= MAX_BITS:
            raise DataError(
                f"{source}: {len(loaded.paths)} paths, {len(loaded.labels)} labels and "
                f"{loaded.bits} bits do not fit; hash the photos again"
            )
        return loaded


def _put(
    archive: zipfile.ZipFile,
    name: str,
    shape: tuple[int, ...],
    kind: np.dtype[Any],
    parts: Iterable[npt.NDArray[Any]],
) -> None:
    """Write an array to an .npz file, as `np.savez` does, from parts of its rows."""
    with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
        header = {
            "descr": np.lib.format.dtype_to_descr(kind),
            "fortran_order": False,
            "shape": shape,
        }
        np.lib.format.write_array_header_1_0(stream, header)
        for part in parts:
            stream.write(part.tobytes())


def _pieces(texts: Iterable[str], kind: np.dtype[Any]) -> Iterator[npt.NDArray[Any]]:
    rest = iter(texts)
    while piece := list(islice(rest, _PIECE)):
        yield np.array(piece, kind)


def _array(
    data: Mapping[str, Any], name: str, kinds: str | None = None, axes: int | None = None
) -> npt.NDArray[Any]:
    """Return an entry of a code file. Raises ValueError for another kind of array, or none.

    kinds: letters of NumPy's `dtype.kind`. A text of NumPy may hold numbers that are no characters,
    on which Python's strings fail in many ways, long after.
    """
    array = data[name]
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{name} is no array")
    if kinds is not None and (array.dtype.kind not in kinds or array.ndim != axes):
        raise ValueError(f"{name} is {array.dtype} {array.shape}")
    if array.dtype.kind == "U" and array.nbytes:
        points = np.atleast_1d(array).astype(array.dtype.newbyteorder("=")).view(np.uint32)
        if points.max() > sys.maxunicode:
            raise ValueError(f"{name} holds what is no text")
    return array
