"""timm's Eva (DINOv3, EVA-02, RoPE-ViT, Perception Encoder) with blocks in a plain ViT's pieces.

Its blocks differ from a plain ViT's by rotary positions, by biases and projections that lie apart,
by scales that are no modules, and by norms behind attention and MLP. Here they have the parts that
`blocks` calls. Names of tensors stay timm's.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fgdeploy.models.backbone import rotary
from fgdeploy.models.simplify import Simplifiable, Simplification

JOIN_QKV = Simplification(
    "join-qkv",
    "queries, keys and values are products with the same rows, so one matrix and bias make them",
    "two of three products, and joining the parts of a bias",
)
# In the order of a joint matrix.
_TARGETS = "qkv"
_BLOCK = ("norm1", "drop_path1", "norm2", "mlp", "drop_path2")
_ATTENTION = ("qkv", "q_proj", "k_proj", "v_proj", "q_norm", "k_norm", "norm", "attn_drop")


def is_eva(model: Any) -> bool:
    """Return whether a model is timm's Eva, dressed or not."""
    return isinstance(model, timm.models.Eva)


def dress(vit: Any) -> None:
    """Give timm's Eva blocks in pieces. `forward` of the model is not for use behind this."""
    turns: Sequence[rotary.Turned | None] = rotary.of(vit) or [None] * len(vit.blocks)
    pairs = zip(vit.blocks, turns, strict=True)
    vit.blocks = nn.ModuleList(EvaPieces(block, turn) for block, turn in pairs)
    if vit.rope is not None and not hasattr(vit.rope, "freqs"):
        vit.rope = None  # the blocks have its angles


class EvaPieces(nn.Module):
    """A block of timm's Eva as `blocks` takes it apart.

    post_norm: norms lie behind attention and MLP, before they are added (EVA-02-CLIP-E).
    """

    norm1: nn.Module
    norm2: nn.Module
    gamma_1: Tensor | None
    gamma_2: Tensor | None

    def __init__(self, block: Any, turn: rotary.Turned | None) -> None:
        super().__init__()
        self.post_norm = type(block).__name__ == "EvaBlockPostNorm"
        self.attn = EvaProjections(block.attn, turn)
        for name in _BLOCK:
            self.add_module(name, getattr(block, name))
        for name in ("gamma_1", "gamma_2"):
            self.register_parameter(name, getattr(block, name, None))

    @property
    def ls1(self) -> Callable[[Tensor], Tensor]:
        """Return what is done to rows behind attention and its projection before they are added."""
        return self.norm1 if self.post_norm else _scaling(self.gamma_1)

    @property
    def ls2(self) -> Callable[[Tensor], Tensor]:
        """Return the same behind the MLP."""
        return self.norm2 if self.post_norm else _scaling(self.gamma_2)


def _scaling(gamma: Tensor | None) -> Callable[[Tensor], Tensor]:
    return (lambda rows: rows) if gamma is None else (lambda rows: rows * gamma)


class EvaProjections(Simplifiable):
    """What attention of timm's Eva owns: projections, norms, and what turns queries and keys."""

    simplifications = (JOIN_QKV,)
    qkv: Any
    q_proj: Any
    k_proj: Any
    v_proj: Any
    q_bias: Tensor | None
    v_bias: Tensor | None

    def __init__(self, attn: Any, turn: rotary.Turned | None) -> None:
        super().__init__()
        self.num_heads = int(attn.num_heads)
        for name in (*_ATTENTION, "proj", "proj_drop"):
            self.add_module(name, getattr(attn, name))
        for name in ("q_bias", "v_bias"):
            self.register_parameter(name, getattr(attn, name, None))
        self.turn = turn

    @property
    def has_bias(self) -> bool:
        """Return whether anything is added behind the projections."""
        return any(part is not None for part in self._biases())

    def products(self, y: Tensor, wanted: str) -> list[Tensor]:
        """Return rows y [B, R, D] times the matrices of `wanted`, neighbours among qkv.

        Each is [B, R, H*d].
        """
        if self.qkv is None:
            return [getattr(self, f"{letter}_proj")(y) for letter in wanted]
        if wanted == _TARGETS:
            rows, bias = self.qkv(y), self._beside()
            return list((rows if bias is None else rows + bias).chunk(3, dim=-1))
        # Slices of weights are constants of a graph, where chunks are not.
        size = len(self.qkv.weight) // 3
        first = _TARGETS.index(wanted[0]) * size
        taken = slice(first, first + len(wanted) * size)
        parts = [one for one in (self.qkv.bias, self._beside()) if one is not None]
        bias = sum(parts[1:], parts[0])[taken] if parts else None
        return list(F.linear(y, self.qkv.weight[taken], bias).chunk(len(wanted), dim=-1))

    def _beside(self) -> Tensor | None:
        """Return what is added behind `qkv` beside its own bias; keys have none (EVA)."""
        if self.q_bias is None or self.v_bias is None:
            return None
        return torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])

    def _biases(self) -> tuple[Tensor | None, ...]:
        """Return the biases of q, k and v, each [H*d]; all None where there are none."""
        if self.qkv is None:
            found = [getattr(self, f"{letter}_proj") for letter in _TARGETS]
            if all(one.bias is None for one in found):
                return (None, None, None)
            return tuple(
                one.weight.new_zeros(len(one.weight)) if one.bias is None else one.bias
                for one in found
            )
        parts = [one for one in (self.qkv.bias, self._beside()) if one is not None]
        return tuple(sum(parts[1:], parts[0]).chunk(3)) if parts else (None, None, None)

    def folded(self) -> nn.Module:
        """Return the attention with one matrix and bias for q, k and v."""
        apart = self.qkv is None
        joint = isinstance(self.qkv, nn.Linear) and self.q_bias is None
        if not self.acts(JOIN_QKV) or joint or not (apart or isinstance(self.qkv, nn.Linear)):
            return self
        twin = copy.copy(self)
        twin._modules, twin._parameters = dict(self._modules), dict(self._parameters)
        with torch.no_grad():
            twin.qkv = self._joined()
        twin.q_proj = twin.k_proj = twin.v_proj = None
        twin.q_bias = twin.v_bias = None
        return twin

    def _joined(self) -> nn.Linear:
        if self.qkv is None:
            weight = torch.cat([getattr(self, f"{letter}_proj").weight for letter in _TARGETS])
        else:
            weight = self.qkv.weight
        biases = [one for one in self._biases() if one is not None]
        linear = nn.Linear(weight.shape[1], weight.shape[0], bool(biases)).to(weight)
        linear.requires_grad_(False)
        linear.weight.copy_(weight)
        if linear.bias is not None:
            linear.bias.copy_(torch.cat(biases))
        return linear
