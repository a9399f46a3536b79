"""The graph that ONNX Runtime's CUDA provider runs: fused ops, in FP16 where that is enough.

In FP16: all of blocks and steps. In FP32: what the graph pins (token scores and their TopK), the
last norm and the head. Kernels sum products in FP32, and with the session's settings the statistics
of norms. Residual sums and their norms are in FP16 too, so that whole blocks pass without a Cast,
but in FP32 up to where a graph last picks tokens: there a rounded sum is another token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fgdeploy.bundle.graph_pins import Pins
from fgdeploy.core.errors import EngineError
from fgdeploy.engines.onnx_wiring import Node
from fgdeploy.engines.ort_fusing import fuse

_FLOAT, _HALF = TensorProto.FLOAT, TensorProto.FLOAT16
# Ops that only move values: they take the type of what comes in.
_MOVES = frozenset(
    ("Concat", "Expand", "Gather", "GatherElements", "Identity", "Reshape", "Slice", "Split")
) | {"Squeeze", "Transpose", "Unsqueeze"}

_PICKS = frozenset(("ArgMax", "ArgMin", "CumSum", "TopK"))
_SUMS = frozenset(("Add", "LayerNormalization", "SkipLayerNormalization"))


@dataclass(frozen=True)
class CudaGraph:
    """A graph for CUDA; fused: how many of each pattern became one op; casts: between FP32 and
    FP16."""

    model: Any
    fused: dict[str, int]
    casts: int = 0


def make(model: Any, half: bool) -> CudaGraph:
    """Rewrite a bundle's fp32 graph (an onnx.ModelProto) in place.

    Raises EngineError for a graph in FP16 that does not say what must stay in FP32.
    """
    pins = Pins.read({entry.key: entry.value for entry in model.metadata_props})
    if half and pins is None:
        raise EngineError(
            "this graph does not say what must stay in FP32, as exports before schema 2 did not; "
            "export the bundle again, or build with --fp32"
        )
    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = (*inferred.value_info, *inferred.input, *inferred.output)
    floats = {value.name for value in values if value.type.tensor_type.elem_type == _FLOAT}
    fused = fuse(model)
    if not half or pins is None:
        return CudaGraph(model, fused)
    halving = _Halving(model.graph, pins, floats)
    halving.run()
    return CudaGraph(model, fused, halving.casts)


class _Halving:
    """Walks a graph in order and casts a tensor where its reader wants another type, once."""

    def __init__(self, graph: Any, pins: Pins, floats: set[str]) -> None:
        self._graph, self._pins = graph, pins
        self._constants = {item.name: item for item in graph.initializer}
        held = (item.name for item in graph.initializer if item.data_type == _FLOAT)
        self._types: dict[str, int] = dict.fromkeys((*floats, *held), int(_FLOAT))
        self._named: dict[tuple[str, int], str] = {}
        self._nodes: list[Node] = []
        # Up to here a sum decides which tokens stay.
        picks = [place for place, node in enumerate(graph.node) if node.op_type in _PICKS]
        self._deciding = max(picks, default=-1)
        self.casts = 0

    def run(self) -> None:
        """Write the graph's nodes and weights anew."""
        outputs = {value.name for value in self._graph.output}
        for place, node in enumerate(self._graph.node):
            sums = node.op_type in _SUMS and place < self._deciding
            wanted = self._wanted(node, sums or bool(outputs & set(node.output)))
            for number, name in enumerate(node.input):
                if name in self._types:
                    node.input[number] = self._as(name, wanted)
            for name in node.output:
                if name in self._types:
                    self._types[name] = wanted
            if node.op_type == "Cast" and node.output[0] in self._types:
                node.attribute[0].i = wanted
            self._nodes.append(type(node).FromString(node.SerializeToString()))
        read = {name for node in self._nodes for name in node.input}
        kept = [item for item in self._constants.values() if item.name in read]
        del self._graph.node[:], self._graph.initializer[:]
        self._graph.node.extend(self._nodes)
        self._graph.initializer.extend(kept)

    def _wanted(self, node: Node, in_full: bool) -> int:
        given = [self._types[name] for name in node.input if name in self._types]
        if in_full:
            return int(_FLOAT)
        if node.op_type in _MOVES and given:
            return int(given[0])
        return int(_HALF if self._pins.halves(node.name) else _FLOAT)

    def _as(self, name: str, wanted: int) -> str:
        if self._types[name] == wanted:
            return name
        key = (name, wanted)
        if key not in self._named:
            self._named[key] = new = f"{name}/{'fp16' if wanted == _HALF else 'fp32'}"
            self._types[new] = wanted
            if name in self._constants:
                values = numpy_helper.to_array(self._constants[name]).astype(np.float16)
                self._constants[new] = numpy_helper.from_array(values, new)
            else:
                self._nodes.append(helper.make_node("Cast", [name], [new], new, to=wanted))
                self.casts += 1
        return self._named[key]
