"""Which nodes of a graph keep float32: said by its notes, or read from its wiring.

A graph without notes of its pins (schema 1, or somebody else's) is read by its wiring instead.
"""

from __future__ import annotations

import onnx

from fgdeploy.bundle.graph_pins import HALF, PINS, Pins
from fgdeploy.calibration.paths import Paths

__all__ = ["HALF", "PINS", "Pins", "WiredPins", "of"]


class WiredPins(Pins):
    """Pins of a graph whose nodes have no telling names: what leads to TopK alone is kept, and
    what lies between the first and the last LayerNormalization is halved."""

    def __init__(self, model: onnx.ModelProto) -> None:
        paths = Paths(model.graph)
        self._kept = paths.only_towards(lambda node: node.op_type == "TopK")
        before = paths.reaching(lambda node: node.op_type == "LayerNormalization")
        after = paths.reached_from(lambda node: node.op_type == "LayerNormalization")
        self._between = (before & after) - self._kept

    def keeps(self, node: str) -> bool:
        """Return whether a node is pinned to float32 in every precision."""
        return node in self._kept

    def halves(self, node: str) -> bool:
        """Return whether a node may compute in half precision."""
        return node in self._between

    def rounds(self, node: str) -> bool:
        """Return whether a linear layer may be INT8, wherever it lies."""
        return not self.keeps(node)


def of(model: onnx.ModelProto) -> Pins:
    """Return the pins of a graph. Raises ExportError if what it says of them is damaged."""
    held = {entry.key: entry.value for entry in model.metadata_props}
    return Pins.read(held) or WiredPins(model)
