from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fgdeploy.bundle import Bundle
from fgdeploy.core.errors import BundleError, DataError, MissingDependency, UsageError
from fgdeploy.triton import write_deepstream
from tests.checks import refused


def test_a_folder_says_what_it_is(eet: Bundle, tmp_path: Path) -> None:
    written = write_deepstream(eet, tmp_path / "ds", "int8", batch=4)
    assert written.graph == "int8-fp16"
    held = {path.name: path.stat().st_size for path in written.path.iterdir()}
    assert held == written.files and set(held) == {"config_infer.txt", "model.onnx", "README.md"}
    text = (written.path / "README.md").read_text()
    assert "**Never run on hardware.**" in text and "pixels:4x3x64x64" in text
    assert "as_array(floats, (32,))" in text and eet.manifest.fingerprint in text


def test_only_its_own_folder_is_replaced(eet: Bundle, tmp_path: Path) -> None:
    write_deepstream(eet, tmp_path / "ds")
    with refused(DataError, "is there already; pass --overwrite"):
        write_deepstream(eet, tmp_path / "ds")
    write_deepstream(eet, tmp_path / "ds", batch=2, overwrite=True)
    (tmp_path / "ds" / "notes").write_text("mine")
    with refused(DataError, "is not what fgdeploy wrote for DeepStream"):
        write_deepstream(eet, tmp_path / "ds", overwrite=True)
    with refused(DataError, "no folder .*none to write ds into"):
        write_deepstream(eet, tmp_path / "none" / "ds")


def test_what_is_refused(eet: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with refused(UsageError, "--batch 0: expected 1 to 4096"):
        write_deepstream(eet, tmp_path / "ds", batch=0)
    with refused(BundleError, "holds no fp8 graph"):
        write_deepstream(eet, tmp_path / "ds", "fp8")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with refused(MissingDependency, r"fgdeploy\[calibrate\]"):
        write_deepstream(eet, tmp_path / "ds")
    assert list(tmp_path.iterdir()) == []
