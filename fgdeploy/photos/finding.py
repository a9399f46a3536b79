"""Which photos are meant: those that were named, or the only ones that lie in a folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from fgdeploy.core.errors import UsageError
from fgdeploy.core.progress import Notify, silent
from fgdeploy.photos import images
from fgdeploy.photos.listing import read
from fgdeploy.photos.photo import Photo

# A folder, a CSV or an image, or a list of photos.
Photos = str | os.PathLike[str] | Sequence[Photo]

_LONGEST_HEADER = 10_000  # characters of a CSV's first line


def named_or_found(photos: Photos | None, purpose: str, notify: Notify = silent) -> Sequence[Photo]:
    """Return photos as a list; where none are named, those that lie in the working folder.

    purpose: what they are for, in messages, as in "to calibrate on". Raises UsageError if there
    are none or several places of them, DataError for a place without photos.
    """
    if photos is None:
        photos = find_photos(Path())
        if photos is None:
            raise UsageError(f"there are no photos here {purpose}; name real ones with --data")
        notify(f"photos {purpose}: {photos}, the only ones here")
    if isinstance(photos, (str, os.PathLike)):
        return read(Path(photos))
    return photos


def find_photos(folder: Path) -> Path | None:
    """Return the one place in a folder where photos lie: a CSV of paths and classes, or a folder.

    None if there is none. Raises UsageError if there are several.
    """
    tables = (path for path in sorted(folder.glob("*.csv")) if path.is_file())
    places = [path for path in tables if _lists_photos(path)]
    for path in sorted(folder.iterdir()):
        if path.is_dir() and path.suffix not in (".fgd", ".fgi") and path.name[0] not in "._":
            inside = path / "split.csv"
            if inside.is_file() and _lists_photos(inside):
                places.append(inside)
            elif any(True for _ in images.find(path)):
                places.append(path)
    if len(places) > 1:
        raise UsageError(
            f"photos lie in {', '.join(str(path.relative_to(folder)) for path in places[:4])}; "
            "name one with --data"
        )
    return places[0] if places else None


def _lists_photos(path: Path) -> bool:
    with open(path, encoding="utf-8-sig", errors="replace") as stream:
        line = stream.readline(_LONGEST_HEADER)
    header = [name.strip().strip('"').lower() for name in line.split(",")]
    return "path" in header and "class" in header
