"""What leads where in an ONNX graph: producers, users, and what can be reached from a node."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

# onnx's protobuf messages carry no types that a strict checker could use.
Node = Any
Graph = Any


class Paths:
    """The wiring of a graph, as it was when this was made.

    producers: tensor -> node that makes it; users: tensor -> nodes that read it; constants: names
    of the initializers; outputs: names of the graph's outputs.
    """

    def __init__(self, graph: Graph) -> None:
        self.nodes: list[Node] = list(graph.node)
        self.constants = {item.name for item in graph.initializer}
        self.outputs = {value.name for value in graph.output}
        self.producers = {name: node for node in self.nodes for name in node.output}
        self.users: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in node.input:
                self.users.setdefault(name, []).append(node)

    def reaching(self, chosen: Callable[[Node], bool]) -> set[str]:
        """Return the names of nodes from which a chosen node can be reached; those included."""
        found: set[str] = set()
        waiting = [node for node in self.nodes if chosen(node)]
        while waiting:
            node = waiting.pop()
            if node.name in found:
                continue
            found.add(node.name)
            waiting += [self.producers[name] for name in node.input if name in self.producers]
        return found

    def reached_from(self, chosen: Callable[[Node], bool]) -> set[str]:
        """Return the names of nodes that can be reached from a chosen node; those included."""
        found: set[str] = set()
        for node in self.nodes:
            makers = (self.producers.get(name) for name in node.input)
            if chosen(node) or any(maker is not None and maker.name in found for maker in makers):
                found.add(node.name)
        return found

    def only_towards(self, chosen: Callable[[Node], bool]) -> set[str]:
        """Return the names of nodes whose every way onward leads through a chosen node.

        The chosen nodes are among them. Reads the nodes in reverse, so they must be in order.
        """
        found = {node.name for node in self.nodes if chosen(node)}
        for node in reversed(self.nodes):
            readers = [user for name in node.output for user in self.users.get(name, ())]
            if self.outputs & set(node.output):
                continue
            if readers and all(user.name in found for user in readers):
                found.add(node.name)
        return found

    def follow_back(self, tensor: str, kinds: Iterable[str]) -> Node | None:
        """Return the node that lies behind `kinds` (the last one first), or None on another way."""
        node = None
        for kind in kinds:
            node = self.producers.get(tensor)
            if node is None or node.op_type != kind:
                return None
            tensor = node.input[0]
        return node
