"""Which photos train and which ask: checked, divided class by class, no photo on both sides."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fgdeploy import photos
from fgdeploy.core.errors import DataError, ImageError, UsageError
from fgdeploy.core.progress import Notify, Progress, no_progress, silent
from fgdeploy.core.text import counted, is_utf8
from fgdeploy.evaluation.leaks import check_repeats
from fgdeploy.photos import Columns, Photo, images
from fgdeploy.photos.table import AS_NAMED
from fgdeploy.training import data_warnings
from fgdeploy.training.train_settings import VAL_FRACTION


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
    val_fraction: float | None,
    seed: int,
    strict: bool,
    notify: Notify = silent,
    progress: Progress = no_progress,
    columns: Columns = AS_NAMED,
    allow_leaks: bool = False,
) -> Division:
    """Divide the usable photos of `source` into training and test.

    Splits named `train` and `test` are kept as they are. Photos without a split are divided
    class by class: `val_fraction` of each, 0 to below 1, by default VAL_FRACTION, is asked with; of
    two photos or more at least one, and never all. It is refused (UsageError) where all photos have
    splits. Told to `notify`: classes that are empty, photos that cannot be read, photos with two
    classes, and `data_warnings`.
    strict: raise ImageError at the first that cannot be read. columns: what those of a CSV are
    called. Copies of training photos are not held out; where the splits themselves share photos,
    by path or content, DataError is raised unless `allow_leaks`, as for data that nothing can be
    learnt from: no photos, one class, copies of one photo.
    """
    readable, skipped = usable(source, strict, notify, progress, columns)
    if val_fraction is not None and all(photo.split for photo in readable):
        raise UsageError(
            f"--val-fraction {val_fraction}: {source} says itself which photos train and which "
            "test; leave the option out, or give photos without splits"
        )
    part = VAL_FRACTION if val_fraction is None else val_fraction
    train, test = _without_copies(*_split(readable, part, seed), allow_leaks, notify)
    counts = Counter(str(photo.label) for photo in train)
    _check_learnable(source, counts)
    lines = data_warnings.of_counts(counts, Counter(str(photo.label) for photo in test))
    lines += data_warnings.of_copies(_copied(source, train))
    for line in lines:
        notify(line)
    return Division(tuple(train), tuple(test), tuple(sorted(map(str, counts))), tuple(skipped))


def _check_learnable(source: Path, counts: Mapping[str, int]) -> None:
    if not counts:
        raise DataError(
            f"{source}: no photos to train on; check the split column, or the top folders"
        )
    if len(counts) < 2:
        raise DataError(
            f"{source}: training needs photos of two classes or more, got {len(counts)}; check the "
            "folder of each class, or the class and split columns"
        )


def usable(
    source: Path,
    strict: bool,
    notify: Notify = silent,
    progress: Progress = no_progress,
    columns: Columns = AS_NAMED,
) -> tuple[list[Photo], list[str]]:
    """Read `source`, and return the photos that decode and why others do not; as in `divide`."""
    listed = photos.read(source, None, columns, strict)
    found = [photo for photo in listed if photo.split in (None, "train", "test")]
    unused = Counter(photo.split for photo in listed if photo.split not in (None, "train", "test"))
    for split, count in sorted(unused.items(), key=str):
        notify(
            f"{counted(count, 'photo')} of split {split!r} are not used; the splits are train "
            "and test"
        )
    if odd := [photo for photo in found if not is_utf8(str(photo.path), photo.label)]:
        raise DataError(
            f"{str(odd[0].path)!a}: the name is not UTF-8, so it cannot be written down; rename it"
        )
    if unlabelled := sum(photo.label is None for photo in found):
        raise DataError(
            f"{source}: {counted(unlabelled, 'photo')} without a class; training needs one for each"
        )
    if source.is_dir():
        _name_empty_folders(source, found, notify)
    readable, skipped, small = _readable(found, strict, progress)
    skipped = [*listed.skipped, *skipped]
    for reason in skipped:
        notify(f"skipped: {reason}")
    if skipped:
        notify(f"{counted(len(skipped), 'photo')} skipped (--strict stops at the first)")
    for line in data_warnings.of_small(small):
        notify(line)
    return readable, skipped


def _copied(source: Path, train: Sequence[Photo]) -> dict[str, int]:
    """Return classes of several photos that are all copies of one, and how many these are.

    Raises DataError where all photos are one.
    """
    alone = [dataclasses.replace(one, label=str(row), split=None) for row, one in enumerate(train)]
    classes: dict[str, Counter[str]] = {}
    for group in photos.find_repeats(alone).labels:
        of_group = Counter(str(train[int(photo.label or 0)].label) for photo in group)
        if of_group.total() == len(train):
            raise DataError(
                f"{source}: all {counted(len(train), 'training photo')} are copies of one, "
                f"{train[0].path}, so there is nothing to learn; give other photos"
            )
        for label, count in of_group.items():
            classes.setdefault(label, Counter())[str(group[0].label)] = count
    whole = Counter(str(photo.label) for photo in train)
    return {
        label: whole[label]
        for label, sizes in classes.items()
        if len(sizes) == 1 and sizes.total() == whole[label] > 1
    }


def _name_empty_folders(source: Path, found: Sequence[Photo], notify: Notify) -> None:
    used = {folder for photo in found for folder in photo.path.parents}
    empty = sorted(
        entry.name
        for entry in source.iterdir()
        if entry.is_dir() and not entry.name.startswith(".") and entry not in used
    )
    # A dataset in its official layout has folders of other things too; classes lie side by side.
    if empty and all(photo.path.parent.parent == source for photo in found):
        notify(f"{data_warnings.named(empty)}: the folder has no images; left out")


def _readable(
    found: Sequence[Photo], strict: bool, progress: Progress
) -> tuple[list[Photo], list[str], list[str]]:
    """Return the photos that decode, why others do not, and the paths of those that are small."""

    def check(photo: Photo) -> tuple[int, str | None]:
        try:
            # JPEGs at 1/8 scale: whole, yet quick, and small ones as they are
            return min(images.decode(photo.path, 64, photo.reading).size), None
        except ImageError as error:
            return 0, str(error)

    kept, skipped, small = [], [], []
    with ThreadPoolExecutor() as pool:
        for done, (photo, (side, reason)) in enumerate(
            zip(found, pool.map(check, found), strict=True), start=1
        ):
            if reason is None:
                kept.append(photo)
                small += [str(photo.path)] if side < data_warnings.SMALL_SIDE else []
            elif strict:
                pool.shutdown(cancel_futures=True)
                raise ImageError(reason)
            else:
                skipped.append(reason)
            progress(done, len(found))
    return kept, skipped, small


def _split(
    readable: Sequence[Photo], val_fraction: float, seed: int
) -> tuple[list[Photo], list[Photo]]:
    train = [photo for photo in readable if photo.split == "train"]
    test = [photo for photo in readable if photo.split == "test"]
    chooser = np.random.default_rng(seed)
    undivided: dict[str, list[Photo]] = {}
    for photo in readable:
        if photo.split is None:
            undivided.setdefault(str(photo.label), []).append(photo)
    for _, members in sorted(undivided.items()):
        members.sort(key=lambda photo: str(photo.path))
        # A class that is not asked with tells nothing, so a small part is one photo at least.
        wanted = max(round(val_fraction * len(members)), val_fraction > 0)
        held = min(wanted, len(members) - 1)
        asked = set(chooser.permutation(len(members))[:held].tolist())
        for index, photo in enumerate(members):
            (test if index in asked else train).append(photo)
    return train, test


def _without_copies(
    train: Sequence[Photo], test: Sequence[Photo], allow_leaks: bool, notify: Notify
) -> tuple[list[Photo], list[Photo]]:
    """Return the sides with no photo in both: what was held out here joins its copy in training."""
    sides = [dataclasses.replace(photo, split="train") for photo in train]
    sides += [dataclasses.replace(photo, split="test") for photo in test]
    held = {photo.path for photo in test if photo.split is None}
    copies = {
        photo.path
        for group in photos.find_repeats(sides).splits
        for photo in group
        if photo.split == "test" and photo.path in held
    }
    if copies:
        notify(
            f"{counted(len(copies), 'photo')} held out are copies of training photos, so they train"
        )
    sides = [
        dataclasses.replace(photo, split="train") if photo.path in copies else photo
        for photo in sides
    ]
    check_repeats(sides, allow_leaks, notify)
    return (
        [photo for photo in sides if photo.split == "train"],
        [photo for photo in sides if photo.split == "test"],
    )
