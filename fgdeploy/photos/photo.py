"""One labelled photo, and lists of them: by split, spread over classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fgdeploy.core.errors import DataError
from fgdeploy.photos.pixels import Reading


@dataclass(frozen=True)
class Photo:
    """One photo: where it lies, its class (None if unknown) and its split (None if undivided).

    bit_depth: bits that count where its pixels have 16, such as 12; None: see `Reading`.
    """

    path: Path
    label: str | None = None
    split: str | None = None
    bit_depth: int | None = None

    @property
    def reading(self) -> Reading:
        """Return how its pixels are meant."""
        return Reading(bit_depth=self.bit_depth)


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
