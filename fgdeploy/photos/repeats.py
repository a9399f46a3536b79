"""Photos that a list holds more than once, by path or by content, and contradicts itself in."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from hashlib import sha256

from fgdeploy.photos.photo import Photo

_TAIL = 4096  # bytes: the ends of two photos differ almost always
_SHOWN = 3


@dataclass(frozen=True)
class Repeats:
    """Groups of entries that are one photo: with several labels, and in several splits."""

    labels: list[list[Photo]]
    splits: list[list[Photo]]

    def of_labels(self) -> str:
        """Return how many photos have several labels, and the first of them; empty for none."""
        return _words(self.labels, "more than one class", lambda photo: photo.label)

    def of_splits(self) -> str:
        """Return how many photos are in several splits, and the first of them; empty for none."""
        return _words(self.splits, "more than one split", lambda photo: photo.split)


def find_repeats(photos: Sequence[Photo], contents: bool = True) -> Repeats:
    """Return the photos that stand in a list more than once, with other labels or other splits.

    contents: also under other names; else by path alone, which reads nothing. Sizes are compared
    first, then the last 4 KiB, and only files that agree in both are read whole.
    """
    if not contents and len({hash(_path(photo)) for photo in photos}) == len(photos):
        return Repeats([], [])  # spares the memory of groups of one
    keys = (_size, _tail, _content) if contents else (_path,)
    groups = [list(photos)]
    for key in keys:
        groups = [part for group in groups for part in _parts(group, key) if _differ(part)]
    return Repeats(
        [group for group in groups if len({photo.label for photo in group}) > 1],
        [group for group in groups if len({photo.split for photo in group} - {None}) > 1],
    )


def _parts(group: Sequence[Photo], key: Callable[[Photo], Hashable]) -> list[list[Photo]]:
    parts: dict[Hashable, list[Photo]] = {}
    for photo in group:
        try:
            name = key(photo)
        except OSError:  # decoding will say why
            name = _path(photo)
        parts.setdefault(name, []).append(photo)
    return list(parts.values())


def _differ(group: Sequence[Photo]) -> bool:
    return len({(photo.label, photo.split) for photo in group}) > 1


def _path(photo: Photo) -> str:
    return os.path.abspath(photo.path)


def _size(photo: Photo) -> Hashable:
    return os.stat(photo.path).st_size or _path(photo)  # empty files are no photos


def _tail(photo: Photo) -> Hashable:
    with open(photo.path, "rb") as stream:
        stream.seek(-min(_TAIL, os.fstat(stream.fileno()).st_size), os.SEEK_END)
        return stream.read()


def _content(photo: Photo) -> Hashable:
    with open(photo.path, "rb") as stream:
        return sha256(stream.read()).digest()


def _words(groups: Sequence[Sequence[Photo]], where: str, of: Callable[[Photo], str | None]) -> str:
    """Return the groups in words, each by two of its entries that differ."""
    if not groups:
        return ""
    shown = []
    for group in groups[:_SHOWN]:
        first = group[0]
        other = next(photo for photo in group if of(photo) != of(first))
        shown.append(
            f"{first.path} ({of(first) or 'none'}) and {other.path} ({of(other) or 'none'})"
        )
    rest = f"; and {len(groups) - _SHOWN} more" if len(groups) > _SHOWN else ""
    number = "1 photo is" if len(groups) == 1 else f"{len(groups)} photos are"
    return f"{number} in {where}: {'; '.join(shown)}{rest}"
