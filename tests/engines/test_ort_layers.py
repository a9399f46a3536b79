"""Counts of layers in files that ONNX Runtime wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from fgdeploy.engines import ort_layers


@pytest.mark.parametrize(("dtype", "kind"), [(np.float32, "float32"), (np.float16, "float16")])
def test_products_and_norms_of_a_graph(tmp_path: Path, dtype: type, kind: str) -> None:
    weight = numpy_helper.from_array(np.ones((4, 4), dtype), "w")
    scale = numpy_helper.from_array(np.ones(4, dtype), "s")
    element = TensorProto.FLOAT if dtype is np.float32 else TensorProto.FLOAT16
    shape = ["batch", 4]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("LayerNormalization", ["a", "s"], ["b"]),
        helper.make_node("MatMul", ["b", "w"], ["c"]),
        helper.make_node("Transpose", ["c"], ["d"], perm=[1, 0]),
        helper.make_node("MatMul", ["d", "c"], ["y"]),  # of no weights
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", element, shape)],
        [helper.make_tensor_value_info("y", element, [4, 4])],
        [weight, scale],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path = tmp_path / "g.onnx"
    path.write_bytes(made.SerializeToString())
    found = ort_layers.read(path)
    assert (dict(found.products), dict(found.fused)) == ({kind: 2}, {"layer_norm": 1})
    if dtype is np.float32:  # and what ONNX Runtime writes itself
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "o.onnx")
        onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        assert ort_layers.read(tmp_path / "o.onnx").products == {kind: 2}
