"""From the names of DINOv2's own files (facebookresearch/dinov2) to timm's.

With registers timm has no positions for CLS and registers, so that of CLS is added to it. The token
that stands for hidden patches in training is left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from torch import Tensor

_HIDDEN, _REGISTERS = "mask_token", "register_tokens"
# The gated MLP of the giant: two products in one matrix, then the third.
_GATED = {"w12": "fc1", "w3": "fc2"}


def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict under timm's names; one in other names stays as it is."""
    found = dict(state)
    if _HIDDEN not in state and _REGISTERS not in state:
        return found
    found.pop(_HIDDEN, None)
    if _REGISTERS in found and {"cls_token", "pos_embed"} <= set(found):
        positions = found["pos_embed"]
        found["reg_token"] = found.pop(_REGISTERS)
        found["cls_token"] = found["cls_token"] + positions[:, :1]
        found["pos_embed"] = positions[:, 1:]
    return {_gated(name): value for name, value in found.items()}


def then(
    method: Callable[[Mapping[str, Tensor]], dict[str, Tensor]],
) -> Callable[[Mapping[str, Tensor]], dict[str, Tensor]]:
    """Return a method's key map behind this one."""
    return lambda state: method(rename(state))


def _gated(name: str) -> str:
    match = re.fullmatch(r"(blocks\.\d+\.mlp\.)(w12|w3)(\.(?:weight|bias))", name)
    return name if match is None else match[1] + _GATED[match[2]] + match[3]
