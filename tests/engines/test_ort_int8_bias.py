"""INT8 products that add their biases: the same bits as with a pass of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from fgdeploy.engines import ort_int8_bias
from fgdeploy.engines.onnxruntime import session_options

K, N = 32, 48


def _optimised(folder: Path, last: str, own_bias: bool = True) -> Path:
    """As a calibrated graph, and what ONNX Runtime makes of it. last: what follows the product."""
    chooser = np.random.default_rng(0)
    constants: dict[str, Any] = {
        "step": np.float32(0.05),
        "zero": np.uint8(128),
        "integers": chooser.integers(-127, 128, (K, N)).astype(np.int8),
        "steps": (chooser.random(N) / 100).astype(np.float32),
        "zeros": np.zeros(N, np.int8),
        "bias": chooser.standard_normal(N if own_bias else (3, N)).astype(np.float32),
    }
    node = helper.make_node
    nodes = [
        node("QuantizeLinear", ["x", "step", "zero"], ["q"]),
        node("DequantizeLinear", ["q", "step", "zero"], ["d"]),
        node("DequantizeLinear", ["integers", "steps", "zeros"], ["w"], axis=1),
        node("MatMul", ["d", "w"], ["m"]),
        node("Add", ["m", "bias"], ["a"]),
        node(last, ["a"], ["y"]),
    ]
    value, shape = helper.make_tensor_value_info, ["batch", 3]
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", TensorProto.FLOAT, [*shape, K])],
        [value("y", TensorProto.FLOAT, [*shape, N])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    options = session_options(1)
    options.optimized_model_filepath = str(folder / "o.onnx")
    onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return folder / "o.onnx"


def _run(path: Path) -> Any:
    options = session_options(1)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).standard_normal((5, 3, K)).astype(np.float32)
    return session.run(["y"], {"x": x})[0]


@pytest.mark.parametrize(("last", "gone"), [("Tanh", "Add"), ("Gelu", "BiasGelu")])
def test_a_bias_moves_into_its_product(tmp_path: Path, last: str, gone: str) -> None:
    path = _optimised(tmp_path, last)
    before = _run(path)
    assert gone in [node.op_type for node in onnx.load(path).graph.node]
    assert ort_int8_bias.move_all(path) == 1
    ops = [node.op_type for node in onnx.load(path).graph.node]
    assert gone not in ops and last in ops
    np.testing.assert_allclose(_run(path), before, rtol=1e-6, atol=1e-7)
    assert np.abs(before).max() > 0.1
    assert ort_int8_bias.move_all(path) == 1  # once done it stays


def test_what_has_a_row_for_each_token_is_no_bias(tmp_path: Path) -> None:
    path = _optimised(tmp_path, "Tanh", own_bias=False)
    assert ort_int8_bias.move_all(path) == 0
    assert "Add" in [node.op_type for node in onnx.load(path).graph.node]
