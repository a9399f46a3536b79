"""What a compiled engine turned out to compute: its products by type, and what became one op.

An engine can be valid and slow: a library that took no FP16 kernel, or ran attention as five ops,
says nothing. So every build reads this from what was compiled, keeps it, and refuses a precision
that is not there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fgdeploy.core.errors import EngineError

# precision -> types of which its products must be, at least in part
_TYPES: dict[str, frozenset[str]] = {
    "fp32": frozenset({"float32"}),
    "fp16": frozenset({"float16"}),
    "bf16": frozenset({"bfloat16"}),
    "int8": frozenset({"int8"}),
    "fp8": frozenset({"float8"}),
}
TYPES = ("float32", "float16", "bfloat16", "int8", "float8")
PATTERNS = ("attention", "layer_norm", "gelu")


@dataclass(frozen=True)
class Layers:
    """Counts of an engine's layers.

    products: linear layers and convolutions, those with weights, by the type that they multiply in
    (`TYPES`); fused: how often a whole pattern is one op, by its name (`PATTERNS`).
    """

    products: Mapping[str, int]
    fused: Mapping[str, int] = field(default_factory=dict)

    def check(self, backend: str, precision: str) -> None:
        """Raise EngineError where no product has the precision's type: it fell to another."""
        if not any(self.products.get(kind) for kind in _TYPES[precision]):
            raise EngineError(
                f"{backend} compiled no {precision} engine: expected products in "
                f"{' or '.join(sorted(_TYPES[precision]))}, got {self.words()}; take another "
                "precision or backend"
            )

    def check_floats(self, graph: Layers, backend: str, precision: str) -> None:
        """Raise EngineError where more products are float32 than in the graph it came from."""
        asked, got = (one.products.get("float32", 0) for one in (graph, self))
        if precision != "fp32" and got > asked:
            raise EngineError(
                f"{backend} computes {got} products in float32 where the {precision} graph has "
                f"{asked}; take another precision or backend, or another version of {backend}"
            )

    def words(self) -> str:
        """Say what it computes, such as "46 products in int8, 2 in float32; 12 attention"."""
        kinds = [
            f"{self.products[kind]} products in {kind}" for kind in TYPES if kind in self.products
        ]
        whole = [f"{self.fused[name]} {name}" for name in PATTERNS if self.fused.get(name)]
        return "; ".join(
            part for part in (", ".join(kinds) or "no products", ", ".join(whole)) if part
        )

    def to_json(self) -> dict[str, Any]:
        """Return what an engine's record keeps."""
        return {"products": dict(self.products), "fused": dict(self.fused)}


def is_valid(entry: Any) -> bool:
    """Tell whether a record's entry is what `Layers.to_json` writes."""
    if not isinstance(entry, dict) or set(entry) != {"products", "fused"}:
        return False
    known = (("products", TYPES), ("fused", PATTERNS))
    return all(
        isinstance(entry[part], dict) and _counts(entry[part], names) for part, names in known
    )


def _counts(entry: dict[Any, Any], names: tuple[str, ...]) -> bool:
    whole = all(type(count) is int and 0 <= count < 1 << 31 for count in entry.values())
    return whole and set(entry) <= set(names)
