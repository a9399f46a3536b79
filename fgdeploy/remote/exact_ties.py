"""Exact answers by (distance, id) from a server that gives ties in no order, and a limited number.

A search gives the `limit` nearest, of ties any. So more than k are asked for, until the last one is
farther than the k-th: then all of its ties are among them. Where the server gives no more at once,
ids are divided into ranges until the ties of each fit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median_low

from fgdeploy.remote.remote_table import Ranked
from fgdeploy.retrieval.store.schema import MAX_ID

_SLACK = 32  # answers beyond k that the first search asks for
_GROWTH = 8
_ANSWERS = 1 << 18  # of one search, all its queries together

# (queries, limit, first id, last id) -> for each query the nearest of these ids, and whether those
# are all of them
Asked = Callable[[Sequence[bytes], int, int, int], list[tuple[Ranked, bool]]]


def exact_nearest(ask: Asked, codes: Sequence[bytes], k: int, most: int) -> list[Ranked]:
    """Return the k nearest of each code, by (distance, id).

    most: what the server gives at once to a query, k or more.
    """
    answers: dict[int, Ranked] = {}
    open_ones, limit = list(range(len(codes))), min(k + max(k // 4, _SLACK), most)
    while open_ones:
        left, at_once = [], max(1, _ANSWERS // limit)
        for start in range(0, len(open_ones), at_once):
            places = open_ones[start : start + at_once]
            found = ask([codes[place] for place in places], limit, 0, MAX_ID)
            for place, (ranked, whole) in zip(places, found, strict=True):
                ranked = sorted(ranked)
                if whole or ranked[-1][0] > ranked[k - 1][0]:
                    answers[place] = ranked[:k]
                elif limit == most:
                    answers[place] = _with_ties(ask, codes[place], ranked, k, most)
                else:
                    left.append(place)
        open_ones, limit = left, min(limit * _GROWTH, most)
    return [answers[place] for place in range(len(codes))]


def exact_within(ask: Asked, code: bytes, radius: int, most: int) -> Ranked:
    """Return all within a radius of a code, by (distance, id)."""
    return sorted(_in_ranges(ask, code, most, range(radius + 1), None))


def _with_ties(ask: Asked, code: bytes, ranked: Ranked, k: int, most: int) -> Ranked:
    """Return the k nearest, of which `ranked` has all that are nearer than the k-th."""
    last = ranked[k - 1][0]
    closer = [one for one in ranked if one[0] < last]
    return closer + _in_ranges(ask, code, most, range(last, last + 1), k - len(closer))


def _in_ranges(ask: Asked, code: bytes, most: int, wanted: range, enough: int | None) -> Ranked:
    """Return the answers at the distances that are wanted: by id, the first `enough`.

    A range of ids whose answers do not fit is divided at the median of those that came.
    """
    ranges, kept = [(0, MAX_ID)], Ranked()
    while ranges and (enough is None or len(kept) < enough):
        low, high = ranges.pop()
        ((found, whole),) = ask([code], most, low, high)
        if whole or max(found)[0] > wanted[-1]:
            by_id = sorted(found, key=lambda one: one[1])
            kept += [one for one in by_id if one[0] in wanted]
            continue
        middle = median_low(number for _, number in found)
        ranges += [(middle + 1, high), (low, middle)]
    return kept[:enough]
