"""Exact Hamming search over packed codes; order is always (distance, row).

The compiled scan (numba) and the NumPy scan give the same answers. "auto" takes NumPy for small
work, as importing numba takes longer than the search, and where numba is not installed. "faiss-gpu"
scans on a GPU, only where asked for.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fgdeploy.core import machine
from fgdeploy.core.codes import MAX_BITS, UInt8Array
from fgdeploy.core.errors import MissingDependency, UsageError
from fgdeploy.core.numbers import as_whole
from fgdeploy.core.text import shown
from fgdeploy.retrieval.scan import ahead, gpu_scan, scan_numpy
from fgdeploy.retrieval.scan.buckets import MAX_BYTES, Buckets

KERNELS = ("auto", "numba", "numpy", "faiss-gpu")
# Bytes of codes times queries after which the compiled scan is made ready. Counted over the
# process: one that searches little does without numba.
_WORTH_NUMBA = 1 << 28
# Searches of less do not count, as NumPy takes half a millisecond for them and numba 120 MiB of
# memory: a camera with a small gallery never needs it, however many months it runs.
_WORTH_COUNTING = 1 << 18
_WORTH_BUCKETS = 8, 1 << 16  # queries and codes from which on NumPy does better to sort the codes

_scanned = 0  # bytes, by NumPy, in this process

Mask = npt.NDArray[np.bool_]
Found = tuple[npt.NDArray[np.int64], npt.NDArray[np.uint16]]


class Allowed:
    """Which rows may be answers: mask bool (N,), and what a search derives from it, kept."""

    def __init__(self, mask: Mask) -> None:
        self.mask = mask

    @functools.cached_property
    def count(self) -> int:
        """The number of allowed rows."""
        return int(np.count_nonzero(self.mask))

    @functools.cached_property
    def bitmap(self) -> npt.NDArray[np.uint64]:
        """The mask as 64 rows to a word, the first in the lowest bit."""
        packed = np.packbits(self.mask, bitorder="little")
        words = np.zeros(-(-len(self.mask) // 64), "<u8")
        words.view(np.uint8)[: len(packed)] = packed
        return words.astype(np.uint64, copy=False)


def search_codes(
    queries: UInt8Array,
    codes: UInt8Array,
    k: int,
    *,
    allowed: Mask | None = None,
    threads: int | None = None,
    kernel: str = "auto",
) -> Found:
    """Return the k nearest rows of `codes` (N, bytes) for each query (Q, bytes).

    allowed: bool (N,), the rows that may be answers; default all. threads: default one for each
    core. kernel: "numba", "numpy", "faiss-gpu" (k up to 2048), or "auto". Returns rows int64 and
    distances uint16, both (Q, min(k, allowed rows)), ordered by (distance, row). Raises UsageError
    for k below 1, or codes that are not uint8 of one width up to 64 bytes.
    """
    _check(queries, codes, allowed)
    admitted = None if allowed is None else Allowed(allowed)
    top = check_k(k, len(codes) if admitted is None else admitted.count)
    if admitted is None and kernel == "auto" and _better_sorted(queries, codes):
        return Buckets(codes).nearest(queries, top)
    return nearest(queries, codes, top, admitted, check_threads(threads), kernel)


def _better_sorted(queries: UInt8Array, codes: UInt8Array) -> bool:
    """Return whether the codes are short and would be scanned by NumPy, for many queries."""
    few, small = _WORTH_BUCKETS
    return (
        codes.shape[1] <= MAX_BYTES
        and len(queries) >= few
        and len(codes) >= small
        and chosen("auto", codes.size * len(queries), codes.shape[1]) == "numpy"
    )


def nearest(
    queries: UInt8Array,
    codes: UInt8Array,
    top: int,
    allowed: Allowed | None,
    threads: int,
    kernel: str = "auto",
) -> Found:
    """Search as `search_codes` does, on arguments that were checked; `allowed` has `top` rows."""
    if top == 0 or len(queries) == 0:
        empty = (len(queries), top)
        return np.empty(empty, np.int64), np.empty(empty, np.uint16)
    mask = None if allowed is None else allowed.mask
    scan = chosen(kernel, codes.size * len(queries), codes.shape[1])
    if scan == "numpy":
        return scan_numpy.nearest(queries, codes, top, mask)
    if scan == "faiss-gpu":
        return gpu_scan.nearest(queries, codes, top, mask)
    from fgdeploy.retrieval.scan import scan_numba

    whole = np.ascontiguousarray(codes)
    return scan_numba.nearest(
        queries, whole, top, None if allowed is None else allowed.bitmap, threads
    )


def search_radius(
    query: UInt8Array,
    codes: UInt8Array,
    radius: int,
    *,
    allowed: Mask | None = None,
    threads: int | None = None,
    kernel: str = "auto",
) -> Found:
    """Return all rows of `codes` within `radius` of one query (bytes,), in the same order."""
    query = np.asarray(query)
    _check(query[None], codes, allowed)
    check_radius(radius)
    admitted = None if allowed is None else Allowed(allowed)
    rows, distances = within(query, codes, radius, admitted, check_threads(threads), kernel)
    order = np.argsort(distances, kind="stable")
    return rows[order], distances[order]


def within(
    query: UInt8Array,
    codes: UInt8Array,
    radius: int,
    allowed: Allowed | None,
    threads: int,
    kernel: str = "auto",
) -> Found:
    """Return rows, ascending, and distances as `search_radius`, on arguments that were checked."""
    if kernel == "faiss-gpu":
        raise UsageError(
            "kernel 'faiss-gpu' finds the k nearest, not a radius; take another kernel"
        )
    if len(codes) == 0:
        return np.empty(0, np.int64), np.empty(0, np.uint16)
    if chosen(kernel, codes.size, codes.shape[1]) == "numpy":
        return scan_numpy.within(query, codes, radius, None if allowed is None else allowed.mask)
    from fgdeploy.retrieval.scan import scan_numba

    whole, most = np.ascontiguousarray(codes), min(int(radius), MAX_BITS)
    return scan_numba.within(
        query, whole, most, None if allowed is None else allowed.bitmap, threads
    )


def chosen(kernel: str, work: int, width: int) -> str:
    """Return the kernel for `work` bytes of codes times queries, of `width` bytes a code.

    Raises UsageError for a kernel that does not exist, MissingDependency for one not installed.
    """
    if kernel not in KERNELS:
        raise UsageError(f"no kernel {kernel!r}; choose one of {', '.join(KERNELS)}")
    if kernel == "numba" and not has_numba():
        raise MissingDependency("numba", "search", "the compiled search")
    if kernel != "auto":
        return kernel
    if not has_numba():
        return "numpy"
    global _scanned
    if work >= _WORTH_COUNTING:
        _scanned += work
    fast = _scanned > _WORTH_NUMBA and ahead.ahead.ready(-(-width // 8))
    return "numba" if fast else "numpy"


@functools.cache
def has_numba() -> bool:
    """Return whether numba is installed, without importing it."""
    return importlib.util.find_spec("numba") is not None


def check_k(k: int, available: int) -> int:
    """Return how many answers there will be. Raises UsageError for k below 1."""
    number = as_whole(k)
    if number is None or number < 1:
        raise UsageError(f"k is {shown(k)}; expected at least one result")
    return min(number, available)


def check_radius(radius: int) -> None:
    """Raise UsageError unless the radius is a number of bits."""
    number = as_whole(radius)
    if number is None:
        raise UsageError(f"radius is {shown(repr(radius))}; expected a whole number of bits")
    if number < 0:
        raise UsageError(f"radius is {number}; it cannot be negative")


def check_threads(threads: int | None) -> int:
    """Return the number of threads to use. Raises UsageError for fewer than one."""
    if threads is None:
        return machine.cores()
    number = as_whole(threads)
    if number is None or number < 1:
        raise UsageError(f"threads is {shown(threads)}; expected 1 or more")
    return number


def _check(queries: UInt8Array, codes: UInt8Array, allowed: Mask | None) -> None:
    check_packed("queries", queries)
    check_packed("codes", codes)
    if queries.shape[1] != codes.shape[1]:
        raise UsageError(
            f"queries have {queries.shape[1]} bytes, codes {codes.shape[1]}; "
            "hash both with the same model"
        )
    if not 1 <= codes.shape[1] <= MAX_BITS // 8:
        raise UsageError(
            f"codes have {codes.shape[1]} bytes; expected 1 to {MAX_BITS // 8} (512 bits)"
        )
    if allowed is None:
        return
    shape: Sequence[int] = getattr(allowed, "shape", ())
    if getattr(allowed, "dtype", None) != np.bool_ or tuple(shape) != (len(codes),):
        raise UsageError(
            f"allowed: expected bool ({len(codes)},), one for each code, got "
            f"{getattr(allowed, 'dtype', type(allowed).__name__)} {tuple(shape)}"
        )


def check_packed(name: str, array: UInt8Array) -> None:
    """Raise UsageError unless `array` is uint8 (N, bytes)."""
    if not isinstance(array, np.ndarray) or array.dtype != np.uint8 or array.ndim != 2:
        got = getattr(array, "dtype", type(array).__name__), getattr(array, "shape", "")
        raise UsageError(f"{name}: expected packed codes uint8 (N, bytes), got {got[0]} {got[1]}")
