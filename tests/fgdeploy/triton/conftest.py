"""A small calibrated EET bundle, and engines that say they are TensorRT's."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from fgdeploy.bundle import Bundle, open_bundle
from fgdeploy.demo.moths import write_moths
from fgdeploy.engines.record import Record
from fgdeploy.export.export_settings import ExportSettings
from fgdeploy.export.exporter import export_bundle
from tests.exported import calibrated


@pytest.fixture(scope="session")
def eet(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """EET on a random small ViT at 64 pixels, 32 bits, with check frames: do not write into it."""
    folder = tmp_path_factory.mktemp("served")
    write_moths(folder / "moths", 4, 12, size=96)
    settings = ExportSettings(
        backbone="test_vit",
        weights="random",
        image_size=64,
        options={"stages": "2:8,4:4"},
        bits=32,
        head="lsh",
    )
    return calibrated(
        export_bundle(settings, folder / "eet.fgd").bundle, folder / "moths" / "split.csv"
    )


@pytest.fixture
def own(eet: Bundle, tmp_path: Path) -> Bundle:
    """A copy of it that the test may change."""
    return open_bundle(shutil.copytree(eet.path, tmp_path / "eet.fgd"))


def put_plan(bundle: Bundle, folder: str = "tensorrt-fp16-sm87", batches: str = "1,4") -> bytes:
    """Put bytes into a bundle that pass for a TensorRT plan; only their record is ever read."""
    content = f"a plan of {folder}".encode()
    place = bundle.path / "engines" / folder
    place.mkdir(parents=True)
    (place / "engine.plan").write_bytes(content)
    Record(
        backend="tensorrt",
        precision="fp16",
        file="engine.plan",
        sha256=hashlib.sha256(content).hexdigest(),
        bytes=len(content),
        graph="fp16",
        graph_sha256=bundle.manifest.files["model.fp16.onnx"]["sha256"],
        backend_version="10.3.0",
        device={"kind": "cuda", "name": "Orin", "compute_capability": "8.7", "driver": "540"},
        batches=tuple(map(int, batches.split(","))),
        flags={},
        build_s=1.0,
        peak_host_mib=1.0,
        created_by="tests",
    ).write(place)
    return content
