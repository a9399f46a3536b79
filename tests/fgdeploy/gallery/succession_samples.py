"""Two models of colours, and an index of the first that is to become one of the second."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fgdeploy.gallery import Throttle, add_photos
from fgdeploy.hasher import Hasher
from fgdeploy.photos import Photo
from fgdeploy.retrieval import Index, Item
from tests.checks import ColourEngine, colour_bundle
from tests.fgdeploy.gallery.conftest import BITS, MODEL, colour_hasher, paint

NEW = "cd" * 32


def new_hasher(fingerprint: str = NEW, embedding: int | None = None) -> Hasher:
    """Return a hasher whose codes are colours with every bit turned."""
    bundle = colour_bundle(fingerprint, embedding=embedding)
    return Hasher(bundle, ColourEngine(bundle.manifest, flip=0xFF), 3)


def at_once() -> Throttle:
    return Throttle(1)


def filled(folder: Path, count: int, thumbnails: bool = False) -> list[Photo]:
    """Make an index of `count` photos of known colours, `g.fgi`, of the first model."""
    (folder / "photos").mkdir()
    photos = [
        paint(folder / "photos" / f"{n}.png", (n, 9, 7), f"class {n % 3}") for n in range(count)
    ]
    with Index.create(folder / "g.fgi", MODEL, BITS) as index, colour_hasher() as hasher:
        if thumbnails:
            index.thumbnails.keep()
        add_photos(index, hasher, photos)
    return photos


def rest_of(item: Item) -> tuple[object, ...]:
    """Return all of an item but its code."""
    return item.id, item.path, item.label, item.sha256, item.time, item.json


def code_of(number: int, new: bool) -> bytes:
    """Return the code of photo `number` in the old or new model."""
    return (np.array([number, 9, 7], np.uint8) ^ np.uint8(0xFF if new else 0)).tobytes()


def is_whole(index: Index) -> bool:
    """Return whether an index is of the new model; every code must be of the one it says."""
    new = index.fingerprint == NEW
    for item in index.items():
        number = int(Path(item.path or "").stem)
        assert item.code == code_of(number, new), item
    return new
