"""The photos of a training: divided, checked, and turned into augmented tensors, always the same.

What a sample looks like depends only on (seed, epoch, row): not on workers, not on how often a
training was interrupted.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from fgdeploy import photos
from fgdeploy.core.errors import DataError, ImageError
from fgdeploy.core.progress import Notify, Progress, no_progress, silent
from fgdeploy.core.text import is_utf8
from fgdeploy.photos import Photo, images

KEPT_BYTES = 1 << 28  # decoded photos kept in memory, where no workers decode

# Makes one view of a photo, or several by name; uint8 [3, S, S] each.
Augment = Callable[[Image.Image], Tensor | Mapping[str, Tensor]]
IMAGE = "image"  # the name of a view that has no other


@dataclass(frozen=True)
class Division:
    """Photos to train on and to ask with, class names by number, and what could not be read."""

    train: tuple[Photo, ...]
    test: tuple[Photo, ...]
    classes: tuple[str, ...]
    skipped: tuple[str, ...]

    def labels(self, which: Sequence[Photo]) -> npt.NDArray[np.int64]:
        """Return the class numbers of photos, (n,)."""
        number = {name: index for index, name in enumerate(self.classes)}
        return np.array([number[photo.label or ""] for photo in which], dtype=np.int64)


def divide(
    source: Path,
    holdout: float,
    seed: int,
    strict: bool,
    notify: Notify = silent,
    progress: Progress = no_progress,
) -> Division:
    """Read `source`, check that every photo decodes, and divide it into training and test.

    Splits named `train` and `test` are kept as they are. Photos without a split are divided
    class by class: `holdout` of each, 0 to below 1, is asked with. Told to `notify`: classes
    that are empty or have a single photo, and photos that cannot be read. strict: raise
    ImageError at the first of these. Raises DataError for data that nothing can be learnt from.
    """
    listed = photos.read(source)
    found = [photo for photo in listed if photo.split in (None, "train", "test")]
    unused = Counter(photo.split for photo in listed if photo.split not in (None, "train", "test"))
    for split, count in sorted(unused.items(), key=str):
        notify(f"{count} photos of split {split!r} are not used; the splits are train and test")
    if odd := [photo for photo in found if not is_utf8(str(photo.path), photo.label)]:
        raise DataError(
            f"{str(odd[0].path)!a}: the name is not UTF-8, so it cannot be written down; rename it"
        )
    if unlabelled := sum(photo.label is None for photo in found):
        raise DataError(f"{source}: {unlabelled} photos have no class; training needs one for each")
    if source.is_dir():
        _name_empty_folders(source, found, notify)
    readable, skipped = _readable(found, strict, progress)
    for reason in skipped:
        notify(f"skipped: {reason}")
    if skipped:
        notify(f"{len(skipped)} photos skipped (--strict stops at the first)")
    train, test = _split(readable, holdout, seed)
    counts = Counter(photo.label for photo in train)
    if len(counts) < 2:
        raise DataError(
            f"{source}: training needs photos of two classes or more, got {len(counts)}; check the "
            "folder of each class, or the class and split columns"
        )
    held = {photo.label for photo in test}
    single = sorted(str(c) for c, count in counts.items() if count == 1 and c not in held)
    if single:
        notify(
            f"{_some(single)}: one training photo only, so there is little to learn the class "
            "from and nothing of it is held out; add photos"
        )
    foreign = [photo for photo in test if photo.label not in counts]
    if foreign:
        names = _some(sorted({str(photo.label) for photo in foreign}))
        notify(
            f"{names}: photos to test but none to train on; they stay in the evaluation, where "
            "they have no target code"
        )
    return Division(tuple(train), tuple(test), tuple(sorted(map(str, counts))), tuple(skipped))


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{'class' if len(names) == 1 else 'classes'} {shown}{rest}"


def _name_empty_folders(source: Path, found: Sequence[Photo], notify: Notify) -> None:
    used = {folder for photo in found for folder in photo.path.parents}
    empty = sorted(
        entry.name
        for entry in source.iterdir()
        if entry.is_dir() and not entry.name.startswith(".") and entry not in used
    )
    # A dataset in its official layout has folders of other things too; classes lie side by side.
    if empty and all(photo.path.parent.parent == source for photo in found):
        notify(f"{_some(empty)}: the folder has no images; left out")


def _readable(
    found: Sequence[Photo], strict: bool, progress: Progress
) -> tuple[list[Photo], list[str]]:
    def check(photo: Photo) -> str | None:
        try:
            images.decode(photo.path, shortest=64)  # JPEGs at 1/8 scale: whole, yet quick
        except ImageError as error:
            return str(error)
        return None

    kept, skipped = [], []
    with ThreadPoolExecutor() as pool:
        for done, (photo, reason) in enumerate(
            zip(found, pool.map(check, found), strict=True), start=1
        ):
            if reason is None:
                kept.append(photo)
            elif strict:
                pool.shutdown(cancel_futures=True)
                raise ImageError(reason)
            else:
                skipped.append(reason)
            progress(done, len(found))
    return kept, skipped


def _split(readable: Sequence[Photo], holdout: float, seed: int) -> tuple[list[Photo], list[Photo]]:
    train = [photo for photo in readable if photo.split == "train"]
    test = [photo for photo in readable if photo.split == "test"]
    chooser = np.random.default_rng(seed)
    undivided: dict[str, list[Photo]] = {}
    for photo in readable:
        if photo.split is None:
            undivided.setdefault(str(photo.label), []).append(photo)
    for _, members in sorted(undivided.items()):
        members.sort(key=lambda photo: str(photo.path))
        held = min(round(holdout * len(members)), len(members) - 1)
        asked = set(chooser.permutation(len(members))[:held].tolist())
        for index, photo in enumerate(members):
            (test if index in asked else train).append(photo)
    return train, test


class Views(Dataset[tuple[Mapping[str, Tensor], int, int]]):
    """Augmented training images: item (epoch, row) -> (views by name, class number, row)."""

    def __init__(
        self,
        chosen: Sequence[Photo],
        labels: npt.NDArray[np.int64],
        augment: Augment,
        shortest: int,
        seed: int,
    ) -> None:
        self._photos, self._labels = chosen, labels
        self._augment, self._shortest, self._seed = augment, shortest, seed
        self._kept: dict[int, Image.Image] = {}
        self._room = KEPT_BYTES

    def _image(self, row: int) -> Image.Image:
        """Return a decoded photo, from memory where there was room for it."""
        if row in self._kept:
            return self._kept[row]
        image = images.decode(self._photos[row].path, shortest=self._shortest)
        size = 3 * image.width * image.height
        alone = torch.utils.data.get_worker_info() is None  # a worker lives for one epoch only
        if alone and size <= self._room:
            self._room -= size
            self._kept[row] = image
        return image

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
            made = self._augment(image)
        views = {IMAGE: made} if isinstance(made, Tensor) else made
        return views, int(self._labels[row]), row


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


def plan(
    labels: npt.NDArray[np.int64], batch: int, per_class: int | None, epoch: int, seed: int
) -> list[list[tuple[int, int]]]:
    """Return the batches of an epoch: in no order of class, or `per_class` of one side by side."""
    if per_class is None:
        return order(len(labels), batch, epoch, seed)
    return balanced_order(labels, batch, per_class, epoch, seed)


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
    views: Views, plan: list[list[tuple[int, int]]], workers: int
) -> Iterator[tuple[Mapping[str, Tensor], Tensor, Tensor]]:
    """Yield (views, uint8 [B, 3, S, S] by name, labels [B], rows [B]) of the planned batches."""
    with warnings.catch_warnings():
        # Pinned memory without an accelerator, or more workers than cores: only advice.
        warnings.simplefilter("ignore", UserWarning)
        loader = DataLoader(
            views, batch_sampler=plan, num_workers=workers, pin_memory=torch.cuda.is_available()
        )
        yield from loader
