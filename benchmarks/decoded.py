"""Photos decoded once for many trainings: training views and frames as NumPy files.

A training view depends on (seed, epoch, photo) alone, so all runs may share the pixels that
`fgdeploy train` would make for each of them.
"""

from __future__ import annotations

import itertools
import multiprocessing
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from fgdeploy.photos import Photo, Preprocess
from fgdeploy.training import data
from fgdeploy.training.data import IMAGE, Views

Frames = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Cache:
    """Where the files lie, and of what. photos: the first `train` are trained on."""

    folder: Path
    photos: tuple[Photo, ...]
    train: int
    size: int
    epochs: int
    least_area: float
    seed: int

    @property
    def views(self) -> Path:
        """Return the file of training views, uint8 [epochs, train, 3, S, S]."""
        return self.folder / "views.npy"

    def frames(self, how: Preprocess) -> Path:
        """Return the file of all photos as a device sees them, uint8 [n, 3, S, S]."""
        shape = "square" if how.square else "short"
        return self.folder / f"{shape}-{how.interpolation}-{how.size}-{how.resize}.npy"

    def fill(self, ways: Iterable[Preprocess], processes: int) -> None:
        """Write what is missing."""
        self.folder.mkdir(parents=True, exist_ok=True)
        image, tasks = (3, self.size, self.size), []
        if not self.views.exists():
            _begin(self.views, (self.epochs, self.train, *image))
            tasks += [(self, None, rows) for rows in _portions(self.train, 4 * processes)]
        for how in set(ways):
            if not (file := self.frames(how)).exists():
                _begin(file, (len(self.photos), *image))
                tasks += [(self, how, rows) for rows in _portions(len(self.photos), processes)]
        with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
            for done in as_completed([pool.submit(_decode, *task) for task in tasks]):
                done.result()


def _begin(file: Path, shape: tuple[int, ...]) -> None:
    np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape).flush()


def _portions(count: int, parts: int) -> list[range]:
    edges = np.linspace(0, count, min(parts, count) + 1).astype(int).tolist()
    return [range(*edge) for edge in itertools.pairwise(edges)]


def _decode(cache: Cache, how: Preprocess | None, rows: range) -> None:
    if how is not None:
        out = np.load(cache.frames(how), mmap_mode="r+")
        for row in rows:
            photo = cache.photos[row]
            out[row] = how.frame(photo.path, photo.reading).transpose(2, 0, 1)
        return
    out = np.load(cache.views, mmap_mode="r+")
    shortest = round(cache.size / cache.least_area**0.5)  # as the trainer has it
    augment = data.crop_and_flip(cache.size, cache.least_area)
    unknown = np.zeros(cache.train, np.int64)
    views = Views(cache.photos[: cache.train], unknown, augment, shortest, cache.seed)
    for row in rows:
        for epoch in range(cache.epochs):
            out[epoch, row] = views[epoch, row][0][IMAGE].numpy()


class Decoded(Dataset[tuple[dict[str, Tensor], int, int]]):
    """What `Views` gives, from the file."""

    def __init__(self, cache: Cache, labels: Labels) -> None:
        self._frames: Frames = np.load(cache.views, mmap_mode="r")
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, item: tuple[int, int]) -> tuple[dict[str, Tensor], int, int]:
        epoch, row = item
        view = torch.from_numpy(np.array(self._frames[epoch, row]))
        return {IMAGE: view}, int(self.labels[row]), row
