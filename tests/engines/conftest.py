"""A bundle with an engine, built once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fgdeploy.bundle import open_bundle
from fgdeploy.engines import build


@pytest.fixture(scope="session")
def built_once(toy_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy bundle with an fp32 engine of each CPU backend: do not write into it."""
    folder = tmp_path_factory.mktemp("built") / "toy.fgd"
    shutil.copytree(toy_bundle, folder)
    for backend in ("onnxruntime", "openvino"):
        build(open_bundle(folder), backend, "fp32")
    return folder


@pytest.fixture
def built_bundle(built_once: Path, tmp_path: Path) -> Path:
    """A copy of it that the test may damage."""
    return Path(shutil.copytree(built_once, tmp_path / "built.fgd"))
