"""A bundle's graph as OpenVINO computes it fastest: fixed batch, rows of attention not moved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fgdeploy.core.errors import EngineError
from fgdeploy.engines.ov_core import opset13

# Ops between a weight's numbers and the product that uses them, and how each is made again.
_REMADE: dict[str, Callable[[Any, list[Any]], Any]] = {
    "Convert": lambda node, inputs: opset13.convert(inputs[0], node.get_output_element_type(0)),
    "Multiply": lambda node, inputs: opset13.multiply(*inputs),
    "Subtract": lambda node, inputs: opset13.subtract(*inputs),
}


def read(core: Any, path: Path) -> Any:
    """Read an ONNX file into an openvino.Model whose attention moves its rows as little as it can.

    Raises EngineError where its batch is fixed.
    """
    model = core.read_model(str(path))
    if not model.input("frames").get_partial_shape()[0].is_dynamic:
        raise EngineError(
            f"{path.name} takes {model.input('frames').get_partial_shape()[0]} frames and no "
            "other number, expected any number; export the bundle again"
        )
    cut_before_products(model)
    transpose_in_products(model)
    return model


def set_batch(model: Any, batch: int) -> None:
    """Fix the batch of a read model; with constant shapes the plugin plans all its work ahead."""
    _, *frame = model.input("frames").get_partial_shape()
    model.reshape({"frames": [batch, *(side.get_length() for side in frame)]})


def cut_before_products(model: Any) -> int:
    """Replace Split(x @ W + b) by x @ W1 + b1, x @ W2 + b2, ...; return how many there were.

    Exact: a column of a product depends on the same column of W and b alone. Cutting the product
    copies it, and attention over cut rows would first copy them again. What looks otherwise than
    the exporter's q, k and v stays as it is.
    """
    return sum(_cut(node) for node in model.get_ordered_ops() if node.get_type_name() == "Split")


def transpose_in_products(model: Any) -> int:
    """Let products of q with k read k head by head; return how many do now.

    The exporter writes q @ Transpose(k, [0, 2, 3, 1]), whose transposition is a copy of its own.
    As q @ Transpose(k, [0, 2, 1, 3]).T the plugin does both inside attention; exact.
    """
    return sum(_turn(node) for node in model.get_ordered_ops() if node.get_type_name() == "MatMul")


def _turn(product: Any) -> bool:
    turned = _maker(product, 1)
    if turned.get_type_name() != "Transpose" or any(_transposed(product)):
        return False
    order = _maker(turned, 1)
    if order.get_type_name() != "Constant" or order.data.tolist() != [0, 2, 3, 1]:
        return False
    heads = opset13.transpose(turned.input_value(0), np.array([0, 2, 1, 3]))
    again = opset13.matmul(product.input_value(0), heads, False, True)
    for reader in product.output(0).get_target_inputs():
        reader.replace_source_output(again.output(0))
    return True


def _cut(split: Any) -> bool:
    count = split.get_output_size()
    add = _maker(split, 0)
    whole = split.input_value(0)
    on_columns = _constant(_maker(split, 1)) in (-1, len(whole.get_partial_shape()) - 1)
    alone = len(whole.get_target_inputs()) == 1
    if not (alone and on_columns) or add.get_type_name() != "Add":
        return False
    product, bias = _maker(add, 0), _maker(add, 1)
    if product.get_type_name() != "MatMul" or any(_transposed(product)):
        return False
    width = whole.get_partial_shape()[-1].get_length()
    weights = _columns(_maker(product, 1), width, count)
    biases = _columns(bias, width, count)
    if weights is None or biases is None:
        return False
    for index, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        part = opset13.add(opset13.matmul(product.input_value(0), weight, False, False), bias)
        for reader in split.output(index).get_target_inputs():
            reader.replace_source_output(part.output(0))
    return True


def _columns(node: Any, width: int, count: int) -> list[Any] | None:
    """Return a weight or bias cut into `count` along its last axis, None if it is no constant.

    It may be integers and the ops that turn them into floats; these are made again on each part.
    """
    kind = node.get_type_name()
    if kind == "Constant":
        shape = list(node.get_output_shape(0))
        if not shape or shape[-1] != width:  # one number for all columns
            return [node] * count
        return [
            opset13.constant(np.ascontiguousarray(part))
            for part in np.split(node.data, count, axis=-1)
        ]
    if kind == "Reshape":  # of a vector, to [1, width]
        parts = _columns(_maker(node, 0), width, count)
        shape = [*list(node.get_output_shape(0))[:-1], -1]
        return parts and [opset13.reshape(part, np.array(shape), False) for part in parts]
    if kind not in _REMADE:
        return None
    inputs = [_columns(_maker(node, i), width, count) for i in range(node.get_input_size())]
    known = [parts for parts in inputs if parts is not None]
    if len(known) < len(inputs):
        return None
    return [_REMADE[kind](node, list(row)) for row in zip(*known, strict=True)]


def _maker(node: Any, index: int) -> Any:
    return node.input_value(index).get_node()


def _transposed(product: Any) -> tuple[bool, bool]:
    attributes = product.get_attributes()
    return attributes["transpose_a"], attributes["transpose_b"]


def _constant(node: Any) -> int | None:
    return int(node.data.item()) if node.get_type_name() == "Constant" else None
