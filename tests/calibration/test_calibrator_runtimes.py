"""The calibrated graphs in the runtimes that they are for, with the engines' own settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from fgdeploy.bundle import GRAPHS
from fgdeploy.calibration.calibrator import Calibrated
from fgdeploy.core.errors import EngineError
from fgdeploy.engines import BuildSettings
from fgdeploy.engines.base import EngineSource
from fgdeploy.engines.choosing import load
from tests.calibration.graphs import run
from tests.checks import refused

Frames = npt.NDArray[np.uint8]
REDUCED = [key for key in GRAPHS if key not in ("fp32", "fp8")]
# Stages choose tokens by scores; where two are near, kernels that round otherwise choose another.
MEDIAN = {"fp16": 0.003}


def _apart(got: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> float:
    """Return the median photo's relative difference."""
    gaps = np.linalg.norm(got - wanted, axis=1) / np.linalg.norm(wanted, axis=1)
    return float(np.median(gaps))


@pytest.mark.parametrize("key", REDUCED)
@pytest.mark.parametrize("optimised", [True, False])
def test_onnx_runtime(calibrated: Calibrated, unseen: Frames, key: str, optimised: bool) -> None:
    model = onnx.load(calibrated.bundle.graph(key))
    onnx.checker.check_model(model, full_check=True)
    wanted = run(onnx.load(calibrated.bundle.graph()), unseen)["hash"]
    got = run(model, unseen, ["hash", "code"], optimised)
    assert _apart(got["hash"], wanted) < MEDIAN.get(key, 0.05)
    assert (np.packbits(got["hash"] > 0, axis=1) == got["code"]).all()
    for batch in (1, 3):
        some = run(model, unseen[:batch], ["hash", "embedding"], optimised)
        assert some["hash"].shape == (batch, 24)
        assert some["hash"].dtype == some["embedding"].dtype == np.float32


@pytest.mark.parametrize("key", REDUCED)
def test_openvino(calibrated: Calibrated, unseen: Frames, key: str) -> None:
    pytest.importorskip("openvino", reason="openvino is not installed")
    from fgdeploy.engines.openvino import OpenVinoEngine

    bundle, precision = calibrated.bundle, key.partition("-")[0]
    source = EngineSource(bundle.graph(key), precision, threads=1, batches=(8,))
    try:
        OpenVinoEngine.check_arithmetic(precision)
    except EngineError:  # a CPU whose INT8 clips: nothing opens there, so there are no numbers
        with refused(EngineError, r"^OpenVINO's INT8 is wrong on this CPU"):
            load(bundle, OpenVinoEngine, source)
        return
    wanted = run(onnx.load(bundle.graph()), unseen)["hash"]
    with load(bundle, OpenVinoEngine, source) as engine:
        answer = engine.run(unseen)
    assert answer.hash.dtype == np.float32
    assert _apart(answer.hash, wanted) < MEDIAN.get(key, 0.05)
    assert (np.packbits(answer.hash > 0, axis=1) == answer.code).all()


@pytest.mark.parametrize("key", ["int8", "int8-fp16", "fp16"])
def test_tensorrt_parses_and_builds(
    calibrated: Calibrated,
    tmp_path: Path,
    key: str,
    record_property: Callable[[str, object], None],
) -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed")
    from fgdeploy.engines.trt_build import compile_engine

    settings = BuildSettings(batches=(1, 8), compute_capabilities=("8.6",))
    target = tmp_path / "engine"
    compile_engine(trt, calibrated.bundle.graph(key), (64, 64, 3), target, settings)
    record_property(f"{key}_bytes", target.stat().st_size)
    print(f"{key}: {target.stat().st_size} bytes")
    assert target.stat().st_size > 100_000
