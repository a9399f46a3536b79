"""Manifests of before: of schema 1, when EET was all there was and no digest vouched for them, and
of schema 2 before they said which options decide a code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fgdeploy.bundle.manifest_schema import DEPTH, GRAPH, PREFIX, SIDE
from fgdeploy.core.json_schema import anything, list_of, map_of, table, whole

_UINT8 = ("code",)
_METHOD = "eet"
_ROWS = whole(1, (1 << 31) - 1)
_STAGE = table(dict.fromkeys(("block", "tokens_in", "keep"), _ROWS))
_SCHEMA = table(
    {
        "stages": list_of(_STAGE),
        **dict.fromkeys(("image_size", "patch_size"), SIDE),
        "depth": DEPTH,
        "prefix_tokens": PREFIX,
        "graph": table({}, {**GRAPH, "outputs": map_of(list_of(anything, 1))}),
        "thresholds": anything,
    }
)


def upgrade(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of schema 2 that say the same. Raises ValueError for damaged ones."""
    _SCHEMA(entry, "")
    stages = [(one["block"], one["keep"]) for one in entry["stages"]]
    side = entry["image_size"] // entry["patch_size"]
    outputs = entry["graph"].get("outputs", {})
    graph = {name: value for name, value in entry["graph"].items() if name != "outputs"}
    return {
        **entry,
        "schema_version": 2,
        "options": {"stages": [list(stage) for stage in stages], "transposed_mask": False},
        "deciding": {"stages": entry["stages"]},
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


def deciding(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of the options decides a code, for a manifest of schema 2 that does not say.

    All options do, but for EET's, whose fingerprints hold the stages alone. Raises ValueError.
    """
    if entry.get("method") != _METHOD:
        return {"options": entry.get("options")}
    table(
        {
            "options": table({"stages": list_of(list_of(_ROWS, 2, 2))}),
            "grid": list_of(SIDE, 2, 2),
        }
    )(entry, "")
    found, arriving = [], entry["grid"][0] * entry["grid"][1]
    for block, keep in entry["options"]["stages"]:
        found.append({"block": block, "tokens_in": arriving, "keep": keep})
        arriving = keep
    return {"stages": found}


def _blocks(
    entry: Mapping[str, Any], stages: list[tuple[int, int]], patches: int
) -> list[dict[str, int]]:
    """Return the rows of each block of the exported graph."""
    done = entry["graph"].get("simplifications", [])
    keep, others, depth = dict(stages), entry["prefix_tokens"], entry["depth"]
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
