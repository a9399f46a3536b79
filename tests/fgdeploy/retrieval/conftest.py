"""An index in the making."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fgdeploy.retrieval import Index
from tests.fgdeploy.retrieval import many_segments
from tests.fgdeploy.retrieval.samples import BITS, MODEL, photo


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gallery.fgi"


@pytest.fixture
def told() -> list[str]:
    """What the index says while it works."""
    return []


@pytest.fixture
def index(path: Path, told: list[str]) -> Iterator[Index]:
    with Index.create(path, MODEL, BITS, told.append) as made:
        yield made


@pytest.fixture
def three(index: Index) -> Index:
    index.add([photo("a", 0b1), photo("b", 0b11, "moth"), photo("c", 0b111, "owl")])
    return index


@pytest.fixture
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let little data fill many segments and blocks."""
    many_segments.small_files(monkeypatch)
