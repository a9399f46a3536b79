"""The order of GELU's factors in a graph.

The exporter writes x * (0.5 * (1 + erf(x / sqrt(2)))), which ONNX Runtime (1.20 to 1.32) does not
take for a GELU; it runs six ops, each over the widest tensor of a block. Written as
(0.5 * x) * (1 + erf(x / sqrt(2))) it fuses them and the bias before into one. Both are the same
number, as halving is exact.
"""

from __future__ import annotations

from typing import Any

from onnx import numpy_helper


def halve_first(graph: Any) -> int:
    """Reorder every GELU of an onnx.GraphProto in place; return how many there were."""
    halves = {
        item.name
        for item in graph.initializer
        if list(item.dims) in ([], [1]) and numpy_helper.to_array(item).item() == 0.5
    }
    makers = {name: node for node in graph.node for name in node.output}
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    outputs = {value.name for value in graph.output}

    def next_to(name: str, kind: str) -> Any:
        found = readers.get(name, [])
        alone = len(found) == 1 and found[0].op_type == kind and name not in outputs
        return found[0] if alone else None

    count = 0
    for erf in [node for node in graph.node if node.op_type == "Erf"]:
        root = makers.get(erf.input[0])
        plus = next_to(erf.output[0], "Add")
        half = plus and next_to(plus.output[0], "Mul")
        last = half and next_to(half.output[0], "Mul")
        if root is None or root.op_type != "Div" or not last:
            continue
        x, by = root.input[0], [name for name in half.input if name in halves]
        if len(by) != 1 or set(last.input) != {x, half.output[0]}:
            continue
        half.input[:] = [x, by[0]]
        last.input[:] = [half.output[0], plus.output[0]]
        count += 1
    return count
