"""What tests of lists of photos share: small data sets written as their authors lay them out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fgdeploy.photos import Photo
from fgdeploy.photos.layouts import find_layout

Brief = list[tuple[str, str | None, str | None]]


def draw(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6), (200, 120, 40)).save(path, "JPEG")


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_bytes(text.replace(old, new).encode())


def structs(fields: list[str], *rows: tuple[Any, ...]) -> Any:
    """Return a MATLAB struct array, 1 x N, as savemat takes it."""
    return np.array(list(rows), dtype=[(field, object) for field in fields]).reshape(1, -1)


def cells(*names: str) -> Any:
    """Return a MATLAB cell array of strings, 1 x N."""
    return np.array([names], dtype=object)


def save_mat(path: Path, **variables: Any) -> None:
    scipy_io = pytest.importorskip("scipy.io")
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy_io.savemat(path, variables)


def brief(found: list[Photo] | None, root: Path) -> Brief:
    assert found is not None
    return [(p.path.relative_to(root).as_posix(), p.label, p.split) for p in found]


def name_of(folder: Path) -> str | None:
    found = find_layout(folder)
    return found[0].name if found else None
