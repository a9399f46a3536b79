"""INT8 products are those of the graph on every CPU, or INT8 is refused there.

Weights are Gaussian and use all of +-127, frames all of 0..255: without VNNI, x86 kernels that add
products of 8-bit numbers in 16 bits miss by a tenth of the largest output and more.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fgdeploy.bundle import Bundle, open_bundle
from fgdeploy.core.errors import EngineError
from fgdeploy.engines import BuildSettings, build, find, open_engine, openvino
from fgdeploy.engines.openvino import OpenVinoEngine
from tests.checks import refused
from tests.conftest import BITS, SIZE, WIDTH

EXACT = 1e-4
INPUTS = SIZE * SIZE * 3
REFUSAL = (
    r"^OpenVINO's INT8 is wrong on this CPU \(.+\): a product misses by \d+\.\d% of its largest "
    r"number, since sums of 8-bit products clip where there is no VNNI; take onnxruntime's INT8, "
    r"which is exact everywhere, or fp32$"
)
# The product alone in a process whose oneDNN may use AVX2 and no more, as on a CPU without VNNI.
ALONE = "from fgdeploy.engines.openvino import OpenVinoEngine as e; e.check_arithmetic('int8')"
ON_X86 = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="oneDNN's AVX2 kernels are for x86"
)


def _weights() -> npt.NDArray[np.int8]:
    """Return weights [3072, 12] of which each column uses all of +-127."""
    spread = np.random.default_rng(3).standard_normal((INPUTS, BITS))
    return np.rint(127 * spread / np.abs(spread).max(axis=0)).astype(np.int8)


def _frames(count: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(4).integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)


def _product(unsigned: bool) -> bytes:
    """Return a graph whose hash is one Q/DQ product of the frames, centred as pixels are."""
    places = np.zeros((BITS, 2), np.float32)
    places[np.arange(BITS), np.arange(BITS) // 8] = 2.0 ** (7 - np.arange(BITS) % 8)
    point = np.uint8(128) if unsigned else np.int8(0)
    held: dict[str, Any] = {
        "scale": np.float32(1 / 128),
        "shift": np.float32(-1),
        "point": point,
        "weights": _weights(),
        "steps": np.full(BITS, 1 / 127, np.float32),
        "zeros": np.zeros(BITS, np.int8),
        "zero": np.float32(0),
        "places": places,
        "first": np.array([0], np.int64),
        "width": np.array([WIDTH], np.int64),
        "columns": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["frames"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["pixels"], ["flat"]),
        helper.make_node("Slice", ["flat", "first", "width", "columns"], ["embedding"]),
        helper.make_node("Mul", ["flat", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "shift"], ["centred"]),
        helper.make_node("QuantizeLinear", ["centred", "scale", "point"], ["rounded"]),
        helper.make_node("DequantizeLinear", ["rounded", "scale", "point"], ["x"]),
        helper.make_node("DequantizeLinear", ["weights", "steps", "zeros"], ["w"], axis=1),
        helper.make_node("MatMul", ["x", "w"], ["hash"]),
        helper.make_node("Greater", ["hash", "zero"], ["set"]),
        helper.make_node("Cast", ["set"], ["bits"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["bits", "places"], ["bytes"]),
        helper.make_node("Cast", ["bytes"], ["code"], to=TensorProto.UINT8),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "product",
        [value("frames", TensorProto.UINT8, ["batch", SIZE, SIZE, 3])],
        [
            value("code", TensorProto.UINT8, ["batch", 2]),
            value("hash", TensorProto.FLOAT, ["batch", BITS]),
            value("embedding", TensorProto.FLOAT, ["batch", WIDTH]),
        ],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in held.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


@pytest.fixture
def product(own_bundle: Path) -> Callable[[bool], Bundle]:
    """Give the toy bundle that product as its INT8 graph."""

    def call(unsigned: bool) -> Bundle:
        name = "model.int8.u8.onnx" if unsigned else "model.int8.onnx"
        return open_bundle(own_bundle).with_files({name: _product(unsigned)}, {"method": "mse"})

    return call


@pytest.fixture
def clipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let OpenVINO's product miss, as on a CPU without VNNI."""
    monkeypatch.setattr(openvino, "_int8_error", lambda: 0.144)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    ("backend", "unsigned"), [("onnxruntime", False), ("onnxruntime", True), ("openvino", False)]
)
def test_an_int8_product_is_exact_or_refused(
    product: Callable[[bool], Bundle], backend: str, unsigned: bool, compiled: bool
) -> None:
    bundle = product(unsigned)
    if unsigned and platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("ONNX Runtime takes the signed graph on this CPU")
    frames = _frames(9)
    try:
        if compiled:
            build(bundle, backend, "int8", BuildSettings(batches=(1, 8)))
        with open_engine(bundle, backend, "int8") as engine:
            got = engine.run(frames).hash
    except EngineError as error:
        assert backend == "openvino" and "INT8 is wrong on this CPU" in str(error)
        return
    x = frames.reshape(9, -1).astype(np.float64) / 128 - 1
    wanted = x @ (_weights() / 127)
    assert np.abs(got - wanted).max() / np.abs(wanted).max() < EXACT


@ON_X86
def test_without_vnni_openvino_is_refused() -> None:
    """A process of its own: oneDNN reads the variable once."""
    found = subprocess.run(
        [sys.executable, "-c", ALONE],
        env=os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 1
    assert "EngineError: OpenVINO's INT8 is wrong on this CPU" in found.stderr


@pytest.mark.usefixtures("clipped")
def test_a_refusal_says_what_to_take(product: Callable[[bool], Bundle]) -> None:
    bundle = product(False)
    with refused(EngineError, REFUSAL):
        OpenVinoEngine.check_arithmetic("int8")
    with refused(EngineError, REFUSAL):
        open_engine(bundle, "openvino", "int8")
    with refused(EngineError, REFUSAL):
        build(bundle, "openvino", "int8")
    assert find(bundle) == [] and not (bundle.path / "engines").exists()
    told: list[str] = []
    with open_engine(bundle, "openvino", "int8", fallback=True, notify=told.append) as engine:
        assert (engine.backend, engine.precision) == ("onnxruntime", "int8")
    assert "INT8 is wrong on this CPU" in told[0] and "running onnxruntime int8" in told[0]


@pytest.mark.usefixtures("clipped")
def test_other_precisions_open_all_the_same(toy_bundle: Path) -> None:
    for precision in ("fp32", "fp16", "bf16"):
        OpenVinoEngine.check_arithmetic(precision)
    with open_engine(open_bundle(toy_bundle), "openvino", "fp32") as engine:
        assert engine.run(_frames(1)).hash.shape == (1, BITS)


def test_one_that_was_built_before_is_refused(
    product: Callable[[bool], Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = product(False)
    with monkeypatch.context() as patch:
        patch.setattr(openvino, "_int8_error", lambda: 0.0)
        build(bundle, "openvino", "int8")
    monkeypatch.setattr(openvino, "_int8_error", lambda: 0.144)
    with refused(EngineError, REFUSAL):
        open_engine(bundle)


def test_a_product_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino, "_int8_error", lambda: float("nan"))
    with pytest.raises(EngineError, match="INT8 is wrong"):
        OpenVinoEngine.check_arithmetic("int8")


def test_the_product_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def error(core: Any, settings: Any) -> float:
        tried.append(settings["INFERENCE_PRECISION_HINT"])
        return 0.0

    openvino._int8_error.cache_clear()
    monkeypatch.setattr(openvino.ov_product, "error", error)
    for _ in range(3):
        OpenVinoEngine.check_arithmetic("int8")
    openvino._int8_error.cache_clear()
    assert tried == ["f32"]
