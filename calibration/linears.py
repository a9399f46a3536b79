"""The linear layers of a graph: what INT8 is for."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from fgdeploy.calibration.paths import Node, Paths

# Below this no INT8 kernel gains anything, and TensorRT wants none (K or N < 16).
LEAST_SIZE = 16


@dataclass(frozen=True)
class Linear:
    """One linear layer or patch embedding: y = x W + b.

    name: the module's name where the exporter left it (`blocks.3.mlp.fc1`); node: the product;
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
    (the last block's CLS row, the head: one row gains nothing and decides the hash), and products
    of two activations (attention).
    """
    paths = Paths(model.graph)
    sizes = {item.name: tuple(item.dims) for item in model.graph.initializer}
    values = onnx.shape_inference.infer_shapes(model).graph.value_info
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in values
    }
    found = []
    for node in paths.nodes:
        size = sizes.get(node.input[1]) if len(node.input) > 1 else None
        if size is None:
            continue
        if node.op_type == "Conv":
            found.append(_patch_embedding(node, size))
        elif node.op_type == "MatMul" and len(size) == 2 and min(size) >= LEAST_SIZE:
            shape = shapes.get(node.input[0], [])
            if len(shape) == 3 and shape[1] != 1:
                found.append(_linear(node, size, paths))
    return found


def _name(node: Node) -> str:
    return str(node.name).rpartition("/")[0] or str(node.name)


def _patch_embedding(node: Node, size: tuple[int, ...]) -> Linear:
    fan_in = size[1] * size[2] * size[3]
    return Linear(
        _name(node), node.name, node.name, node.input[0], node.input[1], fan_in, size[0], True
    )


def _linear(node: Node, size: tuple[int, ...], paths: Paths) -> Linear:
    readers = paths.users.get(node.output[0], [])
    adds = [user for user in readers if user.op_type == "Add" and set(user.input) & paths.constants]
    bias = adds[0].name if len(readers) == 1 and adds else None
    return Linear(_name(node), node.name, bias, node.input[0], node.input[1], size[0], size[1])
