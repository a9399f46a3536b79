"""Which photos calibrate: real ones, spread over the classes, never those that evaluate."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from fgdeploy.bundle import sha256
from fgdeploy.core.errors import DataError, ImageError, UsageError
from fgdeploy.core.text import counted
from fgdeploy.photos import Photo, decode, spread

DEFAULT_IMAGES = 256
FEW, TOO_FEW = 32, 8
SPARED = 16  # photos to check with; of fewer, repair would chase chance
CHECKS, _MOST_CHECK_BYTES = 1024, 256 << 20  # their frames are held in memory
_EVALUATION = {"test", "val", "validation", "eval", "query", "gallery"}


@dataclass(frozen=True)
class Sample:
    """Photos to calibrate on and photos to check the outcome with; no photo is in both.

    Nor is a copy of it, and none is twice in one. checks may be fewer than asked for, or none.
    copies: how many photos were left out as copies of others. warnings: one line each.
    """

    calibration: list[Photo]
    checks: list[Photo]
    warnings: list[str] = field(default_factory=list)
    copies: int = 0


def draw(
    photos: Sequence[Photo], images: int = DEFAULT_IMAGES, image_size: int = 224, seed: int = 0
) -> Sample:
    """Divide a list of photos into those to calibrate on and those to check with.

    Where the list has splits only `train` is used. Checks are other photos than those calibrated
    on, at most 1024 and 256 MiB of pixels; of a short list half calibrates. Of photos with the same
    contents one is used. Raises DataError for a list that has evaluation photos only or fewer than
    8, UsageError for a wrong count.
    """
    if images < TOO_FEW:
        raise UsageError(
            f"--images {images}: ranges of fewer than {TOO_FEW} photos are chance; "
            f"give {DEFAULT_IMAGES}"
        )
    # One that is listed twice must not both calibrate and check.
    usable = list({photo.path: photo for photo in _training_photos(photos)}.values())
    checks = min(CHECKS, max(_MOST_CHECK_BYTES // (3 * image_size**2), 64))
    most = max(2 * images, images + checks)  # more would change nothing
    ordered, copies = _without_copies(spread(usable, len(usable), seed), most)
    if len(ordered) < TOO_FEW:
        many = f" ({len(usable):,} listed, {copies:,} of them copies of others)" if copies else ""
        raise DataError(
            f"{counted(len(ordered), 'photo')} to calibrate on{many}, "
            f"expected at least {TOO_FEW}, better {DEFAULT_IMAGES}; give --data more photos"
        )
    spared = SPARED if len(ordered) >= 2 * SPARED else 0
    count = min(images, max(len(ordered) // 2, min(len(ordered) - spared, FEW)))
    chosen, rest = ordered[:count], ordered[count : count + checks]
    warnings = []
    if copies:
        warnings.append(
            f"left out as copies of others: {counted(copies, 'photo')}; with contents of their "
            f"own: {len(ordered):,}"
        )
    if len(rest) < TOO_FEW:
        warnings.append(
            f"INT8 is checked on photos that calibrated it, as {counted(len(rest), 'other photo')} "
            f"would be left and at least {TOO_FEW} are needed: its numbers flatter it; give --data "
            "more photos"
        )
    if count < FEW:
        warnings.append(
            f"only {counted(count, 'photo')} calibrate: a range that they do not reach is cut "
            "off on the "
            f"device; {DEFAULT_IMAGES} are better"
        )
    labels = {photo.label for photo in chosen}
    if len(labels) == 1 and None not in labels:
        warnings.append(
            f"all photos to calibrate on are of one class ({next(iter(labels))}): ranges of other "
            "classes may be cut off; give photos of several classes, if there are any"
        )
    return Sample(chosen, rest, warnings, copies)


def _without_copies(photos: Sequence[Photo], most: int) -> tuple[list[Photo], int]:
    """Return the first photos, at most `most`, that have contents of their own, and the copies.

    Files that are no images are no copies: each is left in, so that reading it names it.
    """
    found: list[Photo] = []
    images: dict[str, bool | None] = {}  # by content: whether it is one, None if nobody asked yet
    copies = 0
    for photo in photos:
        if len(found) == most:
            break
        try:
            content = sha256(photo.path)
        except OSError:
            content = str(photo.path)
        if content in images and images[content] is None:
            images[content] = _is_image(photo)
        if images.setdefault(content, None):
            copies += 1
        else:
            found.append(photo)
    return found, copies


def _is_image(photo: Photo) -> bool:
    try:
        decode(photo.path, reading=photo.reading)
    except ImageError:
        return False
    return True


def _training_photos(photos: Sequence[Photo]) -> list[Photo]:
    known = sorted({photo.split for photo in photos if photo.split})
    if not known:
        return list(photos)
    chosen = [photo for photo in photos if photo.split == "train"]
    if not chosen:
        chosen = [photo for photo in photos if photo.split not in _EVALUATION and photo.split]
    if not chosen:
        raise DataError(
            f"the photos are all of split {', '.join(known)}, which accuracy is measured on; "
            "calibrate on training photos"
        )
    return chosen


def digest(photos: Sequence[Photo]) -> str:
    """Return a sha256 over what photos show: contents and bit depth, whatever names and order."""
    whole = hashlib.sha256()
    for one in sorted(_content(photo) for photo in photos):
        whole.update(one)
    return whole.hexdigest()


def _content(photo: Photo) -> bytes:
    content = bytes.fromhex(sha256(photo.path))
    if photo.bit_depth is None:
        return content
    return hashlib.sha256(content + bytes([photo.bit_depth])).digest()
