"""The photos of a training turned into augmented tensors, always the same.

What a sample looks like depends only on (seed, epoch, row): not on workers, not on how often a
training was interrupted.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from fgdeploy.photos import Photo, images
from fgdeploy.photos.boxes import Box

# Decoded photos kept in memory, all workers together: 1,600 of 4:3 for crops of 224 pixels.
KEPT_BYTES = 1 << 30

# Makes one view of a photo, or several by name; uint8 [3, S, S] each. Where a recipe asks for boxes
# it is given the photo's too.
Augment = Callable[..., Tensor | Mapping[str, Tensor]]
# Views by name, class numbers and rows of a batch.
Loaded = tuple[Mapping[str, Tensor], Tensor, Tensor]
IMAGE = "image"  # the name of a view that has no other


class Views(Dataset[tuple[Mapping[str, Tensor], int, int]]):
    """Augmented training images: item (epoch, row) -> (views by name, class number, row)."""

    def __init__(
        self,
        chosen: Sequence[Photo],
        labels: npt.NDArray[np.int64],
        augment: Augment,
        shortest: int,
        seed: int,
        boxes: Sequence[Box | None] | None = None,
    ) -> None:
        self._photos, self._labels = chosen, labels
        self._augment, self._shortest, self._seed = augment, shortest, seed
        self._boxes = boxes
        self._kept: dict[int, Image.Image] = {}
        self._held = 0

    def _image(self, row: int) -> Image.Image:
        """Return a photo, decoded and no larger than views need, from memory where it has room."""
        if row in self._kept:
            return self._kept[row]
        photo = self._photos[row]
        image = _reduced(images.decode(photo.path, self._shortest, photo.reading), self._shortest)
        size = 3 * image.width * image.height
        worker = torch.utils.data.get_worker_info()
        if self._held + size <= KEPT_BYTES // (1 if worker is None else worker.num_workers):
            self._held += size
            self._kept[row] = image
        return image

    def _given(self, image: Image.Image, row: int) -> tuple[Any, ...]:
        return (image,) if self._boxes is None else (image, self._boxes[row])

    def __len__(self) -> int:
        return len(self._photos)

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Return the class number of each row, (n,)."""
        return self._labels

    def __getitem__(self, item: tuple[int, int]) -> tuple[Mapping[str, Tensor], int, int]:
        epoch, row = item
        image = self._image(row)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(self._seed, 1, epoch, row))
            made = self._augment(*self._given(image, row))
        views = {IMAGE: made} if isinstance(made, Tensor) else made
        return views, int(self._labels[row]), row


def _reduced(image: Image.Image, shortest: int) -> Image.Image:
    """Return a photo scaled so that its short side is `shortest`, unless it is smaller."""
    short = min(image.size)
    if short <= shortest:
        return image
    width, height = (round(side * shortest / short) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)


def derive(*parts: int) -> int:
    """Return a seed for one use among many, from the run's seed and what the use is."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


def crop_and_flip(size: int, least: float) -> Augment:
    """Return random resized crops of `least`..1 of the area, and flips: uint8 [3, size, size]."""
    augment: Augment = v2.Compose(
        [
            v2.RandomResizedCrop(size, scale=(least, 1.0), antialias=True),
            v2.RandomHorizontalFlip(),
            v2.PILToTensor(),
        ]
    )
    return augment


def square_crop_and_flip(size: int, least: float) -> Augment:
    """Return crops of photos scaled to a square, bicubic, and flips: uint8 [3, size, size].

    least: part of the square's area that a crop has; 0.875 of its side is CLCA's.
    """
    return _square_crop(size, int(size / least**0.5), v2.InterpolationMode.BICUBIC)


def bilinear_square_crop_and_flip(size: int, least: float) -> Augment:
    """Return the same, scaled bilinearly; (448 / 600)^2 is TransFG's."""
    return _square_crop(size, round(size / least**0.5), v2.InterpolationMode.BILINEAR)


def _square_crop(size: int, side: int, interpolation: v2.InterpolationMode) -> Augment:
    augment: Augment = v2.Compose(
        [
            v2.Resize((side, side), interpolation, antialias=True),
            v2.RandomCrop(size),
            v2.RandomHorizontalFlip(),
            v2.PILToTensor(),
        ]
    )
    return augment


_MEAN_COLOUR = [124, 116, 104]  # ImageNet's, which is 0 where it is normalised


def square_crop_and_trivial(size: int, least: float) -> Augment:
    """Return crops of photos scaled to a square, bicubic, flipped, changed at random, erased.

    least: part of the square's area that a crop has; (1 / 1.34)^2 is GLSim's. One change of
    TrivialAugment Wide (arXiv 2103.10158) each; with p = 0.3 a rectangle of 2 to 40 % of the area
    becomes the mean colour (arXiv 1708.04896).
    """
    side = int(size / least**0.5)
    augment: Augment = v2.Compose(
        [
            v2.Resize((side, side), v2.InterpolationMode.BICUBIC, antialias=True),
            v2.RandomCrop(size),
            v2.RandomHorizontalFlip(),
            v2.TrivialAugmentWide(),
            v2.PILToTensor(),
            v2.RandomErasing(0.3, scale=(0.02, 0.4), ratio=(0.3, 3.3), value=_MEAN_COLOUR),
        ]
    )
    return augment


def plan(
    labels: npt.NDArray[np.int64],
    batch: int,
    per_class: int | None,
    epoch: int,
    seed: int,
    even: bool = False,
    drop_last: bool = False,
) -> list[list[tuple[int, int]]]:
    """Return the batches of an epoch: in no order of class, or `per_class` of one side by side.

    even: batches in no order of class are as many, but of one size or one less, and none has a
    single photo: for networks that normalise over a batch. drop_last: a batch that is not full is
    left out, unless it is the only one.
    """
    if per_class is not None:
        return balanced_order(labels, batch, per_class, epoch, seed)
    planned = order(len(labels), batch, epoch, seed)
    if drop_last and len(planned) > 1 and len(planned[-1]) < batch:
        planned.pop()
    return _evened(planned) if even else planned


def _evened(planned: list[list[tuple[int, int]]]) -> list[list[tuple[int, int]]]:
    """Return the same photos in as many batches of even sizes; the first joins one left alone."""
    every = [item for batch in planned for item in batch]
    sizes = np.linspace(0, len(every), len(planned) + 1).round().astype(int).tolist()
    cut = [every[start:end] for start, end in itertools.pairwise(sizes)]
    return [batch if len(batch) > 1 else [*batch, every[0]] for batch in cut]


def order(count: int, batch: int, epoch: int, seed: int) -> list[list[tuple[int, int]]]:
    """Return the batches of an epoch as (epoch, row) pairs, shuffled by (seed, epoch)."""
    rows = np.random.default_rng(derive(seed, 0, epoch)).permutation(count).tolist()
    return [
        [(epoch, row) for row in rows[start : start + batch]] for start in range(0, count, batch)
    ]


def balanced_order(
    labels: npt.NDArray[np.int64], batch: int, per_class: int, epoch: int, seed: int
) -> list[list[tuple[int, int]]]:
    """Return the batches of an epoch, `per_class` photos of a class side by side in each.

    Every photo comes at least once; a class whose photos do not fill its last group repeats some.
    The groups of a class are spread over the epoch, so batches hold as many classes as they can.
    """
    chooser = np.random.default_rng(derive(seed, 0, epoch))
    rounds: list[list[list[int]]] = []
    for number in np.unique(labels):
        rows = chooser.permutation(np.flatnonzero(labels == number))
        filled = np.resize(rows, -(-len(rows) // per_class) * per_class)
        for turn, group in enumerate(filled.reshape(-1, per_class).tolist()):
            if turn == len(rounds):
                rounds.append([])
            rounds[turn].append(group)
    groups = [turn[i] for turn in rounds for i in chooser.permutation(len(turn))]
    at_once = max(1, batch // per_class)
    return [
        [(epoch, row) for group in groups[start : start + at_once] for row in group]
        for start in range(0, len(groups), at_once)
    ]


def batches(
    views: Views, plan: Iterable[list[tuple[int, int]]], workers: int
) -> Generator[Loaded, None, None]:
    """Yield (views, uint8 [B, 3, S, S] by name, labels [B], rows [B]) of the planned batches.

    plan: read as it is needed. Workers live until its end, or until the iterator is closed.
    """
    with warnings.catch_warnings():
        # Pinned memory without an accelerator, or more workers than cores: only advice.
        warnings.simplefilter("ignore", UserWarning)
        loaded = iter(
            DataLoader(
                views, batch_sampler=plan, num_workers=workers, pin_memory=torch.cuda.is_available()
            )
        )
    yield from loaded
