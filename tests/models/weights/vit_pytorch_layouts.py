"""A ViT's weights as ViT-pytorch and what stands on it save them; nothing here knows our names map.

Names and shapes are those of jeonsworld/ViT-pytorch, TACJu/TransFG, Markin-Wang/FFVT,
WhiteJiang/DVF and hyqyoung/RAMS-Trans.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from fgdeploy.models.backbone import vit

# layout -> the last block, the last norm, the class head; an empty last block lies in `layer`.
LAYOUTS = {
    "ViT-pytorch": ("", "encoder_norm", "head"),
    "TransFG": ("part_layer", "part_norm", "part_head"),
    "FFVT": ("ff_last_layer", "ff_encoder_norm", "head"),
    "DVF": ("part_layer", "part_norm", ""),
    "RAMS-Trans": ("", "part_norm", "part_head"),
}
_INSIDE = {
    "norm1": "attention_norm",
    "norm2": "ffn_norm",
    "attn.proj": "attn.out",
    "mlp.fc1": "ffn.fc1",
    "mlp.fc2": "ffn.fc2",
}


def timm_weights(
    name: str = "test_vit", size: int = 64, classes: int = 7, seed: int = 3
) -> dict[str, Tensor]:
    """Return a state dict by timm's names in which every value matters."""
    return dict(_drawn(name, size, classes, seed))


@functools.cache
def _drawn(name: str, size: int, classes: int, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for key, value in vit.create(name, size, classes).state_dict().items():
        noise = torch.randn(value.shape, generator=generator)
        scale = 0.2 if value.ndim == 1 else 1.2 * value[0].numel() ** -0.5
        found[key] = noise * scale + (value.ndim == 1 and key.endswith("weight"))
    return found


def laid_out(state: dict[str, Tensor], layout: str) -> dict[str, Tensor]:
    """Return timm's weights under the names of a layout."""
    last, norm, head = LAYOUTS[layout]
    depth = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks."))
    tokens = ("cls_token1", "cls_token2") if layout == "RAMS-Trans" else ("cls_token", "")
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        first, _, rest = name.partition(".")
        if first == "blocks":
            number, _, inside = rest.partition(".")
            at = last if last and int(number) == depth - 1 else f"layer.{number}"
            found |= _block(f"transformer.encoder.{at}.", inside, value)
        elif first == "patch_embed":
            found[f"transformer.embeddings.patch_embeddings.{name.split('.')[-1]}"] = value
        elif first == "norm":
            found[f"transformer.encoder.{norm}.{rest}"] = value
        elif first == "head":
            found |= {f"{head}.{rest}": value} if head else {}
        elif first != "head_dist":
            ours = {"cls_token": tokens[0], "dist_token": tokens[1]}
            found[f"transformer.embeddings.{ours.get(name, 'position_embeddings')}"] = value
    if layout == "DVF":
        start = "transformer.encoder.part_select.attention_layer."
        width = state["cls_token"].shape[-1]
        found |= {f"{start}weight": torch.ones(1, width), f"{start}bias": torch.ones(1)}
    return found


def _block(start: str, inside: str, value: Tensor) -> dict[str, Tensor]:
    if inside.startswith("attn.qkv."):
        kind = inside.rpartition(".")[2]
        names = (f"{start}attn.{part}.{kind}" for part in ("query", "key", "value"))
        return dict(zip(names, value.chunk(3), strict=True))
    module, _, kind = inside.rpartition(".")
    return {f"{start}{_INSIDE.get(module, module)}.{kind}": value}
