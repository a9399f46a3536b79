"""From the names in GLSim's files to ours (arkel23/GLSim; docs/methods.md, section 2.4).

Their own ViT (path A) has names of its own, with q, k and v apart; their timm ViT (path B) has
timm's, and an aggregator that is a list of layers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

OWN_VIT = "patch_embedding.weight"  # every file of path A has it
_FIRST = {
    "class_token": "cls_token",
    "patch_embedding": "patch_embed.proj",
    "positional_embedding.pos_embedding": "pos_embed",
    "encoder.blocks": "blocks",
    "encoder_norm": "norm",
    "aggregator.blocks": "aggregator",
}
_IN_BLOCK = re.compile(r"^((?:blocks|aggregator)\.\d+)\.(proj|pwff)\.")
_THIRDS = re.compile(r"^(.*\.attn\.)proj_([qkv])\.(weight|bias)$")
_OF_STEP = re.compile(r"^steps\.(\d+)\.(?=adapter_(?:attn|pwffn)\.)")
# Path B's aggregators, by a layer that only they have: transformer, depthwise, one convolution.
_LAYERS: dict[str, dict[str, str]] = {
    "aggregator.0.norm1.weight": {"1": "aggregator_norm"},
    "aggregator.7.weight": {
        "0": "aggregator.norm_in",
        "2": "aggregator.mix",
        "4": "aggregator.between",
        "7": "aggregator.point",
        "9": "aggregator_norm",
    },
    "aggregator.2.weight": {
        "0": "aggregator.norm_in",
        "2": "aggregator.mix",
        "4": "aggregator_norm",
    },
}


def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict under our names; one that has them already stays as it is."""
    return _from_own(state) if OWN_VIT in state else _from_timm(state)


def in_block(name: str) -> str:
    """Return the name of a tensor as checkpoints have it, where it is of a step's adapter."""
    return _OF_STEP.sub(lambda found: f"blocks.{int(found[1]) - 1}.", name)


def _from_own(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    thirds: dict[str, dict[str, Tensor]] = {}
    for name, value in state.items():
        if name.startswith("head_reducer."):  # the class head once more
            continue
        start = next((old for old in _FIRST if name == old or name.startswith(f"{old}.")), None)
        called = name if start is None else _FIRST[start] + name[len(start) :]
        called = _IN_BLOCK.sub(_inside, called)
        if (part := _THIRDS.match(called)) is not None:
            thirds.setdefault(f"{part[1]}qkv.{part[3]}", {})[part[2]] = value
        else:
            found[called] = value
    for name, parts in thirds.items():
        if set(parts) == set("qkv") and len({one.shape for one in parts.values()}) == 1:
            found[name] = torch.cat([parts[third] for third in "qkv"])
        else:  # left as they are, to be named as missing or unknown
            found |= {f"{name} ({third})": value for third, value in parts.items()}
    return found


def _inside(found: re.Match[str]) -> str:
    return f"{found[1]}.{ {'proj': 'attn.proj', 'pwff': 'mlp'}[found[2]] }."


def _from_timm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    layers = next((names for layer, names in _LAYERS.items() if layer in state), {})
    found = {}
    for name, value in state.items():
        first, _, rest = name.partition(".")
        number, _, inner = rest.partition(".")
        listed = first == "aggregator" and number in layers and inner in ("weight", "bias")
        found[f"{layers[number]}.{inner}" if listed else name] = value
    return found
