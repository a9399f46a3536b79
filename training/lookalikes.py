"""Photos that the untrained network cannot tell apart, found in its first look at them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fgdeploy.core.errors import DataError
from fgdeploy.core.progress import Notify
from fgdeploy.core.text import counted
from fgdeploy.photos import Photo
from fgdeploy.training import data_warnings

ALIKE = 1e-6  # below this 1 - cosine two embeddings are one
_BLOCK = 256  # rows compared at once


@dataclass(frozen=True)
class Lookalikes:
    """Rows with a twin in another class, each with one twin: (k,) and (k,)."""

    rows: npt.NDArray[np.int64]
    twins: npt.NDArray[np.int64]


def tell_lookalikes(
    embeddings: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    chosen: Sequence[Photo],
    notify: Notify,
) -> None:
    """Tell of photos that the network sees the same in although their classes differ.

    embeddings: (n, D) of the training photos `chosen`; labels: (n,). Those with NaN are left to
    who trains on them. Raises DataError where all photos are alike.
    """
    if not np.isfinite(embeddings).all():
        return
    units = _units(embeddings)
    if len(units) > 1 and bool((1 - units @ units[0] < ALIKE).all()):
        raise DataError(
            f"the network sees the same in all {counted(len(units), 'training photo')}, such as "
            f"{chosen[0].path} and {chosen[-1].path}, so there is nothing to learn; give other "
            "photos, or other --weights"
        )
    found = between_classes(units, labels)
    pairs = dict.fromkeys(
        tuple(sorted(pair)) for pair in zip(found.rows.tolist(), found.twins.tolist(), strict=True)
    )
    shown = [
        (str(chosen[a].path), str(chosen[a].label), str(chosen[b].path), str(chosen[b].label))
        for a, b in list(pairs)[:3]
    ]
    for line in data_warnings.of_twins(shown, len(found.rows)):
        notify(line)


def between_classes(units: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> Lookalikes:
    """Return the rows of unit length (n, D) that equal one of another class; labels: (n,).

    Rows are sorted along their main direction, where twins lie within sqrt(2 ALIKE) of each other,
    so not every pair is compared.
    """
    rows: list[int] = []
    twins: list[int] = []
    for ours, theirs in _neighbours(units):
        close = 1 - units[ours] @ units[theirs].T < ALIKE
        close &= labels[ours][:, None] != labels[theirs]
        which = np.flatnonzero(close.any(axis=1))
        rows += ours[which].tolist()
        twins += theirs[close[which].argmax(axis=1)].tolist()
    order = np.argsort(np.array(rows, np.int64), kind="stable")
    return Lookalikes(np.array(rows, np.int64)[order], np.array(twins, np.int64)[order])


def _neighbours(
    units: npt.NDArray[np.float64],
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Yield blocks of rows, and for each the rows that may hold twins of these."""
    centred = units - units.mean(axis=0)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    along = centred @ vectors[:, -1]
    order = np.argsort(along, kind="stable")
    sorted_along = along[order]
    reach = (2 * ALIKE) ** 0.5 + 1e-9
    for start in range(0, len(order), _BLOCK):
        ours = order[start : start + _BLOCK]
        low = np.searchsorted(sorted_along, along[ours[0]] - reach)
        high = np.searchsorted(sorted_along, along[ours[-1]] + reach, side="right")
        yield ours, order[low:high]


def _units(embeddings: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    rows = embeddings.astype(np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-300)
    return np.asarray(rows / lengths, dtype=np.float64)
