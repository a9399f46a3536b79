"""A plain ViT that looks once, in numpy and float64, from the published maths alone.

One image at a time, weights by timm's names. What the methods that look twice share: all tokens
and attention maps, the resize of a crop, the order of equal scores.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

Array = npt.NDArray[np.float64]
Weights = Mapping[str, Array]
# (target, input of the block, its norm1) -> what is added to the target, q, k or v.
AddedInBlock = Callable[[str, Array, Array], Array | float]
# (block from 0, target of q, k, v, input of the block, its norm1) -> what is added to the target.
Added = Callable[[int, str, Array, Array], Array | float]


@dataclass(frozen=True)
class Looked:
    """What one look gives. T = 1 CLS, the registers and N patches.

    tokens: [T, D] behind the last block, before any norm; normed: behind it too, the same where
    the weights have no `norm`. attention: [L, H, T, T]. prefix: rows before the patches. grid: of
    the patches, rows and columns.
    """

    tokens: Array
    normed: Array
    attention: Array
    prefix: int
    grid: tuple[int, int]


def plain(state: Mapping[str, torch.Tensor]) -> dict[str, Array]:
    """Return a state dict as float64 arrays."""
    return {name: value.detach().double().numpy() for name, value in state.items()}


def vit_tokens(
    state: Weights,
    pixels: Array,
    heads: int,
    eps: float = 1e-6,
    stride: int | None = None,
    cls: str = "cls_token",
    position: str = "pos_embed",
    added: Added = lambda number, target, x, y: 0.0,
) -> Looked:
    """Run normalised pixels [3, h, w] through patch embedding, blocks and norm.

    stride: pixels from patch to patch, None for the patch's side; rows and columns of pixels that
    fill no patch are left out. cls, position: which of the weights are CLS and the positions.
    """
    x, prefix, grid = _embedded(state, pixels, stride, cls, position)
    if "norm_pre.weight" in state:
        x = layer_norm(x, state, "norm_pre", eps)
    depth = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks."))
    maps = []
    for number in range(depth):
        start = f"blocks.{number}."
        p = {name[len(start) :]: value for name, value in state.items() if name.startswith(start)}
        x, attention = run_block(p, x, heads, eps, partial(added, number))
        maps.append(attention)
    normed = layer_norm(x, state, "norm", eps) if "norm.weight" in state else x
    return Looked(x, normed, np.stack(maps), prefix, grid)


def _embedded(
    state: Weights, pixels: Array, stride: int | None, cls: str, position: str
) -> tuple[Array, int, tuple[int, int]]:
    """Return the tokens before the blocks, the rows before the patches, and the grid."""
    kernel = state["patch_embed.proj.weight"]  # [D, 3, P, P]
    side = kernel.shape[-1]
    step = side if stride is None else stride
    grid = ((pixels.shape[1] - side) // step + 1, (pixels.shape[2] - side) // step + 1)
    rows = []
    for row in range(grid[0]):
        for column in range(grid[1]):
            top, left = step * row, step * column
            patch = pixels[:, top : top + side, left : left + side]
            rows.append(np.tensordot(kernel, patch, axes=3))
    patches = np.array(rows) + state.get("patch_embed.proj.bias", 0.0)
    before = [state[name][0] for name in (cls, "reg_token") if name in state]
    prefix = sum(len(one) for one in before)
    places = state[position][0]
    if len(places) == len(patches):  # CLS and registers have no position
        return np.concatenate([*before, patches + places]), prefix, grid
    return np.concatenate([*before, patches]) + places, prefix, grid


def run_block(
    p: Weights,
    x: Array,
    heads: int,
    eps: float,
    added: AddedInBlock = lambda target, x, y: 0.0,
) -> tuple[Array, Array]:
    """Return the tokens [T, D] behind one pre-norm block, and its attention [H, T, T].

    p: the block's weights, by their names in it. Adapters beside attention and MLP count where
    they are there.
    """
    y = layer_norm(x, p, "norm1", eps)
    rows, width = y.shape
    fused = linear(y, p, "attn.qkv")
    q, k, v = (
        (part + added(target, x, y)).reshape(rows, heads, width // heads).transpose(1, 0, 2)
        for target, part in zip("qkv", np.split(fused, 3, axis=1), strict=True)
    )
    attention = softmax(q @ k.transpose(0, 2, 1) / math.sqrt(width // heads))
    out = (attention @ v).transpose(1, 0, 2).reshape(rows, width)
    out = p.get("ls1.gamma", 1.0) * linear(out, p, "attn.proj")
    x = x + out + _beside(p, "adapter_attn", y)
    y = layer_norm(x, p, "norm2", eps)
    out = p.get("ls2.gamma", 1.0) * linear(gelu(linear(y, p, "mlp.fc1")), p, "mlp.fc2")
    return x + out + _beside(p, "adapter_pwffn", y), attention


def _beside(p: Weights, name: str, y: Array) -> Array | float:
    if f"{name}.adapter_down.weight" not in p:
        return 0.0
    inner = gelu(linear(y, p, f"{name}.adapter_down"))
    if f"{name}.adapter_conv.weight" in p:
        kernel, bias = p[f"{name}.adapter_conv.weight"], p[f"{name}.adapter_conv.bias"]
        side = math.isqrt(len(inner) - 1)  # CLS is an image of its own
        parts = [_convolved(inner[:1], 1, kernel), _convolved(inner[1:], side, kernel)]
        inner = gelu(np.concatenate(parts) + bias)
    return linear(inner, p, f"{name}.adapter_up")


def _convolved(rows: Array, side: int, kernel: Array) -> Array:
    """Convolve the pixels [side * side, a] of an image, with zeros around it."""
    padded = np.pad(rows.reshape(side, side, -1), ((1, 1), (1, 1), (0, 0)))
    found = [
        np.einsum("oirc,rci->o", kernel, padded[row : row + 3, column : column + 3])
        for row in range(side)
        for column in range(side)
    ]
    return np.stack(found)


def linear(x: Array, p: Weights, name: str) -> Array:
    """Return x W^T + b; b is zero where there is none."""
    found: Array = x @ p[f"{name}.weight"].T + p.get(f"{name}.bias", 0.0)
    return found


def layer_norm(x: Array, p: Weights, name: str, eps: float) -> Array:
    """Return (x - mean) / sqrt(variance + eps), scaled and shifted."""
    centred = x - x.mean(-1, keepdims=True)
    found: Array = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps)
    return found * p[f"{name}.weight"] + p[f"{name}.bias"]


def gelu(x: Array) -> Array:
    """Return x times the normal distribution's cdf at x."""
    found: Array = x * 0.5 * (1 + torch.erf(torch.from_numpy(x / math.sqrt(2))).numpy())
    return found


def softmax(x: Array) -> Array:
    """Return the softmax over the last axis."""
    e = np.exp(x - x.max(-1, keepdims=True))
    found: Array = e / e.sum(-1, keepdims=True)
    return found


def first_best(scores: npt.NDArray[np.floating], count: int) -> list[int]:
    """Return where the `count` largest of scores [N] are: by score, then by position."""
    return sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:count]


def cut_and_resized(pixels: Array, box: tuple[int, int, int, int], size: int) -> Array:
    """Return the part of pixels [3, h, w] in the box as [3, size, size].

    box: top, left, bottom, right in pixels, the last two behind the part. Bilinear; the corners of
    the result are the corners of the part (align_corners).
    """
    top, left, bottom, right = box
    part = pixels[:, top:bottom, left:right]
    for axis in (1, 2):
        last = part.shape[axis] - 1
        at = np.arange(size) * (last / (size - 1))
        low = np.clip(np.floor(at).astype(int), 0, last)
        high = np.minimum(low + 1, last)
        share = (at - low).reshape(-1, 1) if axis == 1 else at - low
        part = (1 - share) * part.take(low, axis) + share * part.take(high, axis)
    return part
