"""Which photos are meant: those that were named, or the only ones that lie in a folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from fgdeploy.core.errors import UsageError
from fgdeploy.core.progress import Notify, silent
from fgdeploy.photos import table
from fgdeploy.photos.listing import read
from fgdeploy.photos.photo import Photo
from fgdeploy.photos.repeats import find_repeats
from fgdeploy.photos.scanning import scan
from fgdeploy.photos.table import AS_NAMED, Columns

# A folder, a CSV or an image, or a list of photos.
Photos = str | os.PathLike[str] | Sequence[Photo]

SPLIT_FILE = "split.csv"  # the list that a training leaves, and that may lie in a folder of photos
_WEIGHTS = "model.safetensors"  # what makes a folder a training's


def named_or_found(
    photos: Photos | None,
    purpose: str,
    notify: Notify = silent,
    own: Path | None = None,
    columns: Columns = AS_NAMED,
    strict: bool = False,
) -> Sequence[Photo]:
    """Return photos as a list; where none are named, `own`, or those in the working folder.

    purpose: what they are for, in messages, as in "to calibrate on". own: the list of the training
    that a model comes from, see `own_split`. columns, strict: as in `read`. Raises UsageError if
    there are none, several places of them, or what is given is no list of photos, DataError for a
    place without photos.
    """
    if photos is None and own is not None:
        photos = own
        notify(f"photos {purpose}: {own}, the list of this model's training")
    if photos is None:
        photos = find_photos(Path(), columns)
        if photos is None:
            raise UsageError(f"there are no photos here {purpose}; name real ones with --data")
        notify(f"photos {purpose}: {photos}, the only ones here")
    if not isinstance(photos, (str, os.PathLike)):
        return _checked(photos, purpose)
    listing = read(Path(photos), None, columns, strict)
    if said := find_repeats(listing, contents=False).of_labels():
        notify(f"warning: {said}")
    return listing


def _checked(photos: Sequence[Photo], purpose: str) -> Sequence[Photo]:
    if isinstance(photos, Sequence) and all(isinstance(photo, Photo) for photo in photos):
        return photos
    raise UsageError(
        f"photos {purpose}: expected a path or a list of photos as fgdeploy.photos.read gives it; "
        "give [Photo(path)]"
    )


def own_split(run: object, *places: Path) -> Path | None:
    """Return the list of photos that a training left, by its folder's name in one of some places.

    None if there is none: the folder may have been renamed, or lie elsewhere.
    """
    if not isinstance(run, str) or run in ("", ".", "..") or "/" in run:
        return None
    lists = (place / run / SPLIT_FILE for place in places)
    return next((path for path in lists if os.path.isfile(path)), None)


def find_photos(folder: Path, columns: Columns = AS_NAMED) -> Path | None:
    """Return the one place in a folder where photos lie: a CSV of paths and classes, or a folder.

    The list that a training left counts where nothing else is there. None if there is none. Raises
    UsageError if there are several.
    """
    tables = (path for path in sorted(folder.iterdir()) if path.suffix.lower() in table.SUFFIXES)
    places = [path for path in tables if path.is_file() and table.lists_photos(path, columns)]
    trained = []
    for path in sorted(folder.iterdir()):
        if path.is_dir() and path.suffix not in (".fgd", ".fgi") and path.name[0] not in "._":
            inside = path / SPLIT_FILE
            listed = os.path.isfile(inside) and table.lists_photos(inside, columns)
            if os.path.isfile(path / _WEIGHTS):
                trained += [inside] if listed else []
            elif listed:
                places.append(inside)
            elif scan(path).names:
                places.append(path)
    places = places or trained
    if len(places) > 1:
        raise UsageError(
            f"photos lie in {', '.join(str(path.relative_to(folder)) for path in places[:4])}; "
            "name one with --data"
        )
    return places[0] if places else None
