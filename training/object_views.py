"""Three views of a photo: whole, its object cut out, its background with the object made unclear.

'Fine-grained Image Retrieval via Dual-Vision Adaptation' (DVA). Where the paper says nothing, the
choices are said at the functions below.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor
from torchvision.transforms import v2

from fgdeploy.core.errors import DataError, UsageError
from fgdeploy.core.progress import Notify
from fgdeploy.core.text import counted
from fgdeploy.models.methods.base import Recipe
from fgdeploy.photos.boxes import Box, official, read_boxes
from fgdeploy.training.data import IMAGE
from fgdeploy.training.division import Division
from fgdeploy.training.train_settings import TrainSettings

OBJECT, BACKGROUND = "object", "background"
LARGEST = 0.5  # part of a photo that a box may be, for there to be a background


def boxes_of(
    division: Division, settings: TrainSettings, recipe: Recipe, notify: Notify
) -> tuple[Box | None, ...] | None:
    """Return the box of each training photo, None for those without; None for recipes without.

    From `settings.boxes`, or the list of a dataset in its official layout. Raises UsageError where
    boxes are wanted or given in vain, and DataError.
    """
    if not recipe.boxes:
        if settings.boxes is not None:
            raise UsageError(
                f"--boxes {settings.boxes}: recipe {settings.recipe} looks at whole photos; leave "
                "it out, or name a --recipe that uses boxes"
            )
        return None
    path = settings.boxes or official(settings.data)
    if path is None:
        raise UsageError(
            f"recipe {settings.recipe} learns from objects, and nothing says where they are: pass "
            "--boxes FILE, or train with --recipe fast"
        )
    found = read_boxes(path, division.train, settings.data, division.test)
    for note in found.notes:
        notify(note)
    with_object = sum(box is not None for box in found.of)
    if not with_object:
        raise DataError(f"{path}: no training photo has a box; give boxes of these too")
    small = sum(has_background(box) for box in found.of)
    notify(
        f"views of {counted(with_object, 'object')}, and of {counted(small, 'background')} where "
        "the object takes less than half of the photo"
    )
    return found.of


def has_background(box: Box | None) -> bool:
    """Tell whether enough of a photo lies around its object."""
    return box is not None and box.area < LARGEST


def object_views(size: int, least: float) -> Callable[[Image.Image, Box | None], dict[str, Tensor]]:
    """Return what makes the views `image`, `object` and `background`, uint8 [3, size, size] each.

    Each is scaled to a short side of size / sqrt(least), cut at random and flipped, on its own.
    A photo without a box, or with a large one, has black views in place of those that it lacks.
    """
    transform = v2.Compose(
        [
            v2.Resize(round(size / least**0.5), antialias=True),
            v2.RandomCrop(size),
            v2.RandomHorizontalFlip(),
            v2.PILToTensor(),
        ]
    )

    def make(image: Image.Image, box: Box | None) -> dict[str, Tensor]:
        nothing = torch.zeros(3, size, size, dtype=torch.uint8)
        views = {IMAGE: transform(image), OBJECT: nothing, BACKGROUND: nothing}
        if box is not None:
            views[OBJECT] = transform(cut_out(image, box))
        if box is not None and has_background(box):
            views[BACKGROUND] = transform(blurred_out(image, box))
        return views

    return make


def cut_out(image: Image.Image, box: Box) -> Image.Image:
    """Return the object, in the middle of a square of its mean colour."""
    part = image.crop(_pixels(image, box))
    side = max(part.size)
    mean = np.asarray(part, np.float64).reshape(-1, 3).mean(axis=0).round().astype(int).tolist()
    square = Image.new("RGB", (side, side), tuple(mean))
    square.paste(part, ((side - part.width) // 2, (side - part.height) // 2))
    return square


def blurred_out(image: Image.Image, box: Box) -> Image.Image:
    """Return the photo with its object mean-filtered, over windows of half the object's long side.

    The paper has no size for the filter: this one leaves colours of the object and no form.
    """
    place = _pixels(image, box)
    radius = max(1, max(place[2] - place[0], place[3] - place[1]) // 4)
    hidden = image.copy()
    hidden.paste(image.filter(ImageFilter.BoxBlur(radius)).crop(place), place[:2])
    return hidden


def _pixels(image: Image.Image, box: Box) -> tuple[int, int, int, int]:
    """Return a box in whole pixels, one at least in each direction."""
    left = min(int(box.left * image.width), image.width - 1)
    top = min(int(box.top * image.height), image.height - 1)
    right = max(left + 1, round(box.right * image.width))
    bottom = max(top + 1, round(box.bottom * image.height))
    return left, top, right, bottom
