"""Asymmetric re-ranking: near-equal Hamming distances, ordered by the real-valued query.

The cost of a code is the sum of |h_j| over the bits j in which it differs from the query's code:
bits that the query was sure of weigh more (asymmetric distance, Gordo et al., "Asymmetric Distances
for Binary Embeddings", TPAMI 2014, with the query's own values as weights). With |h| = 1
throughout it is the Hamming distance.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fgdeploy.core.codes import UInt8Array, pack
from fgdeploy.core.errors import UsageError

POOL = 10  # answers that compete for a place: this many times k

Hashes = npt.NDArray[np.floating]


def check_hashes(hashes: Hashes, codes: UInt8Array, bits: int) -> None:
    """Raise UsageError unless `hashes` (Q, bits) are finite and `codes` were packed from them."""
    shape = getattr(hashes, "shape", ())
    kind = getattr(getattr(hashes, "dtype", None), "kind", "")
    if kind != "f" or shape != (len(codes), bits):
        raise UsageError(
            f"hashes: expected float ({len(codes)}, {bits}), got "
            f"{getattr(hashes, 'dtype', type(hashes).__name__)} {shape}"
        )
    if not np.isfinite(hashes).all():
        bad = int(np.flatnonzero(~np.isfinite(hashes).all(axis=1))[0])
        raise UsageError(
            f"hashes: query {bad} has NaN or infinite values; check the photo and the engine"
        )
    if not np.array_equal(pack(hashes), codes):
        raise UsageError("hashes and codes are not of the same queries; give both of one run")


def costs(hashes: Hashes, codes: UInt8Array) -> npt.NDArray[np.float64]:
    """Return the costs (Q, M) of candidates' codes (Q, M, bytes) for hashes (Q, bits)."""
    queries, _, width = codes.shape
    weights = np.zeros((queries, 8 * width))
    weights[:, : hashes.shape[1]] = np.abs(hashes)
    own = np.packbits(hashes > 0, axis=1)
    # What each of the 256 values of a byte costs, for each byte of each query.
    values = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(np.float64)
    table = np.einsum("qbj,vj->qbv", weights.reshape(queries, width, 8), values)
    different = codes ^ own[:, None, :]
    total = np.zeros(codes.shape[:2])
    rows = np.arange(queries)[:, None]
    for byte in range(width):  # in this order always, so sums are the same everywhere
        total += table[rows, byte, different[:, :, byte]]
    return total
