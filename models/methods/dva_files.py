"""What a DVA file says of itself: which projections have adapters, and how wide they are.

Names are ours, as there are no authors' files: timm's, and `blocks.I.attn.ic_q.down.weight` [r, D],
`.up.weight` [D, r], `.norm.weight` and `.norm.bias` [D] where an adapter has a norm of its own;
likewise ic_k and ic_v. A folded file has timm's names alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fgdeploy.core.errors import CheckpointError
from fgdeploy.models.backbone.in_context import TARGETS
from fgdeploy.models.weights.told import Told

ADAPTERS = ".attn.ic_"
_PART = re.compile(
    r"blocks\.(\d+)\.attn\.ic_([qkv])\.(down\.weight|up\.weight|norm\.(?:weight|bias))"
)


def claims(arguments: Mapping[str, Any], state: Mapping[str, Tensor]) -> bool:
    """Return whether a file holds in-context adapters."""
    return any(ADAPTERS in name for name in state)


def told(arguments: Mapping[str, Any], state: Mapping[str, Tensor], name: str) -> Told | None:
    """Return targets, rank and norm of the adapters in a file, None where it has none.

    Raises CheckpointError for adapters that are not the same in all blocks.
    """
    parts = {m[0]: m for key in state if (m := _PART.fullmatch(key))}
    if not parts:
        return None
    depth = 1 + max(int(m[1]) for key in state if (m := re.match(r"blocks\.(\d+)\.", key)))
    targets = "".join(one for one in TARGETS if any(m[2] == one for m in parts.values()))
    own_norm = any("norm" in m[3] for m in parts.values())
    wanted = ["down.weight", "up.weight", *(["norm.weight", "norm.bias"] if own_norm else [])]
    needed = [
        f"blocks.{number}{ADAPTERS}{target}.{part}"
        for number in range(depth)
        for target in targets
        for part in wanted
    ]
    if lacking := [key for key in needed if key not in state]:
        raise CheckpointError(
            f"{name} lacks {lacking[0]}, though it has {next(iter(parts))}; adapters must be the "
            "same in all blocks: save all of them, or none where they are folded"
        )
    ranks = {int(state[key].shape[0]) for key in parts if key.endswith("down.weight")}
    if len(ranks) > 1:
        raise CheckpointError(
            f"{name} has adapters of ranks {', '.join(map(str, sorted(ranks)))}; expected one rank "
            "in all blocks"
        )
    options = {"targets": targets, "rank": ranks.pop(), "own_norm": own_norm}
    return Told(options, frozenset(options))
