"""The linear layers of a graph: what INT8 is for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import onnx
from onnx import helper

from fgdeploy.calibration import pins
from fgdeploy.calibration.paths import Node, Paths

# Below this no INT8 kernel gains anything, and TensorRT wants none (K or N < 16).
LEAST_SIZE = 16


@dataclass(frozen=True)
class Linear:
    """One linear layer or patch embedding: y = x W + b.

    name: the module's name where the exporter left it (`blocks.3.mlp.fc1`), the node's where a
    module has several products; node: the product;
    bias: the node that holds the bias, the product itself for a convolution, None without one;
    x, weight: tensors; fan_in, fan_out: K and N.
    """

    name: str
    node: str
    bias: str | None
    x: str
    weight: str
    fan_in: int
    fan_out: int
    is_patch_embedding: bool = False


def find(model: onnx.ModelProto) -> list[Linear]:
    """Return the layers that may be INT8, in the order of the graph.

    Left out, as they stay in float: products of K or N < 16, layers that see one token per image
    (the last block's CLS row, the head: one row gains nothing and decides the hash), what comes
    behind the blocks (GLSim's aggregator of two rows), products of two activations (attention),
    what is pinned to float32 by name, and convolutions that are no patch embedding.
    """
    paths, named = Paths(model.graph), pins.of(model)
    sizes = {item.name: tuple(item.dims) for item in model.graph.initializer}
    values = onnx.shape_inference.infer_shapes(model).graph.value_info
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in values
    }
    found = []
    for node in paths.nodes:
        size = sizes.get(node.input[1]) if len(node.input) > 1 else None
        if size is None or named.keeps(node.name):
            continue
        if node.op_type == "Conv" and _cuts_patches(node, size):
            found.append(_patch_embedding(node, size))
        elif not named.rounds(node.name):
            continue
        elif node.op_type == "MatMul" and len(size) == 2 and min(size) >= LEAST_SIZE:
            shape = shapes.get(node.input[0], [])
            if len(shape) == 3 and shape[1] != 1:
                found.append(_linear(node, size, paths, sizes))
    times = Counter(one.name for one in found)
    return [one if times[one.name] == 1 else replace(one, name=one.node) for one in found]


def _name(node: Node) -> str:
    return str(node.name).rpartition("/")[0] or str(node.name)


def _cuts_patches(node: Node, size: tuple[int, ...]) -> bool:
    """Say whether a convolution sees each pixel once: any padding would be no pixel's value."""
    marks: dict[str, Any] = {"strides": [1, 1]}
    marks |= {mark.name: helper.get_attribute_value(mark) for mark in node.attribute}
    wanted: dict[str, Any] = {"strides": [*size[2:]], "pads": [0] * 4, "dilations": [1, 1]}
    wanted |= {"group": 1, "auto_pad": b"NOTSET"}
    big = len(size) == 4 and min(size[0], size[1] * size[2] * size[3]) >= LEAST_SIZE
    return big and all(marks.get(name, value) == value for name, value in wanted.items())


def _patch_embedding(node: Node, size: tuple[int, ...]) -> Linear:
    fan_in = size[1] * size[2] * size[3]
    return Linear(
        _name(node), node.name, node.name, node.input[0], node.input[1], fan_in, size[0], True
    )


def _linear(
    node: Node, size: tuple[int, ...], paths: Paths, sizes: Mapping[str, tuple[int, ...]]
) -> Linear:
    readers = paths.users.get(node.output[0], [])
    alone = len(readers) == 1 and node.output[0] not in paths.outputs
    # A constant of another shape is no bias: positions, say, have a row for each token.
    adds = [
        user
        for user in readers
        if user.op_type == "Add" and any(sizes.get(name) == size[1:] for name in user.input)
    ]
    bias = adds[0].name if alone and adds else None
    return Linear(_name(node), node.name, bias, node.input[0], node.input[1], size[0], size[1])
