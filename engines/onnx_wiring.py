"""An ONNX graph that is being rewritten: who makes and reads a tensor, its constants and shapes."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

# onnx's protobuf messages carry no types that a strict checker could use.
Node = Any
_OPS = "com.microsoft"  # the domain of ONNX Runtime's own ops


class Wiring:
    """A graph's wiring. Nodes are replaced one by one; `finish` writes the graph anew.

    model: an onnx.ModelProto, left as it is until then.
    """

    def __init__(self, model: Any) -> None:
        self.model, self.nodes = model, list(model.graph.node)
        self.outputs = {value.name for value in model.graph.output}
        self._constants = {item.name: item for item in model.graph.initializer}
        self._makers = {name: node for node in self.nodes for name in node.output}
        self._readers: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        graph = onnx.shape_inference.infer_shapes(model).graph
        values = (*graph.value_info, *graph.input, *graph.output)
        self._types = {value.name: value.type.tensor_type for value in values}
        self._new: dict[str, Node] = {}  # by the first tensor that the old node made
        self._gone: set[str] = set()

    def maker(self, tensor: str, kind: str) -> Node | None:
        """Return the node that makes a tensor, if it is of this kind."""
        node = self._makers.get(tensor)
        return node if node is not None and node.op_type == kind else None

    def readers(self, tensor: str) -> list[Node]:
        """Return the nodes that read a tensor."""
        return self._readers.get(tensor, [])

    def only_reader(self, tensor: str, kind: str) -> Node | None:
        """Return the only one who reads a tensor, if it is a node of this kind."""
        found = self.readers(tensor)
        alone = tensor not in self.outputs and len(found) == 1
        return found[0] if alone and found[0].op_type == kind else None

    def constant(self, tensor: str) -> npt.NDArray[Any] | None:
        """Return the numbers of an initializer."""
        item = self._constants.get(tensor)
        return None if item is None else numpy_helper.to_array(item)

    def number(self, tensor: str) -> float | None:
        """Return an initializer of one number."""
        found = self.constant(tensor)
        return float(found.reshape(())) if found is not None and found.size == 1 else None

    def with_number(self, node: Node | None) -> tuple[str, float] | None:
        """Return what a node of two inputs computes on, and the number on its other side."""
        if node is None:
            return None
        for tensor, other in (node.input, reversed(node.input)):
            number = self.number(other)
            if number is not None:
                return tensor, number
        return None

    def biased(self, tensor: str, width: int) -> tuple[str, str] | None:
        """Return a tensor before a bias [width] was added, and the bias; None if none was."""
        add = self.maker(tensor, "Add")
        if add is None or tensor in self.outputs:
            return None
        for one, other in (add.input, reversed(add.input)):
            if other in self._constants and list(self._constants[other].dims) == [width]:
                return one, other
        return None

    def sides(self, tensor: str) -> list[int | str]:
        """Return a tensor's sides, an unknown one by its name; none where the rank is unknown."""
        if tensor in self._constants:
            return list(self._constants[tensor].dims)
        if tensor not in self._types:
            return []
        return [side.dim_value or side.dim_param for side in self._types[tensor].shape.dim]

    def width(self, tensor: str) -> int | None:
        """Return the last side of a tensor [batch, tokens, width], or None for any other."""
        sides = self.sides(tensor)
        width = sides[2] if len(sides) == 3 else None
        return width if isinstance(width, int) else None

    def replace(self, old: Node, new: Node, also: Collection[Node] = ()) -> None:
        """Let a new node stand in the place of `old`; it makes what `old` and `also` made."""
        self._new[old.output[0]] = new
        self._gone |= {node.output[0] for node in also}

    def finish(self) -> None:
        """Write the graph with the new nodes, without those that nothing reads any more."""
        graph = self.model.graph
        nodes = [
            self._new.get(node.output[0], node)
            for node in self.nodes
            if node.output[0] not in self._gone
        ]
        wanted, kept = set(self.outputs), []
        for node in reversed(nodes):
            if wanted & set(node.output):
                kept.append(type(node).FromString(node.SerializeToString()))
                wanted |= set(node.input)
        weights = [item for item in self._constants.values() if item.name in wanted]
        _write(graph.node, reversed(kept))
        _write(graph.initializer, weights)
        _write(graph.value_info, ())
        if self._new and all(entry.domain != _OPS for entry in self.model.opset_import):
            self.model.opset_import.append(helper.make_opsetid(_OPS, 1))


def own_op(kind: str, reads: list[str], makes: list[str], name: str, **attributes: Any) -> Node:
    """Return a node of one of ONNX Runtime's own ops."""
    return helper.make_node(kind, reads, makes, name, domain=_OPS, **attributes)


def attribute(node: Node, name: str, default: Any = None) -> Any:
    """Return what a node's attribute holds."""
    for item in node.attribute:
        if item.name == name:
            return helper.get_attribute_value(item)
    return default


def _write(field: Any, items: Any) -> None:
    items = list(items)
    del field[:]
    field.extend(items)
