"""Do two engines give the same answers? Compared on hashes, code bits and ranking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fgdeploy.core.codes import code_bytes, hamming, unpack
from fgdeploy.core.errors import ParityError
from fgdeploy.core.logits import best
from fgdeploy.evaluation.metrics import mean_average_precision
from fgdeploy.proof.limits import FP32_LIMITS, Limits

__all__ = ["FP32_LIMITS", "SIGN_MARGIN", "TOP", "Limits", "Parity", "compare", "further"]

# |hash| below this is too near zero for its sign to mean anything after rounding.
SIGN_MARGIN = 1e-3
TOP = 10


@dataclass(frozen=True)
class Parity:
    """How a candidate engine differs from a reference on the same N photos.

    bit_agreement and identical_codes are fractions; clear_bits_differ counts unequal bits among
    those with |hash| > 1e-3 in the reference; top10_overlap is the mean share of common photos
    among the ten nearest (others of the same set), None below 12 photos, where ten are all; map_*
    and map_drop (points of 100) only where photos carry labels that repeat. output_errors: of each
    further output the mean over photos of |difference| / |reference|, Euclidean lengths.
    top1_agreement: the share of photos with the same best class, None without class logits.
    """

    photos: int
    max_hash_diff: float
    mean_hash_diff: float
    mean_cosine: float
    min_cosine: float
    bit_agreement: float
    identical_codes: float
    clear_bits_differ: int
    top10_overlap: float | None
    map_reference: float | None
    map_candidate: float | None
    map_drop: float | None
    output_errors: Mapping[str, float] = field(default_factory=dict)
    top1_agreement: float | None = None

    def _against(self, limits: Limits) -> list[tuple[str, float | None, float, bool]]:
        """Return (name, value, limit, whether the limit is an upper one) for each limit set."""
        checks = [
            ("max |hash difference|", self.max_hash_diff, limits.max_hash_diff, True),
            ("bit agreement", self.bit_agreement, limits.min_bit_agreement, False),
            ("identical codes", self.identical_codes, limits.min_identical, False),
            ("top-10 overlap", self.top10_overlap, limits.min_top10, False),
            ("mAP drop (points)", self.map_drop, limits.max_map_drop, True),
            *(
                (f"error of {name}", error, limits.max_output_error, True)
                for name, error in self.output_errors.items()
            ),
        ]
        return [(name, value, top, up) for name, value, top, up in checks if top is not None]

    def unmeasured(self, limits: Limits) -> list[str]:
        """Return the names of limits that these photos cannot answer: too few, or no labels."""
        return [name for name, value, _, _ in self._against(limits) if value is None]

    def breaches(self, limits: Limits) -> list[str]:
        """Return a line for each limit that is not kept; what was not measured breaks none."""
        lines = []
        for name, value, limit, at_most in self._against(limits):
            if value is not None and not (value <= limit if at_most else value >= limit):
                lines.append(f"{name} is {value:.6g}, limit {'<=' if at_most else '>='} {limit:g}")
        return lines


def compare(
    reference_hash: npt.NDArray[np.floating],
    reference_code: npt.NDArray[np.uint8],
    candidate_hash: npt.NDArray[np.floating],
    candidate_code: npt.NDArray[np.uint8],
    labels: Sequence[str | None] | None = None,
    others: Mapping[str, tuple[npt.NDArray[Any], npt.NDArray[Any]]] | None = None,
) -> Parity:
    """Compare two engines' hashes (N, bits) and codes (N, bytes) of the same photos.

    others: further outputs by name, of the reference and of the candidate, N rows each.
    """
    _check_shapes(reference_hash, reference_code, candidate_hash, candidate_code)
    if not (np.isfinite(reference_hash).all() and np.isfinite(candidate_hash).all()):
        raise ParityError("an engine gave NaN or infinite hashes; its precision does not hold")
    left, right = reference_hash.astype(np.float64), candidate_hash.astype(np.float64)
    bits = left.shape[1]
    gap = np.abs(left - right)
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    cosine = (left * right).sum(axis=1) / np.maximum(lengths, 1e-30)
    equal = unpack(reference_code, bits) == unpack(candidate_code, bits)
    maps = _map_pair(reference_code, candidate_code, labels)
    pairs = others or {}
    return Parity(
        photos=len(left),
        max_hash_diff=float(gap.max()),
        mean_hash_diff=float(gap.mean()),
        mean_cosine=float(cosine.mean()),
        min_cosine=float(cosine.min()),
        bit_agreement=float(equal.mean()),
        identical_codes=float(equal.all(axis=1).mean()),
        clear_bits_differ=int((~equal & (np.abs(left) > SIGN_MARGIN)).sum()),
        top10_overlap=_top_overlap(reference_code, candidate_code),
        map_reference=maps[0] if maps else None,
        map_candidate=maps[1] if maps else None,
        map_drop=100 * (maps[0] - maps[1]) if maps else None,
        output_errors={name: _error(name, *pair) for name, pair in pairs.items()},
        top1_agreement=_top1_agreement(*pairs["logits"]) if "logits" in pairs else None,
    )


def further(
    reference: Mapping[str, npt.NDArray[Any]], candidate: Mapping[str, npt.NDArray[Any]]
) -> dict[str, tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    """Return what `compare` takes as `others`: all outputs of two engines but code and hash.

    Raises ParityError where one of them lacks an output.
    """
    names = set(reference) - {"code", "hash"}
    if lacking := sorted(names ^ (set(candidate) - {"code", "hash"})):
        raise ParityError(
            f"only one of the engines gives {', '.join(lacking)}; build both from one bundle"
        )
    return {name: (reference[name], candidate[name]) for name in reference if name in names}


def _error(name: str, left: npt.NDArray[Any], right: npt.NDArray[Any]) -> float:
    if left.shape != right.shape:
        raise ParityError(f"expected {name} {left.shape}, got {right.shape}; export again")
    one, other = (x.reshape(len(x), -1).astype(np.float64) for x in (left, right))
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        raise ParityError(f"an engine gave NaN or infinite {name}; its precision does not hold")
    lengths = np.maximum(np.linalg.norm(one, axis=1), 1e-30)
    return float((np.linalg.norm(one - other, axis=1) / lengths).mean())


def _top1_agreement(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> float:
    """Return how often two sets of class logits (N, C) have one best class; ties by number."""
    return float((best(left, 1) == best(right, 1)).mean())


def _check_shapes(
    reference_hash: npt.NDArray[np.floating],
    reference_code: npt.NDArray[np.uint8],
    candidate_hash: npt.NDArray[np.floating],
    candidate_code: npt.NDArray[np.uint8],
) -> None:
    count, bits = reference_hash.shape
    code = (count, code_bytes(bits))
    same = candidate_hash.shape == (count, bits)
    if count == 0 or not same or reference_code.shape != code or candidate_code.shape != code:
        raise ParityError(
            f"expected hashes {(count, bits)} and codes {code} of at least one photo, got "
            f"{candidate_hash.shape}, {reference_code.shape} and {candidate_code.shape}; "
            "run both engines on the same photos"
        )


def _nearest(codes: npt.NDArray[np.uint8], top: int) -> npt.NDArray[np.int64]:
    distances = hamming(codes, codes).astype(np.int32)
    np.fill_diagonal(distances, np.iinfo(np.int32).max)
    return np.argsort(distances, axis=1, kind="stable")[:, :top]


def _top_overlap(left: npt.NDArray[np.uint8], right: npt.NDArray[np.uint8]) -> float | None:
    if len(left) < TOP + 2:
        return None
    pairs = zip(_nearest(left, TOP), _nearest(right, TOP), strict=True)
    return float(np.mean([len(np.intersect1d(a, b)) / TOP for a, b in pairs]))


def _map_pair(
    left: npt.NDArray[np.uint8],
    right: npt.NDArray[np.uint8],
    labels: Sequence[str | None] | None,
) -> tuple[float, float] | None:
    known = [label for label in labels or () if label is not None]
    if len(known) < len(left) or len(set(known)) in (0, 1, len(known)):
        return None
    names = np.array(known, dtype=np.str_)
    return (
        mean_average_precision(left, names, left, names, same_set=True),
        mean_average_precision(right, names, right, names, same_set=True),
    )
