"""Several indexes of one model searched as one: the answers that one index of all items gives.

The indexes are searched one after the other, each with all threads: on two cores searching them
side by side was measured to be no faster, and indexes of unequal size would leave cores idle.
Items are read for the answers alone, not for those of each index.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence

import numpy as np

from fgdeploy.core.codes import UInt8Array
from fgdeploy.retrieval.store import look
from fgdeploy.retrieval.store.index import Index
from fgdeploy.retrieval.store.items import Hit
from fgdeploy.retrieval.store.reranking import Reranking
from fgdeploy.retrieval.store.where import Params


def nearest_together(
    indexes: Sequence[Index],
    codes: UInt8Array,
    k: int,
    *,
    where: str | None = None,
    params: Params = (),
    by: Reranking | None = None,
    threads: int | None = None,
) -> list[list[Hit]]:
    """Return the min(k, N) nearest items of each query code (Q, bytes), as `Index.search` does.

    By (distance, id), re-ranked by (cost, distance, id); of equal ids the one of the earlier index
    stands first. Hits name their index as `source`.
    """
    workers = look.checked(codes, indexes[0].bits, k, by, threads)
    with _looking(indexes, where, params) as looks:
        return look.nearest_hits(looks, codes, int(k), by, workers)


def within_together(
    indexes: Sequence[Index],
    code: UInt8Array,
    radius: int,
    *,
    where: str | None = None,
    params: Params = (),
    threads: int | None = None,
) -> list[Hit]:
    """Return all items within `radius` bits of one code (bytes,), in the same order."""
    workers = look.checked_radius(code := np.asarray(code), indexes[0].bits, radius, threads)
    with _looking(indexes, where, params) as looks:
        return look.hits_within(looks, code, int(radius), workers)


@contextlib.contextmanager
def _looking(
    indexes: Sequence[Index], where: str | None, params: Params
) -> Iterator[list[look.Look]]:
    """Give a look at each index.

    They are taken in one order whatever order the indexes are in: two searches that each held one
    index and waited for the other's writer, which waits for the other search, would never end.
    """
    looks: dict[int, look.Look] = {}
    with contextlib.ExitStack() as stack:
        for number in sorted(range(len(indexes)), key=lambda n: os.path.realpath(indexes[n].path)):
            index = indexes[number]
            seen = index._querying.looking(where, params, index.name)
            looks[number] = stack.enter_context(seen)
        yield [looks[number] for number in range(len(indexes))]
