"""From the names of ViT-pytorch to timm's: TransFG, FFVT, DVF, RAMS-Trans and what stands on them.

docs/methods.md, Appendix C. Query, key and value are apart there. TransFG and DVF keep their last
block as `part_layer`, FFVT as `ff_last_layer`; RAMS-Trans has two CLS tokens, as timm's distilled
ViTs have.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from fgdeploy.core.errors import CheckpointError

# Where the patch embedding lies there: what has it is a whole network in these names.
ANCHOR = "transformer.embeddings.patch_embeddings.weight"
_ENCODER = "transformer.encoder."
_LAYER = re.compile(r"transformer\.encoder\.layer\.(\d{1,4})\.(.+)", re.DOTALL)
_LAST = ("part_layer.", "ff_last_layer.")  # the block behind those in `layer`
_CHOOSER = "transformer.encoder.part_select."
_SECOND_CLS = "transformer.embeddings.cls_token2"
_POSITIONS = "transformer.embeddings.position_embeddings"
_STRIDE = 12  # of these authors' patches where they overlap
_STARTS = {
    "transformer.embeddings.cls_token": "cls_token",
    "transformer.embeddings.cls_token1": "cls_token",
    _SECOND_CLS: "dist_token",
    _POSITIONS: "pos_embed",
    "transformer.embeddings.patch_embeddings": "patch_embed.proj",
    "transformer.encoder.encoder_norm": "norm",
    "transformer.encoder.part_norm": "norm",
    "transformer.encoder.ff_encoder_norm": "norm",
    "part_head": "head",
}
_IN_BLOCK = {
    "attention_norm": "norm1",
    "ffn_norm": "norm2",
    "attn.out": "attn.proj",
    "ffn.fc1": "mlp.fc1",
    "ffn.fc2": "mlp.fc2",
}
_APART = ("query", "key", "value")  # in the order of timm's rows


def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict under timm's names; one in other names stays as it is.

    What chooses patches in DVF is left out. A name that is not known stays. Raises CheckpointError
    where two tensors would have one name.
    """
    if ANCHOR not in state:
        return dict(state)
    depth = _depth(state)
    found: dict[str, Tensor] = {}
    came: dict[str, str] = {}
    for name, value in state.items():
        if name.startswith(_CHOOSER):
            continue
        ours = _renamed(name, depth)
        if ours in found:
            raise CheckpointError(
                f"the checkpoint has two tensors for {ours}, {came[ours]} and {name}; it is of two "
                "networks, save one of them"
            )
        found[ours], came[ours] = value, name
    return _joined(found)


def then(
    method: Callable[[Mapping[str, Tensor]], dict[str, Tensor]],
) -> Callable[[Mapping[str, Tensor]], dict[str, Tensor]]:
    """Return a key map that takes these names to timm's before a method's own map does its part."""
    return lambda state: method(rename(state))


def notes(state: Mapping[str, Tensor]) -> list[str]:
    """Return what a user must know of a state dict in these names, which is not yet renamed."""
    if ANCHOR not in state:
        return []
    found = []
    left_out = [name for name in state if name.startswith(_CHOOSER)]
    if left_out:
        found.append(f"left out, as it chooses patches: {', '.join(left_out[:4])}")
    if any(name.startswith(_ENCODER + last) for name in state for last in _LAST):
        found.append("its last block was trained on chosen patches and sees all of them here")
    if _SECOND_CLS in state:
        found.append("two CLS tokens; the first is used, so this is the first look alone")
    return found + _overlap(state)


def _overlap(state: Mapping[str, Tensor]) -> list[str]:
    """Tell of positions that are those of overlapping patches, by sizes that people choose."""
    if _POSITIONS not in state or (state[_POSITIONS].ndim, state[ANCHOR].ndim) != (3, 4):
        return []
    patches = int(state[_POSITIONS].shape[1]) - (2 if _SECOND_CLS in state else 1)
    side, patch = math.isqrt(max(patches, 0)), int(state[ANCHOR].shape[-1])
    apart, size = side * patch, (side - 1) * _STRIDE + patch
    if side * side != patches or apart % 32 == 0 or size % 32:
        return []
    return [
        f"{side} x {side} positions: {size} pixels in patches every {_STRIDE} pixels, {apart} in "
        "patches side by side"
    ]


def _depth(state: Mapping[str, Tensor]) -> int:
    """Return how many blocks lie in `layer`."""
    numbers = (int(match[1]) for name in state if (match := _LAYER.fullmatch(name)))
    return 1 + max(numbers, default=-1)


def _renamed(name: str, depth: int) -> str:
    if match := _LAYER.fullmatch(name):
        return f"blocks.{int(match[1])}.{_in_block(match[2])}"
    for last in _LAST:
        if name.startswith(_ENCODER + last):
            return f"blocks.{depth}.{_in_block(name[len(_ENCODER + last) :])}"
    return _replaced(name, _STARTS)


def _in_block(name: str) -> str:
    return _replaced(name, _IN_BLOCK)


def _replaced(name: str, table: Mapping[str, str]) -> str:
    """Return a name whose start is in the table with that replaced; the start ends at a dot."""
    for theirs, ours in table.items():
        if name == theirs or name.startswith(f"{theirs}."):
            return ours + name[len(theirs) :]
    return name


def _joined(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Put the rows of query, key and value below each other, where all three are there and fit."""
    first = re.compile(r"(blocks\.\d+\.attn\.)query\.(weight|bias)")
    for name in list(state):
        if not (match := first.fullmatch(name)):
            continue
        parts = [f"{match[1]}{part}.{match[2]}" for part in _APART]
        tensors = [state[part] for part in parts if part in state]
        if len(tensors) < 3 or len({one.shape for one in tensors}) > 1 or not tensors[0].ndim:
            continue  # what lacks is named when the weights are loaded
        for part in parts:
            del state[part]
        state[f"{match[1]}qkv.{match[2]}"] = torch.cat(tensors)
    return state
