"""A bundle with an engine, built once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fgdeploy.bundle import Bundle, open_bundle
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


@pytest.fixture(scope="session")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """EET on six narrow blocks, exported: do not write into it, but for its engines."""
    import torch

    from tests.exported import Case, Exports

    torch.set_num_threads(1)
    case = Case("eet", ("stages=2:8,4:4,5:2",), "test_vit")
    return Exports(tmp_path_factory.mktemp("exports")).of(case)
