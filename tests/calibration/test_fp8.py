"""FP8: numbers of E4M3, graphs of it, what a bundle gets of them, and TensorRT-RTX's engines."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto

from fgdeploy.bundle import GRAPHS, Bundle, open_bundle
from fgdeploy.calibration import fp8
from fgdeploy.calibration.calibrator import calibrate
from fgdeploy.calibration.int8_plan import Int8Plan
from fgdeploy.core.errors import EngineError, ParityError, UsageError
from fgdeploy.engines import BuildSettings, build, open_engine
from fgdeploy.photos import Photo
from fgdeploy.proof.parity import Limits
from tests.calibration.conftest import LOOSE, SETTINGS
from tests.calibration.graphs import run
from tests.checks import refused

CODES = np.array([code for code in range(256) if code & 127 != 127], np.uint8)


def test_all_numbers_of_e4m3() -> None:
    values = fp8.decode(CODES)
    assert (values.min(), values.max()) == (-448.0, 448.0)
    assert (fp8.encode(values) == CODES).all()
    assert fp8.decode(np.array([0, 1, 8, 0x38, 0x7E, 0xB8], np.uint8)).tolist() == [
        *(0.0, 2.0**-9, 2.0**-6, 1.0, 448.0, -1.0)
    ]
    # A tie goes to the even code; what lies beyond stays at the largest.
    assert fp8.encode([1.0625, 1.1875, 2.0**-10, 1e6, -1e6]).tolist() == [
        *(0x38, 0x3A, 0, 0x7E, 0xFE)
    ]


def test_rounding_is_that_of_ml_dtypes() -> None:
    kind = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed").float8_e4m3fn
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0, spread, 3000) for spread in (1e-3, 1, 150)])
    values = np.concatenate([values, np.arange(-448, 448, 0.25), np.arange(-64, 64) / 1024])
    values = np.clip(values, -448, 448).astype(np.float32)
    assert (fp8.encode(values) == values.astype(kind).view(np.uint8)).all()


def test_a_graph(made: Int8Plan, model: onnx.ModelProto, unseen: npt.NDArray[np.uint8]) -> None:
    graph = fp8.write(made)
    onnx.checker.check_model(graph, full_check=True)
    assert graph.opset_import[0].version >= 19
    held = {item.name: item for item in graph.graph.initializer}
    quantised = {name for name in held if name.endswith("/codes")}
    assert len(quantised) == len(made.layers) - 1  # all but the patch embedding
    assert {held[name].data_type for name in quantised} == {TensorProto.FLOAT8E4M3FN}
    assert TensorProto.INT8 not in {item.data_type for item in held.values()}
    wanted = run(model, unseen)["hash"]
    got = run(graph, unseen)["hash"]
    gaps = np.linalg.norm(got - wanted, axis=1) / np.linalg.norm(wanted, axis=1)
    assert np.median(gaps) < 0.06
    assert ((got > 0) == (wanted > 0)).mean() > 0.98


@pytest.fixture(scope="module")
def with_fp8(rough: Path, moths: list[Photo], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The rough bundle, calibrated with FP8: do not write into its graphs."""
    folder = tmp_path_factory.mktemp("fp8") / "rough.fgd"
    shutil.copytree(rough, folder)
    done = calibrate(open_bundle(folder), moths, SETTINGS, LOOSE, with_fp8=True)
    assert done.fp8 is not None and done.fp8.bit_agreement > 0.95
    return done.bundle


def test_a_bundle_gets_it_when_asked(with_fp8: Bundle, moths: list[Photo]) -> None:
    assert GRAPHS["fp8"] in with_fp8.manifest.files
    again = calibrate(with_fp8, moths, SETTINGS, LOOSE, with_fp8=True)
    assert again.reused and calibrate(with_fp8, moths, SETTINGS, LOOSE).reused
    with refused(UsageError, "onnxruntime has no precision 'fp8'"):
        open_engine(with_fp8, "onnxruntime", "fp8")


def test_where_it_misses_the_limits(
    own: Bundle, moths: list[Photo], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fp8, "encode", lambda values: np.zeros(np.shape(values), np.uint8))
    strict = Limits(min_bit_agreement=0.95)
    with refused(ParityError, r"FP8 cannot keep to the limits .*bit agreement.*use --int8"):
        calibrate(own, moths, SETTINGS, strict, with_fp8=True)
    assert sorted(own.manifest.files) == ["card.json", "head.npz", "model.onnx"]


def test_tensorrt_rtx(with_fp8: Bundle) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed")
    settings = BuildSettings(compute_capabilities=("8.9", "12.0"))
    entry = build(with_fp8, "tensorrt-rtx", "fp8", settings).record
    assert entry is not None and entry.graph == "fp8" and entry.layers is not None
    # The last block's MLP of one row is FP16 in the INT8 graph as well.
    assert entry.layers["products"] == {"float8": 21, "float16": 4, "float32": 3}
    assert entry.layers["fused"]["attention"] == 6
    older = BuildSettings(compute_capabilities=("8.6", "8.9"))
    with refused(UsageError, r"compute capability 8\.6 has no FP8, which begins with 8\.9; take"):
        build(with_fp8, "tensorrt-rtx", "fp8", older)


def test_a_bundle_without_it(own: Bundle) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed")
    settings = BuildSettings(compute_capabilities=("8.9",))
    with refused(EngineError, r"holds no fp8 graph; run: fgdeploy calibrate .* --fp8$"):
        build(own, "tensorrt-rtx", "fp8", settings)
