"""One labelled photo, and lists of them: by split, spread over classes, in batches of frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fgdeploy.core.errors import DataError, ImageError
from fgdeploy.photos import images


@dataclass(frozen=True)
class Photo:
    """One photo: where it lies, its class (None if unknown) and its split (None if undivided)."""

    path: Path
    label: str | None = None
    split: str | None = None


def of_split(photos: Sequence[Photo], split: str) -> list[Photo]:
    """Return the photos of one split; all of them if the list is undivided. Raises DataError."""
    split = split.strip().lower()
    known = sorted({photo.split for photo in photos if photo.split})
    if not known:
        return list(photos)
    if split not in known:
        raise DataError(f"no photos of split {split!r}; the list has {', '.join(known)}")
    return [photo for photo in photos if photo.split == split]


def spread(photos: Sequence[Photo], count: int, seed: int = 0) -> list[Photo]:
    """Pick at most `count` photos, spread evenly over the classes, the same for the same seed."""
    import random

    chooser = random.Random(seed)
    classes: dict[str, list[Photo]] = {}
    for photo in photos:
        classes.setdefault(photo.label or "", []).append(photo)
    for members in classes.values():
        chooser.shuffle(members)
    rounds = max((len(members) for members in classes.values()), default=0)
    turns = [
        members[turn]
        for turn in range(rounds)
        for _, members in sorted(classes.items())
        if turn < len(members)
    ]
    return turns[:count]


def batches(
    photos: Sequence[Photo],
    preprocess: images.Preprocess,
    size: int,
    skipped: list[str],
    strict: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[tuple[list[Photo], npt.NDArray[np.uint8]]]:
    """Yield up to `size` photos at a time with their frames, uint8 (B, S, S, 3).

    Why a photo cannot be read goes to `skipped`, or is raised as ImageError if `strict`. `progress`
    is told after each batch, when its user is done with it.
    """
    group: list[Photo] = []
    frames: list[images.Frame] = []
    for number, photo in enumerate(photos, start=1):
        try:
            frames.append(preprocess.frame(photo.path))
            group.append(photo)
        except ImageError as error:
            if strict:
                raise
            skipped.append(str(error))
        if len(frames) == size:
            yield group, np.stack(frames)
            group, frames = [], []
            if number < len(photos):
                progress(number, len(photos))
    if frames:
        yield group, np.stack(frames)
    if photos:
        progress(len(photos), len(photos))
