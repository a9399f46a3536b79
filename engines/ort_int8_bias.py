"""Biases of INT8 products, added where ONNX Runtime's product leaves its integers.

Of QuantizeLinear and DequantizeLinear around a MatMul it makes one MatMulIntegerToFloat, but leaves
the bias behind as a pass of its own over the whole output, though the op takes one. The same float
sum, so the same bits. This needs the onnx package.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx

_OPTIONAL = 6  # inputs before the bias: two tensors, two scales, two zero points


def move_all(path: Path) -> int:
    """Rewrite an optimised graph so that its INT8 products add their biases; return how many do."""
    model = onnx.load(path)
    count = move(model.graph)
    path.write_bytes(model.SerializeToString())
    return count


def move(graph: Any) -> int:
    """Do so in an onnx.GraphProto, in place."""
    sizes = {item.name: list(item.dims) for item in graph.initializer}
    outputs = {value.name for value in graph.output}
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    gone = []
    for product in graph.node:
        if product.op_type != "MatMulIntegerToFloat" or len(product.input) > _OPTIONAL:
            continue
        made = product.output[0]
        reader = readers[made][0] if len(readers.get(made, [])) == 1 else None
        if reader is None or made in outputs or reader.op_type not in ("Add", "BiasGelu"):
            continue
        bias = [name for name in reader.input if name != made]
        if len(bias) != 1 or sizes.get(bias[0]) != sizes.get(product.input[1], [])[1:]:
            continue
        product.input.extend(["" for _ in range(_OPTIONAL - len(product.input))])
        product.input.append(bias[0])
        if reader.op_type == "BiasGelu":
            reader.op_type = "Gelu"
            reader.input[:] = [made]
        else:
            product.output[0] = reader.output[0]
            gone.append(reader)
    for node in gone:
        graph.node.remove(node)
    return sum(
        node.op_type == "MatMulIntegerToFloat" and len(node.input) > _OPTIONAL
        for node in graph.node
    )
