"""An index, and a hasher whose codes are colours, known beforehand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from fgdeploy.hasher import Hasher
from fgdeploy.photos import Photo
from fgdeploy.retrieval import Index
from tests.checks import ColourEngine, colour_bundle

SIZE, BITS = 8, 24
MODEL = "ab" * 32


def colour_hasher(fingerprint: str = MODEL, batch: int = 3) -> Hasher:
    bundle = colour_bundle(fingerprint)
    return Hasher(bundle, ColourEngine(bundle.manifest), batch)


def frames_run(hasher: Hasher) -> int:
    assert isinstance(hasher.engine, ColourEngine)
    return hasher.engine.frames


def paint(path: Path, colour: tuple[int, int, int], label: str | None = None) -> Photo:
    Image.new("RGB", (SIZE, SIZE), colour).save(path)
    return Photo(path, label)


@pytest.fixture
def hasher() -> Iterator[Hasher]:
    with colour_hasher() as made:
        yield made


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    with Index.create(tmp_path / "gallery.fgi", MODEL, BITS) as made:
        yield made


@pytest.fixture
def photos(tmp_path: Path) -> list[Photo]:
    return [paint(tmp_path / f"{n}.png", (n, 0, 255), f"class {n % 2}") for n in range(8)]
