"""A pack, and where to unpack it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fgdeploy.bundle.packing import pack


@pytest.fixture
def packed(toy_bundle: Path, tmp_path: Path) -> Path:
    """The toy bundle as one file, in a folder of its own."""
    (tmp_path / "there").mkdir()
    return pack(toy_bundle, tmp_path / "there" / "toy.fgdz").path


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "here").mkdir()
    return tmp_path / "here" / "toy.fgd"
