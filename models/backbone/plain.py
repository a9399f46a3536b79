"""Which of timm's models are plain ViTs with a class token, and why others are not, in words."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

import timm
import torch

from fgdeploy.core.errors import UsageError

# Modules of timm whose models are plain ViTs, most of them.
_MODULES = ("vit_*", "deit*")
_USUAL = "vit_small_patch16_224 or deit_small_patch16_224"


def check_name(backbone: str) -> None:
    """Raise UsageError for a name that timm does not know, with those that are near to it."""
    if timm.is_model(backbone):
        return
    known = timm.list_models(list(_MODULES))
    asked = backbone.lower().replace("-", "_")
    near = difflib.get_close_matches(asked, known, 3, 0.5)
    raise UsageError(
        f"timm knows no backbone {backbone!r}; "
        f"choose {'one near to it' if near else 'another'} for --backbone, such as "
        f"{', '.join(near) or _USUAL}"
    )


def check_kind(backbone: str) -> None:
    """Raise UsageError for a model of timm's that no size makes a plain ViT with a class token."""
    try:
        with torch.device("meta"):  # shapes only, no weights
            made = timm.create_model(backbone, pretrained=False)
    except Exception as error:  # timm's factories raise many kinds
        name, dot, tag = backbone.partition(".")
        if dot and timm.is_model(name):
            held = ", ".join(timm.list_models(f"{name}.*", pretrained=True)[:3]) or name
            raise UsageError(
                f"timm knows no weights {tag!r} of {name}; choose another --backbone, such as "
                f"{held}"
            ) from None
        raise refusal(backbone, f"cannot be made by timm ({type(error).__name__})") from None
    if (reason := why_not(made)) is not None:
        raise refusal(backbone, reason)


def refusal(backbone: str, reason: str) -> UsageError:
    """Return the error for a backbone that is no plain ViT."""
    return UsageError(
        f"{backbone} {reason}; choose another --backbone, a plain ViT with a class token such as "
        f"{_USUAL}"
    )


def why_not(model: Any) -> str | None:
    """Return in words why a model is no plain ViT with a class token, None if it is one."""
    reasons = _OF_EVA if isinstance(model, timm.models.Eva) else _REASONS
    return next((_said(words, model) for words, is_so in reasons.items() if is_so(model)), None)


def _said(words: str, model: Any) -> str:
    block = model.blocks[0] if len(getattr(model, "blocks", ())) else None
    names = {"model": model, "block": block, "attn": getattr(block, "attn", None)}
    return words.format(**{name: type(one).__name__ for name, one in names.items()})


def _of(kind: str) -> Callable[[Any], bool]:
    return lambda module: type(module).__name__ != kind


_other_block, _other_attention, _other_patches = _of("Block"), _of("Attention"), _of("PatchEmbed")

# In the order of asking: each may rely on those before it.
_REASONS: dict[str, Callable[[Any], bool]] = {
    "is of the family {model}, no plain ViT": lambda model: (
        not isinstance(model, timm.models.VisionTransformer) or not len(model.blocks)
    ),
    "pools its patches by attention behind the last block and has no class token, whose attention "
    "tells within a block which patches stay (CLIP's models of images and text have one, such as "
    "vit_base_patch16_clip_224)": lambda model: (
        model.cls_token is None and model.attn_pool is not None
    ),
    "pools its patches and has no class token": lambda model: model.cls_token is None,
    "has blocks of the kind {block}": lambda model: _other_block(model.blocks[0]),
    "has attention of the kind {attn}": lambda model: _other_attention(model.blocks[0].attn),
    "gates its attention": lambda model: getattr(model.blocks[0].attn, "gate", None) is not None,
    "has no position embedding": lambda model: model.pos_embed is None,
    "does not cut pixels into patches": lambda model: _other_patches(model.patch_embed),
}

_ROTARY = ("RotaryEmbeddingCat", "RotaryEmbeddingDinoV3", "RotaryEmbeddingMixed")
# The same of timm's Eva, whose blocks `eva_blocks` takes apart.
_OF_EVA: dict[str, Callable[[Any], bool]] = {
    "pools its patches and has no class token": lambda model: model.cls_token is None,
    "has fewer heads of keys than of queries in some blocks (grouped-query attention)": (
        lambda model: any(getattr(one.attn, "num_kv_groups", 1) > 1 for one in model.blocks)
    ),
    "gates its attention": lambda model: model.blocks[0].attn.gate is not None,
    "has rotary positions of a kind that fgdeploy does not know": lambda model: (
        model.rope is not None and type(model.rope).__name__ not in _ROTARY
    ),
    "does not cut pixels into patches": lambda model: _other_patches(model.patch_embed),
}
