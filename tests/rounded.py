"""What an FP16 graph computes on a GPU, on a CPU: each op in FP32, its results rounded to FP16.

GPU kernels read and write FP16 and sum in FP32; the CPU has no such kernels for fused ops.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_FLOAT, _HALF = TensorProto.FLOAT, TensorProto.FLOAT16


def in_float32(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """Return an FP16 graph as one in FP32 that rounds as often, and how often that is."""
    twin = onnx.ModelProto.FromString(model.SerializeToString())
    halves, weights, nodes, count = set(), [], [], 0
    for item in twin.graph.initializer:
        if item.data_type == _HALF:
            halves.add(item.name)
            values = numpy_helper.to_array(item).astype(np.float32)
            item = numpy_helper.from_array(values, item.name)
        weights.append(item)
    for node in twin.graph.node:
        target = next((one.i for one in node.attribute if one.name == "to"), None)
        low = target == _HALF if node.op_type == "Cast" else bool(halves & set(node.input))
        if node.op_type == "Cast" and target == _HALF:
            node.attribute[0].i = _FLOAT
        nodes.append(node)
        for place, name in enumerate(node.output):
            if low and name:
                halves.add(name)
                node.output[place] = f"{name}/full"
                nodes += _rounding(f"{name}/full", name)
                count += 1
    del twin.graph.node[:], twin.graph.initializer[:]
    twin.graph.node.extend(nodes)
    twin.graph.initializer.extend(weights)
    return twin, count


def _rounding(source: str, target: str) -> list[Any]:
    low = f"{target}/low"
    return [
        helper.make_node("Cast", [source], [low], to=_HALF),
        helper.make_node("Cast", [low], [target], to=_FLOAT),
    ]
