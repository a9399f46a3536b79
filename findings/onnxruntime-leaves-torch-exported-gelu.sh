#!/usr/bin/env bash
# onnxruntime 1.32.0: the GELU that torch's dynamo exporter writes (2.14, below opset 20),
# x * (0.5 * (1 + erf(x / sqrt(2)))), is not taken for a GELU: all its ops stay, each over the widest tensor of a
# ViT block. The same numbers as (0.5 * x) * (1 + erf(x / sqrt(2))) become one op together with the bias before.
# Seen at the highest optimisation level on the CPU:
#     as torch exports it   Add Div Erf Add Mul Mul
#     halved first          BiasGelu
# Fails (exit 1) if that changes. Needs Python >= 3.11 and network for pip.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet 'onnxruntime==1.32.0' 'onnx==1.23.2' 2>/dev/null
cat > "$work/gelu.py" <<'PY'
import sys
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

folder = sys.argv[1]


def ops(name, last):
    numbers = {"root": 2**0.5, "one": 1.0, "half": 0.5}
    weights = [numpy_helper.from_array(np.float32(value), key) for key, value in numbers.items()]
    weights.append(numpy_helper.from_array(np.ones(64, np.float32), "bias"))
    nodes = [
        helper.make_node("Add", ["x", "bias"], ["b"]),
        helper.make_node("Div", ["b", "root"], ["d"]),
        helper.make_node("Erf", ["d"], ["e"]),
        helper.make_node("Add", ["e", "one"], ["p"]),
        *(helper.make_node("Mul", pair, [out]) for pair, out in last),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "gelu",
        [value("x", TensorProto.FLOAT, ["n", 64])],
        [value("y", TensorProto.FLOAT, ["n", 64])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.optimized_model_filepath = f"{folder}/{name}.onnx"
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    x = np.linspace(-3, 3, 64, dtype=np.float32)[None]
    kept = [node.op_type for node in onnx.load(f"{folder}/{name}.onnx").graph.node]
    return kept, session.run(None, {"x": x})[0]


torch_order, one = ops("torch", [(["p", "half"], "h"), (["b", "h"], "y")])
halved, other = ops("halved", [(["b", "half"], "h"), (["h", "p"], "y")])
print("as torch exports it  ", *torch_order)
print("halved first         ", *halved)
seen = "Erf" in torch_order and halved == ["BiasGelu"] and np.allclose(one, other, atol=1e-6)
print("as described" if seen else "this has changed")
sys.exit(0 if seen else 1)
PY
"$work/venv/bin/python" "$work/gelu.py" "$work"
