"""FP16 graphs: products in half precision, everything that decides in full.

In FP16: linear layers, attention, the products of GELU, and the Q/DQ of INT8 layers. In FP32:
LayerNormalization (one op, as decomposed ones overflow FP16), all sums (biases, residuals), and
whatever lies outside blocks and steps: patch embedding, last norm, head, hash and code. What
decides inside them (token scores) is pinned by name (`pins`). Sums and the patch embedding in FP32
halve the bits that differ (measured).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fgdeploy.calibration import pins
from fgdeploy.calibration.paths import Node, Paths

# Ops that only move values: they take the type of what comes in.
_MOVES = {
    "Concat",
    "Expand",
    "Flatten",
    "Gather",
    "GatherElements",
    "Identity",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
}
# FP16 scales of Q/DQ need it.
LEAST_OPSET = 19


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of an fp32 or Q/DQ graph with its products in FP16; inputs and outputs stay."""
    half = onnx.ModelProto()
    half.CopyFrom(model)
    if any(node.op_type == "QuantizeLinear" for node in half.graph.node):
        raise_opset(half)
    converter = _Converter(half)
    converter.run()
    return half


def raise_opset(model: onnx.ModelProto) -> None:
    """Declare opset 19: what it changed over 18 is types that are allowed, no op's meaning."""
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = max(entry.version, LEAST_OPSET)


def in_full(model: onnx.ModelProto) -> set[str]:
    """Return the names of nodes that stay in FP32; Q/DQ take the type of the product they serve."""
    paths, named = Paths(model.graph), pins.of(model)
    full: set[str] = set()
    for node in reversed(paths.nodes):
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            readers = [user for name in node.output for user in paths.users.get(name, ())]
            outside = all(user.name in full for user in readers)
        else:
            outside = not named.halves(node.name)
        if outside or node.op_type in ("LayerNormalization", "Add"):
            full.add(node.name)
    return full


class _Converter:
    """Walks a graph in order and puts a Cast where a tensor changes its type, once per tensor."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        self.paths = Paths(model.graph)
        self.full = in_full(model)
        self.constants = {item.name: item for item in model.graph.initializer}
        inferred = onnx.shape_inference.infer_shapes(model).graph
        values = [*inferred.value_info, *inferred.output, *inferred.input]
        self.types = {value.name: value.type.tensor_type.elem_type for value in values}
        self.types |= {name: item.data_type for name, item in self.constants.items()}
        self.cast: dict[tuple[str, int], str] = {}
        self.nodes: list[Node] = []

    def run(self) -> None:
        outputs = {value.name for value in self.graph.output}
        for node in self.paths.nodes:
            floats = [i for i, name in enumerate(node.input) if self._is_float(name)]
            made = [name for name in node.output if self._is_float(name)]
            if node.op_type in _MOVES and floats:
                wanted = self.types[node.input[floats[0]]]
                wanted = TensorProto.FLOAT if outputs & set(node.output) else wanted
            elif node.name in self.full:
                wanted = TensorProto.FLOAT
            else:
                wanted = TensorProto.FLOAT16
            for i in floats:
                node.input[i] = self._as(node.input[i], wanted)
            if node.op_type == "Cast" and made:
                node.attribute[0].i = wanted
            for name in made:
                self.types[name] = wanted
            self.nodes.append(node)
        self._finish()

    def _is_float(self, name: str) -> bool:
        return self.types.get(name) in (TensorProto.FLOAT, TensorProto.FLOAT16)

    def _as(self, name: str, wanted: int) -> str:
        if self.types[name] == wanted:
            return name
        key = (name, wanted)
        if key not in self.cast:
            short = "fp16" if wanted == TensorProto.FLOAT16 else "fp32"
            self.cast[key] = new = f"{name}/{short}"
            self.types[new] = wanted
            if name in self.constants:
                values = numpy_helper.to_array(self.constants[name]).astype(np.float16)
                self.graph.initializer.append(numpy_helper.from_array(values, new))
            else:
                self.nodes.append(helper.make_node("Cast", [name], [new], new, to=wanted))
        return self.cast[key]

    def _finish(self) -> None:
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)
        del self.graph.value_info[:]
        drop_unused(self.graph)


def drop_unused(graph: Any) -> None:
    """Remove the initializers that no node reads."""
    read = {name for node in graph.node for name in node.input}
    kept = [item for item in graph.initializer if item.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)
