"""Where the object lies in a photo: boxes from a file, matched to photos and checked against them.

A box is kept in fractions of the upright photo, as it is shown. Files have pixels, or fractions
where no number in the whole file is above 1. Pixels are those of the upright photo too, as tools
show it; a COCO file whose width and height are those of the photo before it was turned (EXIF) means
that one, and its boxes are turned with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from PIL import Image

from fgdeploy.core.errors import DataError
from fgdeploy.core.text import counted
from fgdeploy.photos.box_files import OFFICIAL, Entry, read_entries
from fgdeploy.photos.images import stored_size
from fgdeploy.photos.layouts import find_layout
from fgdeploy.photos.photo import Photo

# A box of a stored photo as it lies in the upright one, for the turns that change sides.
_ASIDE = {
    Image.Transpose.TRANSPOSE: lambda x0, y0, x1, y1: (y0, x0, y1, x1),
    Image.Transpose.ROTATE_270: lambda x0, y0, x1, y1: (1 - y1, x0, 1 - y0, x1),
    Image.Transpose.TRANSVERSE: lambda x0, y0, x1, y1: (1 - y1, 1 - x1, 1 - y0, 1 - x0),
    Image.Transpose.ROTATE_90: lambda x0, y0, x1, y1: (y0, 1 - x1, y1, 1 - x0),
}
_OVER = 0.05  # of a side: what a box may reach beyond the photo, to be cut off there


@dataclass(frozen=True)
class Box:
    """Part of an upright photo: left, top, right and bottom in fractions of its sides, 0 to 1."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def area(self) -> float:
        """Return which part of the photo it is, above 0 and up to 1."""
        return (self.right - self.left) * (self.bottom - self.top)


@dataclass(frozen=True)
class Boxes:
    """The box of each photo, None for those without, and what to tell of the file."""

    of: tuple[Box | None, ...]
    notes: tuple[str, ...] = ()


def official(source: Path) -> Path | None:
    """Return the list of boxes that a dataset in its official layout has, None without one."""
    found = find_layout(source) if source.is_dir() else None
    path = None if found is None else found[1] / OFFICIAL
    return path if path is not None and path.is_file() else None


def read_boxes(
    path: Path, photos: Sequence[Photo], source: Path, others: Sequence[Photo] = ()
) -> Boxes:
    """Return the boxes that a file has for photos; source: the folder or list that they are of.

    others: photos of the source whose boxes are not asked for.

    A name in the file is a path in `source` (or beside the file), or the end of one; an end of the
    name alone counts where one photo and one name of the file have it. Of several boxes of a photo
    the one of the highest score counts, of the largest area where none has a score. Raises
    DataError for names that mean several photos, for files that name none of them, and boxes that
    do not lie in their photo.
    """
    entries = read_entries(path)
    every = (*photos, *others)
    matched = _Matcher(path, every, source, (one.name for one in entries))
    fractions = max(max(one.corners) for one in entries) <= 1
    kept: dict[int, tuple[tuple[float, float], Box]] = {}
    several: set[int] = set()
    foreign: set[str] = set()
    for entry in entries:
        row = matched.row(entry)
        if row is None:
            foreign.add(entry.name)
            continue
        box = _placed(entry, every[row], fractions)
        rank = (-1.0 if entry.score is None else entry.score, box.area)
        if row in kept:
            several.add(row)
        if row not in kept or rank > kept[row][0]:
            kept[row] = rank, box
    if not kept:
        raise DataError(
            f"{path}: none of its photos is among those of {source}; the first is "
            f"{entries[0].name!r}, expected names such as {matched.example!r}"
        )
    found = tuple(kept[row][1] if row in kept else None for row in range(len(photos)))
    twice = sum(row < len(photos) for row in several)
    return Boxes(found, tuple(_notes(path, found.count(None), twice, len(foreign))))


def _notes(path: Path, without: int, several: int, foreign: int) -> list[str]:
    found = []
    if without:
        found.append(f"{path.name}: {counted(without, 'photo')} without a box")
    if several:
        found.append(
            f"{path.name}: {counted(several, 'photo')} with several boxes; the one of the highest "
            "score counts, else the largest"
        )
    if foreign:
        found.append(f"{path.name}: boxes of {counted(foreign, 'photo')} that are not among these")
    return found


class _Matcher:
    """Finds the photo that a name means."""

    def __init__(
        self, path: Path, photos: Sequence[Photo], source: Path, names: Iterable[str]
    ) -> None:
        every = {_parts(name) for name in names}
        self._tails = Counter(one[-count:] for one in every for count in range(1, len(one) + 1))
        root = source if source.is_dir() else source.parent
        self._ends: dict[str, list[tuple[tuple[str, ...], int]]] = {}
        self._whole: dict[str, int] = {}
        for row, photo in enumerate(photos):
            for folder in (root, path.parent):
                if name := _inside(photo.path, folder):
                    self._whole.setdefault(name, row)
            self._whole.setdefault(photo.path.absolute().as_posix(), row)
            self._ends.setdefault(photo.path.name, []).append((photo.path.parts, row))
        self._photos = photos
        self.example = _inside(photos[0].path, root) or photos[0].path.name

    def row(self, entry: Entry) -> int | None:
        """Return the row of the photo that an entry names, None for none. Raises DataError."""
        parts = _parts(entry.name)
        if (row := self._whole.get("/".join(parts).replace("//", "/"))) is not None:
            return row
        same = self._ends.get(parts[-1] if parts else "", [])
        for length in range(len(parts), 0, -1):
            found = [row for of, row in same if of[-length:] == parts[-length:]]
            whole = length == len(parts)
            if len(found) > 1 and whole:
                first, second = (str(self._photos[row].path) for row in found[:2])
                raise DataError(
                    f"{entry.where}: {entry.name!r} may be {first} or {second}; name it with its "
                    "folder"
                )
            if found:  # an end of the name alone tells a photo where no other name has this end
                alone = len(found) == 1 and self._tails[parts[-length:]] == 1
                return found[0] if whole or alone else None
        return None


def _parts(name: str) -> tuple[str, ...]:
    return PurePosixPath(name.replace("\\", "/")).parts


def _inside(path: Path, folder: Path) -> str | None:
    try:
        return path.absolute().relative_to(folder.absolute()).as_posix()
    except ValueError:
        return None


def _placed(entry: Entry, photo: Photo, fractions: bool) -> Box:
    """Return an entry's box in fractions of its upright photo. Raises DataError."""
    if fractions:
        return _cut(entry, entry.corners, "1 x 1, as all numbers of the file are")
    stored, turn = stored_size(photo.path)
    upright = stored[::-1] if turn in _ASIDE else stored
    size = entry.size or upright
    x0, y0, x1, y1 = entry.corners
    placed = x0 / size[0], y0 / size[1], x1 / size[0], y1 / size[1]
    if not _alike(size, upright):
        if not _alike(size, stored):
            raise DataError(
                f"{entry.where}: its photo is {size[0]} x {size[1]} there, but {photo.path} is "
                f"{upright[0]} x {upright[1]}; give the boxes of this photo"
            )
        placed = _ASIDE[turn](*placed)  # type: ignore[index]
    return _cut(entry, placed, f"{size[0]} x {size[1]} pixels")


def _alike(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Tell whether two sizes have one shape, but for a pixel of rounding in either side."""
    return abs(one[0] * other[1] - one[1] * other[0]) <= max(*one, *other)


def _cut(entry: Entry, corners: tuple[float, float, float, float], size: str) -> Box:
    """Cut off what reaches a little beyond the photo; refuse what reaches further."""
    if min(corners) < -_OVER or max(corners) > 1 + _OVER:
        x0, y0, x1, y1 = entry.corners
        raise DataError(
            f"{entry.where}: the box from {x0:g}, {y0:g} to {x1:g}, {y1:g} leads out of its photo, "
            f"{entry.name}, of {size}; check what its numbers are"
        )
    left, top, right, bottom = (min(1.0, max(0.0, value)) for value in corners)
    if right <= left or bottom <= top:
        raise DataError(f"{entry.where}: the box lies beside its photo, {entry.name}")
    return Box(left, top, right, bottom)
