"""Weights that several nodes read, given to each of them: INT8 shapes weights to their reader."""

from __future__ import annotations

from collections import Counter

import onnx
from onnx import TensorProto


def unshared(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with no float matrix (or kernel) read by two nodes.

    A network that looks twice runs the same weights on other activations, whose ranges and channel
    scales differ. Biases and norms may be shared: those that change are written anew for each
    node. The graph itself is returned where nothing is shared.
    """
    readers = Counter(name for node in model.graph.node for name in set(node.input))
    shared = {
        item.name: item
        for item in model.graph.initializer
        if readers[item.name] > 1
        and item.data_type == TensorProto.FLOAT
        and sum(side > 1 for side in item.dims) > 1
    }
    if not shared:
        return model
    twin = onnx.ModelProto()
    twin.CopyFrom(model)
    seen: Counter[str] = Counter()
    for node in twin.graph.node:
        for name in {name for name in node.input if name in shared}:
            seen[name] += 1
            if seen[name] == 1:
                continue
            copy = twin.graph.initializer.add()
            copy.CopyFrom(shared[name])
            copy.name = f"{name}/{seen[name]}"
            for place, given in enumerate(node.input):
                if given == name:
                    node.input[place] = copy.name
    return twin
