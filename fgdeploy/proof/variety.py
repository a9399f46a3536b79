"""How many photos really differ: a limit that was measured on alike ones proves nothing.

Copies, one picture in two formats, a camera that saw nothing move, black frames with some noise:
all are one photo, whatever their number. Told by a sketch of each frame, 10 x 10 means of grey
with brightness and contrast taken out. Among 1,024 photos of birds the two most alike are 0.46
apart; noise, JPEG quality, another exposure or a shift by up to 3 of 224 pixels mostly make
0.0 to 0.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from fgdeploy.core.codes import unpack
from fgdeploy.core.errors import DataError
from fgdeploy.core.text import counted
from fgdeploy.photos.cell_means import cell_means

Sketches = npt.NDArray[np.float32]
ALIKE = 0.3  # root mean square of two sketches' difference, up to which they are one photo
TOO_FEW = 8  # different photos, below which numbers are chance
_CELLS, _LEAST_CONTRAST = 10, 16.0
# Two codes differ in so many of their bits on average: photos of all kinds in 30 to 50 %, of one
# class in 7 to 35 %; what a model knows nothing of (noise, flat colours) in 1 to 22 % (measured).
_NO_SPREAD, _LITTLE_SPREAD = 0.02, 0.2


@dataclass(frozen=True)
class Variety:
    """Of what a conclusion was drawn: photos read, those that differ, and what fp32 makes of these.

    codes: distinct ones; moving_bits: share of bits that are not the same in all codes; distance:
    mean share of bits by which two codes differ, None for a single photo.
    """

    photos: int
    different: int
    codes: int
    moving_bits: float
    distance: float | None

    def words(self) -> str:
        """Return the counts, such as "280 photos, 1 different"."""
        apart = "" if self.distance is None else f", codes {self.distance:.0%} of bits apart"
        return f"{counted(self.photos, 'photo')}, {self.different:,} different{apart}"


def sketch(frames: npt.NDArray[np.uint8]) -> Sketches:
    """Return one row for each frame of uint8 (N, S, S, 3): (N, at most 100)."""
    count, side = frames.shape[:2]
    cells = min(_CELLS, side)
    rows = np.zeros((count, cells * cells), np.float32)
    for row, frame in zip(rows, frames, strict=True):  # one at a time: memory for one in float
        grey = frame.sum(axis=2, dtype=np.uint32)
        row[:] = cell_means(grey, cells, cells).ravel() / 3
    rows -= rows.mean(axis=1, keepdims=True)
    rows /= np.maximum(rows.std(axis=1, keepdims=True), _LEAST_CONTRAST)
    return rows


def different(sketches: Sketches, known: Sketches | None = None) -> list[int]:
    """Return the rows that are like no row before them, and like none that is `known`."""
    held = np.zeros((len(sketches) + (0 if known is None else len(known)), sketches.shape[1]))
    count = 0 if known is None else len(known)
    if known is not None:
        held[:count] = known
    found = []
    for number, row in enumerate(sketches):
        apart = ((held[:count] - row) ** 2).mean(axis=1)
        if count == 0 or apart.min() > ALIKE**2:
            held[count] = row
            count += 1
            found.append(number)
    return found


def measure(photos: int, codes: npt.NDArray[np.uint8], bits: int) -> Variety:
    """Return the variety of so many photos, of which these differ and have these fp32 codes."""
    ones = unpack(codes, bits).mean(axis=0, dtype=np.float64)
    count = len(codes)
    distance = None
    if count > 1:
        distance = float((2 * ones * (1 - ones)).mean() * count / (count - 1))
    moving = float(((ones > 0) & (ones < 1)).mean())
    return Variety(photos, count, len(np.unique(codes, axis=0)), moving, distance)


def refuse(photos: int, count: int, purpose: str) -> NoReturn:
    """Raise the DataError of photos of which so few differ that they prove nothing."""
    raise DataError(
        f"{counted(photos, 'photo')} {purpose}, but only {count} different: the others look like "
        f"{'it' if count == 1 else 'them'} (copies, one scene, black frames), and numbers of "
        f"alike photos prove nothing; expected at least {TOO_FEW} different ones; give --data "
        "other photos"
    )


def check_enough(photos: int, count: int, purpose: str) -> list[str]:
    """Return warnings if few of the photos differ. Raises DataError if these prove nothing.

    That is fewer than 8 that differ, where at least as many others are like them.
    """
    if count >= TOO_FEW:
        return []
    if 2 * count <= photos:
        refuse(photos, count, purpose)
    return [
        f"{counted(count, 'different photo')} {purpose} prove little; give {TOO_FEW} or more, "
        "better hundreds"
    ]


def check_spread(found: Variety, purpose: str) -> list[str]:
    """Return warnings if the photos' codes differ little. Raises DataError if hardly at all."""
    if found.distance is None or found.different < TOO_FEW:
        return []
    numbers = (
        f"{counted(found.different, 'photo')} {purpose} have "
        f"{counted(found.codes, 'different code')}, on average {found.distance:.1%} of bits apart"
    )
    if found.distance < _NO_SPREAD:
        raise DataError(
            f"{numbers}: whether bits stay the same cannot be told from codes that are the same "
            "anyway; give --data photos of several classes (or the model tells nothing apart)"
        )
    if found.distance < _LITTLE_SPREAD:
        return [
            f"{numbers} (photos of many kinds: 30 to 50 %): the limits tell of such photos only; "
            "give photos of several classes, if there are any"
        ]
    return []


def check(found: Variety, purpose: str) -> Sequence[str]:
    """Return all warnings of a variety. Raises DataError where it proves nothing."""
    return [
        *check_enough(found.photos, found.different, purpose),
        *check_spread(found, purpose),
    ]
