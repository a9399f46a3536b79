"""A small exported EET whose channels differ as those of trained networks do, and its plans."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import numpy_helper

from fgdeploy import photos
from fgdeploy.bundle import Bundle, open_bundle, seal
from fgdeploy.calibration import int8_plan
from fgdeploy.calibration.calibration_settings import CalibrationSettings
from fgdeploy.calibration.calibrator import Calibrated, calibrate
from fgdeploy.calibration.int8_plan import Int8Plan
from fgdeploy.demo.moths import write_moths
from fgdeploy.photos import Photo, batches
from fgdeploy.proof.parity import Limits
from tests.calibration import graphs

Frames = npt.NDArray[np.uint8]
LOOSE = Limits(min_bit_agreement=0.5)
SETTINGS = CalibrationSettings(images=16)
PLAIN = CalibrationSettings(range="minmax", images=16, balance=False, compensate=False)


@pytest.fixture(scope="session")
def moths(tmp_path_factory: pytest.TempPathFactory) -> list[Photo]:
    """Photos of 4 species, 8 to train and 8 to test each."""
    return photos.read(write_moths(tmp_path_factory.mktemp("moths"), 4, 16, size=64))


@pytest.fixture(scope="session")
def rough(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """EET on a small ViT with random weights, biases and norms of which some channels stick out.

    Do not write into it.
    """
    pytest.importorskip("torch", reason="torch is not installed")
    from fgdeploy.export.export_settings import ExportSettings
    from fgdeploy.export.exporter import export_bundle

    settings = ExportSettings(
        backbone="test_vit",
        weights="random",
        image_size=64,
        options={"stages": "2:8,4:4,5:2"},
        bits=24,
        head="lsh",
    )
    bundle = export_bundle(settings, tmp_path_factory.mktemp("rough") / "rough.fgd").bundle
    model = onnx.load(bundle.graph())
    _roughen(model)
    bundle.graph().write_bytes(model.SerializeToString())
    return seal(bundle.path, bundle.manifest).path


def _roughen(model: onnx.ModelProto) -> None:
    """Make photos matter to the hash, and channels differ; random weights do neither."""
    rng = np.random.default_rng(5)
    held = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    for node in model.graph.node:
        for name in node.input[1:]:
            values = held.get(name)
            if values is None or values.dtype != np.float32:
                continue
            if node.op_type == "LayerNormalization" and name == node.input[1]:
                values = np.exp(rng.normal(0, 0.6, values.shape))
                values[rng.choice(len(values), 2, replace=False)] *= 6
            elif node.op_type in ("LayerNormalization", "Add") and values.ndim == 1:
                values = rng.normal(0, 0.3, values.shape)
            elif node.op_type == "MatMul" and min(values.shape) >= 64:
                values = values / values.std() / len(values) ** 0.5
            graphs.replace(model, name, values.astype(np.float32))


@pytest.fixture(scope="session")
def model(rough: Path) -> onnx.ModelProto:
    """Its fp32 graph: do not change it."""
    return onnx.load(open_bundle(rough).graph())


@pytest.fixture(scope="session")
def seen(rough: Path, moths: list[Photo]) -> list[Frames]:
    """Four batches of 4 training frames, to calibrate on."""
    return _frames(rough, moths, "train")[:4]


@pytest.fixture(scope="session")
def unseen(rough: Path, moths: list[Photo]) -> Frames:
    """32 other frames, uint8 (32, 64, 64, 3)."""
    return np.concatenate(_frames(rough, moths, "test"))


def _frames(bundle: Path, moths: list[Photo], split: str) -> list[Frames]:
    chosen = [photo for photo in moths if photo.split == split]
    preprocess = open_bundle(bundle).manifest.preprocess
    return [frames for _, frames in batches(chosen[::2] + chosen[1::2], preprocess, 4, [])]


@pytest.fixture(scope="session")
def made(model: onnx.ModelProto, seen: list[Frames]) -> Int8Plan:
    """The plan of that graph, with all that calibration has."""
    return int8_plan.make(model, seen, SETTINGS)


@pytest.fixture(scope="session")
def plain(model: onnx.ModelProto, seen: list[Frames]) -> Int8Plan:
    """The plan with plain ranges and nearest rounding only."""
    return int8_plan.make(model, seen, PLAIN)


@pytest.fixture(scope="session")
def calibrated(
    rough: Path, moths: list[Photo], tmp_path_factory: pytest.TempPathFactory
) -> Calibrated:
    """That bundle, calibrated with limits that it meets at once: do not write into it."""
    folder = tmp_path_factory.mktemp("calibrated") / "rough.fgd"
    shutil.copytree(rough, folder)
    return calibrate(open_bundle(folder), moths, SETTINGS, LOOSE)


@pytest.fixture
def own(rough: Path, tmp_path: Path) -> Bundle:
    """A copy of the bundle, not calibrated yet, that the test may change."""
    return open_bundle(shutil.copytree(rough, tmp_path / "own.fgd"))


@pytest.fixture
def own_calibrated(calibrated: Calibrated, tmp_path: Path) -> Path:
    """A copy of the calibrated bundle that the test may damage."""
    return Path(shutil.copytree(calibrated.bundle.path, tmp_path / "calibrated.fgd"))
