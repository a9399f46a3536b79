"""Photos that are on both sides of an evaluation: refused, as scores would be too good."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fgdeploy.core.errors import DataError, ImageError
from fgdeploy.core.progress import Notify, silent

if TYPE_CHECKING:
    from fgdeploy.photos import Photo


def check_repeats(photos: Sequence[Photo], allow_leaks: bool, notify: Notify = silent) -> None:
    """Refuse photos that are in two splits, by path or content, or tell of them if allowed.

    notify: told of these, and of photos with two labels. Raises DataError.
    """
    from fgdeploy.photos import find_repeats  # here, so that scoring codes needs NumPy alone

    found = find_repeats(photos)
    repeats = dataclasses.replace(
        found,
        labels=[group for group in found.labels if _is_photo(group[0].path)],
        splits=[group for group in found.splits if _is_photo(group[0].path)],
    )
    if said := repeats.of_labels():
        notify(f"warning: {said}; one of them is wrong")
    if said := repeats.of_splits():
        if not allow_leaks:
            raise DataError(
                f"{said}; scores would be too good: leave them out of one, or pass --allow-leaks"
            )
        notify(f"warning: {said}; scores are too good")


def _is_photo(path: Path) -> bool:
    """Tell whether a file can be read; one that cannot is on no side."""
    from fgdeploy.photos import Reading, decode

    try:
        decode(path, 64, Reading(bit_depth=16))  # JPEGs at 1/8 scale; any depth will do
    except ImageError:
        return False
    return True
