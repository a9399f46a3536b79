"""An index in the making."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fgdeploy.retrieval import Index
from tests.fgdeploy.retrieval.samples import (
    BITS,
    MODEL,
    photo,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gallery.fgi"


@pytest.fixture
def index(path: Path) -> Iterator[Index]:
    with Index.create(path, MODEL, BITS) as made:
        yield made


@pytest.fixture
def three(index: Index) -> Index:
    index.add([photo("a", 0b1), photo("b", 0b11, "moth"), photo("c", 0b111, "owl")])
    return index
