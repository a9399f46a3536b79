"""The files of embeddings as of one transaction: whose row is where, several of them as one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fgdeploy.retrieval.store.embedding_file import Rows, Seals
from fgdeploy.retrieval.store.segment import Ids

_ROWS_AT_ONCE = 4096  # copied from file to file


class Shelf:
    """Rows of several files, the latest first: of two rows of one photo that one counts."""

    def __init__(self, files: Sequence[Rows]) -> None:
        self._files = files

    def find(self, ids: Ids, seals: Seals) -> tuple[Ids, Ids]:
        """Return in which file, -1 for none, and in which of its rows each photo (N,) is."""
        files, rows = np.full(len(ids), -1), np.zeros(len(ids), np.int64)
        for number, file in enumerate(self._files):
            left = np.flatnonzero(files < 0)
            places = np.searchsorted(file.ids, ids[left])
            inside = places < len(file.ids)
            left, places = left[inside], places[inside]
            same = (file.ids[places] == ids[left]) & (file.seals[places] == seals[left])
            files[left[same]], rows[left[same]] = number, places[same]
        return files, rows

    def wide(self, found: tuple[Ids, Ids]) -> npt.NDArray[np.float64]:
        """Return the rows that were found, none missing, as float64 (N, width)."""
        files, rows = found
        values = np.zeros((len(files), self._files[0].values.shape[1] if self._files else 0))
        for number in np.unique(files).tolist():
            own = files == number
            values[own] = self._files[number].wide(rows[own])
        return values

    def latest(self) -> tuple[Ids, Seals, tuple[Ids, Ids]]:
        """Return all ids, ascending, the seal of the latest row of each, and where it is."""
        sizes = [len(file.ids) for file in self._files]
        ids, first = np.unique(
            np.concatenate([np.empty(0, np.int64), *(file.ids for file in self._files)]),
            return_index=True,
        )
        files = np.repeat(np.arange(len(sizes)), sizes)[first]
        rows = np.concatenate([np.arange(size) for size in (0, *sizes)])[first]
        seals = np.concatenate([np.empty(0, np.uint64), *(file.seals for file in self._files)])
        return ids, seals[first], (files, rows)

    def pieces(
        self, found: tuple[Ids, Ids]
    ) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[np.float32] | None]]:
        """Yield values and scales of the rows that were found as they are kept, a few at once."""
        for start in range(0, len(found[0]), _ROWS_AT_ONCE):
            files, rows = (part[start : start + _ROWS_AT_ONCE] for part in found)
            first = self._files[0]
            values = np.empty((len(files), first.values.shape[1]), first.values.dtype)
            scales = None if first.scales is None else np.empty(len(files), np.float32)
            for number in np.unique(files).tolist():
                own, file = files == number, self._files[number]
                values[own] = file.values[rows[own]]
                if scales is not None and file.scales is not None:
                    scales[own] = file.scales[rows[own]]
            yield values, scales
