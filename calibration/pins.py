"""Which nodes of a graph keep float32: said by their names where the graph was exported.

An export writes patterns of node names into the graph, so they travel with it: what decides
(token scores, boxes) is pinned in every precision; of the rest, FP16 graphs reduce the nodes of
blocks and steps, and those that a method adds. A graph without such names (schema 1, or somebody
else's) is read by its wiring instead.
"""

from __future__ import annotations

import fnmatch
import functools
import json
from collections.abc import Sequence
from typing import Any

import onnx

from fgdeploy.calibration.paths import Paths
from fgdeploy.core.errors import ExportError

PINS, HALF = "fgdeploy.pins", "fgdeploy.half"
# Modules whose products FP16 graphs compute in half precision, and INT8 graphs in INT8.
_REDUCED = ("blocks.*", "steps.*")


class Pins:
    """Tells nodes by name. `keeps`: never below float32; `halves`: FP16 in an FP16 graph;
    `rounds`: INT8 in an INT8 graph, if it is a linear layer.
    """

    def __init__(self, pinned: Sequence[str], half: Sequence[str]) -> None:
        self._pinned, self._half = tuple(pinned), (*_REDUCED, *half)

    def keeps(self, node: str) -> bool:
        """Return whether a node is pinned to float32 in every precision."""
        return _matches(node, self._pinned)

    def halves(self, node: str) -> bool:
        """Return whether a node may compute in half precision."""
        return _matches(node, self._half) and not self.keeps(node)

    def rounds(self, node: str) -> bool:
        """Return whether a linear layer may be INT8: what comes behind the blocks decides the
        hash on few rows, so it gains nothing and stays in float."""
        return _matches(node, _REDUCED) and not self.keeps(node)


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
    if PINS not in held:
        return WiredPins(model)
    try:
        return Pins(_read(held[PINS]), _read(held.get(HALF, "[]")))
    except (ValueError, TypeError, RecursionError) as error:
        raise ExportError(f"the graph's pins are damaged ({error}); export it again") from None


def _read(text: str) -> list[str]:
    found: Any = json.loads(text)
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise TypeError("expected a list of names")
    return found


@functools.lru_cache(maxsize=65536)
def _matches(node: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(node, pattern) for pattern in patterns)
