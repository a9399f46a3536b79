"""Write a plan as a graph with explicit QuantizeLinear and DequantizeLinear.

Symmetric INT8, one step per activation, one per output channel of a weight. Biases, residual adds,
norms, softmax, GELU, token scores and the head stay in float.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from fgdeploy.calibration.half import drop_unused
from fgdeploy.calibration.int8_plan import PIXEL_STEP, Activation, Int8Plan, Layer
from fgdeploy.calibration.paths import Node


def write(
    plan: Int8Plan, in_float: Collection[str] = (), unsigned_activations: bool = False
) -> onnx.ModelProto:
    """Return the Q/DQ graph; the layers named in `in_float` stay as they are.

    unsigned_activations: the same numbers as uint8 with zero point 128, which is what ONNX
    Runtime's x86 kernels are fast with; TensorRT and OpenVINO want zero point 0.
    """
    writer = Writer(plan, plan.in_float | set(in_float), unsigned_activations)
    return writer.run()


class Writer:
    """Puts Q/DQ around the layers of a plan."""

    def __init__(self, plan: Int8Plan, in_float: frozenset[str], unsigned: bool) -> None:
        self.plan, self.in_float, self.unsigned = plan, in_float, unsigned
        self.model = onnx.ModelProto()
        self.model.CopyFrom(plan.model)
        self.graph = self.model.graph
        self.nodes: dict[str, Node] = {node.name: node for node in self.graph.node}
        self.before: dict[str, list[Node]] = {}  # node -> what goes right before it
        self.after: dict[str, list[Node]] = {}

    def run(self) -> onnx.ModelProto:
        for item in self.plan.activations:
            self._activation(item)
        for layer in self.plan.layers.values():
            if layer.linear.is_patch_embedding and layer.linear.name not in self.in_float:
                self._pixels(layer)
        for name, (gamma, beta) in self.plan.norms.items():
            norm = self.nodes[name]
            norm.input[1] = self._constant(f"{name}/gamma", gamma)
            norm.input[2] = self._constant(f"{name}/beta", beta)
        ordered: list[Node] = []
        for node in self.graph.node:
            ordered += [*self.before.get(node.name, ()), node, *self.after.get(node.name, ())]
        del self.graph.node[:]
        self.graph.node.extend(ordered)
        drop_unused(self.graph)
        onnx.checker.check_model(self.model)
        return self.model

    def _constant(self, name: str, values: npt.ArrayLike, kind: type[Any] = np.float32) -> str:
        array: npt.NDArray[Any] = np.asarray(values).astype(kind, order="C")
        self.graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def _op(self, kind: str, inputs: list[str], output: str, axis: int | None = None) -> Node:
        return helper.make_node(kind, inputs, [output], output, axis=axis)

    def _activation(self, item: Activation) -> None:
        """Balance an activation, round it once, and let its layers read that."""
        layers = [self.plan.layers[name] for name in item.readers]
        x, balance = item.tensor, item.balance
        first = self.before.setdefault(layers[0].linear.node, [])
        if item.fold.norm is None and item.fold.values is None and balance.strength is not None:
            scale = self._constant(f"{x}/scale", 1 / balance.scale)
            shift = self._constant(f"{x}/shift", -balance.shift / balance.scale)
            first.append(self._op("Mul", [x, scale], f"{x}/scaled"))
            first.append(self._op("Add", [f"{x}/scaled", shift], f"{x}/balanced"))
            x = f"{x}/balanced"
        rounded = [layer for layer in layers if layer.linear.name not in self.in_float]
        if rounded:
            first += self._round(x, balance.step)
        for layer in layers:
            name, node = layer.linear.name, self.nodes[layer.linear.node]
            if layer in rounded:
                node.input[0] = f"{x}/dequantised"
                node.input[1] = self._weight(layer, node, axis=1)
                self._bias(layer, layer.int8_bias)
            else:
                node.input[0] = x
                node.input[1] = self._constant(f"{name}/weight", layer.weight)
                self._bias(layer, layer.bias)

    def _round(self, x: str, step: float) -> list[Node]:
        step_name = self._constant(f"{x}/step", step)
        kind, zero = (np.uint8, 128) if self.unsigned else (np.int8, 0)
        point = self._constant(f"{x}/zero", zero, kind)
        quantised, back = f"{x}/quantised", f"{x}/dequantised"
        return [
            self._op("QuantizeLinear", [x, step_name, point], quantised),
            self._op("DequantizeLinear", [quantised, step_name, point], back),
        ]

    def _weight(self, layer: Layer, node: Node, axis: int) -> str:
        name = layer.linear.name
        integers = self._constant(f"{name}/integers", layer.integers, np.int8)
        steps = self._constant(f"{name}/steps", layer.steps)
        zeros = self._constant(f"{name}/zeros", np.zeros(len(layer.steps)), np.int8)
        made = self._op("DequantizeLinear", [integers, steps, zeros], f"{name}/weight", axis=axis)
        self.before.setdefault(node.name, []).append(made)
        return f"{name}/weight"

    def _bias(self, layer: Layer, values: npt.NDArray[np.float64]) -> None:
        linear = layer.linear
        bias = self._constant(f"{linear.name}/bias", values)
        if linear.bias is None:
            product = self.nodes[linear.node]
            out, inner = product.output[0], f"{product.output[0]}/product"
            product.output[0] = inner
            self.after.setdefault(linear.node, []).append(self._op("Add", [inner, bias], out))
            return
        add = self.nodes[linear.bias]
        constants = {item.name for item in self.plan.model.graph.initializer}
        add.input[next(i for i, name in enumerate(add.input) if name in constants)] = bias

    def _pixels(self, layer: Layer) -> None:
        """Centre and scale pixels, both exact, and round: INT8 then loses nothing of them."""
        node = self.nodes[layer.linear.node]
        x = node.input[0]
        scale = self._constant("pixels/scale", PIXEL_STEP)
        shift = self._constant("pixels/shift", -1.0)
        front = self.before.setdefault(node.name, [])
        front.append(self._op("Mul", [x, scale], "pixels/scaled"))
        front.append(self._op("Add", ["pixels/scaled", shift], "pixels/centred"))
        front += self._round("pixels/centred", PIXEL_STEP)
        node.input[0] = "pixels/centred/dequantised"
        node.input[1] = self._weight(layer, node, axis=0)
        bias = self._constant(f"{layer.linear.name}/bias", layer.int8_bias)
        if len(node.input) > 2:
            node.input[2] = bias
        else:
            node.input.append(bias)
