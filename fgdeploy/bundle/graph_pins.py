"""What a graph says of its nodes' precision, by patterns of their names.

An export writes them into the graph, so they travel with it: what decides (token scores, boxes) is
pinned in every precision; of the rest, FP16 graphs reduce the nodes of blocks and steps, and those
that a method adds.
"""

from __future__ import annotations

import fnmatch
import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

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

    @classmethod
    def read(cls, notes: Mapping[str, str]) -> Pins | None:
        """Return the pins among a graph's notes; None where it has none, as before schema 2.

        Raises ExportError if they are damaged.
        """
        if PINS not in notes:
            return None
        try:
            return cls(_names(notes[PINS]), _names(notes.get(HALF, "[]")))
        except (ValueError, TypeError, RecursionError) as error:
            raise ExportError(f"the graph's pins are damaged ({error}); export it again") from None

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


def _names(text: str) -> list[str]:
    found: Any = json.loads(text)
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise TypeError("expected a list of names")
    return found


@functools.lru_cache(maxsize=65536)
def _matches(node: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(node, pattern) for pattern in patterns)
