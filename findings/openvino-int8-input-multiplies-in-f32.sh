#!/usr/bin/env bash
# openvino 2026.4.1 on x86 with VNNI: an ONNX graph whose INPUT is int8 (DequantizeLinear, then MatMul with int8
# weights) computes the product in f32; with a float input and a QuantizeLinear before it, the same product runs in
# INT8. So a benchmark that feeds quantised data to spare the QuantizeLinear measures no INT8 at all.
# ONNX Runtime 1.32 fuses both. Seen in the runtime model, on an Intel Xeon with AMX:
#     int8 input                   product in f32
#     float input, QuantizeLinear  product in i8
# Fails (exit 1) if that changes. Needs x86-64 with VNNI, Python >= 3.11 and network for pip.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet 'openvino==2026.4.1' 'onnx==1.23.2' 2>/dev/null
cat > "$work/product.py" <<'PY'
import sys
import numpy as np
import openvino
from onnx import TensorProto, helper, numpy_helper

folder = sys.argv[1]
ROWS, K, N = 64, 384, 384


def product(quantised_input):
    weights = {
        "w": np.random.default_rng(0).integers(-127, 128, (K, N)).astype(np.int8),
        "x_step": np.float32(1 / 127),
        "zero": np.int8(0),
        "w_step": np.full(N, 1 / 127, np.float32),
        "w_zero": np.zeros(N, np.int8),
    }
    nodes = [] if quantised_input else [
        helper.make_node("QuantizeLinear", ["x", "x_step", "zero"], ["xq"])
    ]
    source = "x" if quantised_input else "xq"
    nodes += [
        helper.make_node("DequantizeLinear", [source, "x_step", "zero"], ["xf"]),
        helper.make_node("DequantizeLinear", ["w", "w_step", "w_zero"], ["wf"], axis=1),
        helper.make_node("MatMul", ["xf", "wf"], ["y"]),
    ]
    kind = TensorProto.INT8 if quantised_input else TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "product",
        [helper.make_tensor_value_info("x", kind, [ROWS, K])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [ROWS, N])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path = f"{folder}/{quantised_input}.onnx"
    with open(path, "wb") as stream:
        stream.write(model.SerializeToString())
    core = openvino.Core()
    compiled = core.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for node in compiled.get_runtime_model().get_ops():
        info = {key: str(value.astype(str)) for key, value in node.get_rt_info().items()
                if key in ("layerType", "runtimePrecision", "primitiveType")}
        if info.get("layerType") in ("MatMul", "FullyConnected"):
            return info["runtimePrecision"]
    return "nothing"


direct, rounded = product(True), product(False)
print("int8 input                   product in", direct)
print("float input, QuantizeLinear  product in", rounded)
seen = direct == "f32" and rounded in ("i8", "u8")
print("as described" if seen else "this has changed (or the CPU has no VNNI)")
sys.exit(0 if seen else 1)
PY
"$work/venv/bin/python" "$work/product.py" "$work"
