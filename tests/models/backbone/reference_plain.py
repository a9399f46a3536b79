"""EET on any plain ViT of timm's in NumPy and float64, from the papers and the names of weights.

What a checkpoint holds says what a ViT does: registers, layer scales, norms, biases. What no name
tells is given: heads, the patch's side, the norms' eps, and the MLP's activation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Weights = Mapping[str, Array]


def gelu(x: Array) -> Array:
    """x Phi(x)."""
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def quick_gelu(x: Array) -> Array:
    """x sigma(1.702 x), as CLIP has it."""
    return x / (1 + np.exp(-1.702 * x))


def silu_gate(x: Array) -> Array:
    """The first half, times its sigmoid, gates the second (SwiGLU)."""
    first, second = np.split(x, 2, axis=-1)
    return first / (1 + np.exp(-first)) * second


@dataclass(frozen=True)
class Kind:
    """What the weights do not tell of a ViT."""

    heads: int
    patch: int
    eps: float
    activation: Callable[[Array], Array] = gelu


def forward(kind: Kind, weights: Weights, image: Array, keep: Mapping[int, int]) -> Array:
    """One image [3, S, S] to all rows behind the last norm, CLS first.

    keep: block, from 1, to the patches that stay behind it, in the order of their scores.
    """
    x, prefix = _embedded(kind, weights, image)
    depth = 1 + max(int(key.split(".")[1]) for key in weights if key.startswith("blocks."))
    for number in range(1, depth + 1):
        start = f"blocks.{number - 1}."
        block = {k.removeprefix(start): v for k, v in weights.items() if k.startswith(start)}
        x, scores = _block(kind, block, x, prefix)
        if number in keep:
            best = np.argsort(-scores, kind="stable")[: keep[number]] + prefix
            x = np.concatenate([x[:prefix], x[best]])
    return _norm(weights, "norm", x, kind.eps)


def _embedded(kind: Kind, weights: Weights, image: Array) -> tuple[Array, int]:
    kernel, side = weights["patch_embed.proj.weight"], image.shape[1] // kind.patch
    cells = image.reshape(3, side, kind.patch, side, kind.patch).transpose(1, 3, 0, 2, 4)
    patches = cells.reshape(side * side, -1) @ kernel.reshape(len(kernel), -1).T
    patches = patches + weights.get("patch_embed.proj.bias", 0.0)
    names = [name for name in ("cls_token", "dist_token", "reg_token") if name in weights]
    first = np.concatenate([weights[name][0] for name in names])
    positions = weights["pos_embed"][0]
    if len(positions) == len(patches):  # those of the patches alone
        x = np.concatenate([first, patches + positions])
    else:
        x = np.concatenate([first, patches]) + positions
    return _norm(weights, "norm_pre", x, kind.eps), len(first)


def _block(kind: Kind, block: Weights, x: Array, prefix: int) -> tuple[Array, Array]:
    """Return the block's output and EET's score of each patch (arXiv 2504.16691, Eq. 3 to 5)."""
    q, k, v = np.split(_linear(block, "attn.qkv", _norm(block, "norm1", x, kind.eps)), 3, axis=-1)
    q, k, v = (_by_head(part, kind.heads) for part in (q, k, v))
    q, k = (_norm(block, f"attn.{n}_norm", y, kind.eps) for n, y in (("q", q), ("k", k)))
    attention = _softmax(q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1]))
    out = attention @ v  # [H, T, d]
    lengths = np.sqrt((out**2).sum(-1))[:, prefix:]
    scores = (attention[:, 0, prefix:] * lengths / (lengths.sum(0) + 1e-8)).sum(0)
    joined = out.transpose(1, 0, 2).reshape(x.shape)
    y = _linear(block, "attn.proj", _norm(block, "attn.norm", joined, kind.eps))
    x = x + y * block.get("ls1.gamma", 1.0)
    y = kind.activation(_linear(block, "mlp.fc1", _norm(block, "norm2", x, kind.eps)))
    y = _linear(block, "mlp.fc2", _norm(block, "mlp.norm", y, kind.eps))
    return x + y * block.get("ls2.gamma", 1.0), scores


def _linear(weights: Weights, name: str, x: Array) -> Array:
    return x @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", 0.0)


def _norm(weights: Weights, name: str, x: Array, eps: float) -> Array:
    """Layer norm where there is one: without a bias, of the root of the mean square alone."""
    if f"{name}.weight" not in weights:
        return x
    if f"{name}.bias" not in weights:
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * weights[f"{name}.weight"]
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + eps)
    return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def _by_head(x: Array, heads: int) -> Array:
    return x.reshape(len(x), heads, -1).transpose(1, 0, 2)


def _softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)
