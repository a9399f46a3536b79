"""Manifests of schema 1, as the first versions wrote them: EET alone, no digest of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_UINT8 = ("code",)


def upgrade(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of schema 2 that say the same.

    Raises KeyError, TypeError or ValueError for a manifest that is damaged.
    """
    if not isinstance(entry["stages"], list):
        raise TypeError(f"stages is {type(entry['stages']).__name__}, not list")
    stages = [(int(one["block"]), int(one["keep"])) for one in entry["stages"]]
    patch = int(entry["patch_size"])
    if patch < 1:
        raise ValueError(f"patch_size is {patch}, not above zero")
    side = int(entry["image_size"]) // patch
    outputs = entry["graph"].get("outputs", {})
    graph = {name: value for name, value in entry["graph"].items() if name != "outputs"}
    return {
        **entry,
        "schema_version": 2,
        "options": {"stages": [list(stage) for stage in stages], "transposed_mask": False},
        "grid": [side, side],
        "blocks": _blocks(entry, stages, side * side),
        "outputs": {
            name: {"type": "uint8" if name in _UINT8 else "float32", "shape": list(shape[1:])}
            for name, shape in outputs.items()
        },
        "classes": [],
        "graph": graph,
        "limits": entry["thresholds"],
    }


def _blocks(
    entry: Mapping[str, Any], stages: list[tuple[int, int]], patches: int
) -> list[dict[str, int]]:
    """Return the rows of each block of the exported graph."""
    done = entry["graph"].get("simplifications", [])
    keep, others, depth = dict(stages), int(entry["prefix_tokens"]), int(entry["depth"])
    if not 1 <= depth <= 1000:
        raise ValueError(f"depth is {depth}")
    tokens, found = patches + others, []
    for block in range(1, depth + 1):
        after = keep[block] + others if block in keep else tokens
        rows = after if "early-gather" in done else tokens
        query = tokens
        if block == depth and "cls-last" in done:
            query = rows = 1
        found.append(
            {
                "block": block,
                "tokens": tokens,
                "query": query,
                "keyval": tokens,
                "proj": rows,
                "mlp": rows,
            }
        )
        tokens = after
    return found
