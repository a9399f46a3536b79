"""GELU as ONNX Runtime fuses it, with the same numbers as the exporter's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from fgdeploy.engines import ort_layers
from fgdeploy.export import gelu_order
from fgdeploy.export.exporter import Exported


def _gelu(half: float = 0.5, root: str = "Div") -> Any:
    """As torch's exporter writes it."""
    numbers = {"root": 2**0.5 if root == "Div" else 2**-0.5, "one": 1.0, "half": half}
    nodes = [
        helper.make_node(root, ["x", "root"], ["a"]),
        helper.make_node("Erf", ["a"], ["b"]),
        helper.make_node("Add", ["b", "one"], ["c"]),
        helper.make_node("Mul", ["half", "c"], ["d"]),
        helper.make_node("Mul", ["x", "d"], ["y"]),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "xy"]
    constants = [
        numpy_helper.from_array(np.float32(value), name) for name, value in numbers.items()
    ]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def _run(model: Any, x: Any) -> Any:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(["y"], {"x": x})[0]


def test_the_new_order_is_the_same_number_to_the_bit() -> None:
    x = np.concatenate([np.linspace(-12, 12, 20001), [0.0, -0.0, 1e30, -1e30]]).astype("f4")
    model = _gelu()
    before = _run(model, x)
    assert gelu_order.halve_first(model.graph) == 1
    onnx.checker.check_model(model)
    assert [list(node.input) for node in model.graph.node[-2:]] == [["x", "half"], ["d", "c"]]
    np.testing.assert_array_equal(_run(model, x), before)
    assert gelu_order.halve_first(model.graph) == 0  # and it stays


@pytest.mark.parametrize("model", [_gelu(half=0.25), _gelu(root="Mul")], ids=["quarter", "Mul"])
def test_what_is_no_gelu_stays(model: Any) -> None:
    before = model.SerializeToString()
    assert gelu_order.halve_first(model.graph) == 0
    assert model.SerializeToString() == before


def test_a_gelu_whose_inside_is_read_elsewhere_stays() -> None:
    model = _gelu()
    model.graph.output.append(helper.make_tensor_value_info("d", TensorProto.FLOAT, ["n"]))
    assert gelu_order.halve_first(model.graph) == 0


def test_onnxruntime_fuses_all_gelus_of_an_export(random_export: Exported, tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "o.onnx")
    onnxruntime.InferenceSession(
        random_export.bundle.graph(), options, providers=["CPUExecutionProvider"]
    )
    assert ort_layers.read(tmp_path / "o.onnx").fused["gelu"] == 6
