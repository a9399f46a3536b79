"""AFTrans in numpy and float64: overlapping patches, attention fused over heads and layers.

docs/methods.md, section 4 with 10. The product over heads is taken as it stands, in long double,
which holds what float32 cannot. Weights by timm's names, `local_cls_token`, `local_pos_embed`,
`sacm.fc1.weight` [L / r, L] and `sacm.fc2.weight` [L, L / r], without biases.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tests.models.methods.reference_looks import (
    Array,
    Weights,
    cut_and_resized,
    first_best,
    linear,
    vit_tokens,
)

Long = npt.NDArray[np.longdouble]
Mask = npt.NDArray[np.bool_]
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Fused:
    """What SACM makes: gates [L], scores [L, N], chosen entries, mask, box.

    chosen: positions among the L N scores, best first. mask, component: [rows, columns]. box: top,
    left, bottom, right in pixels.
    """

    gates: Array
    scores: Long
    chosen: list[int]
    mask: Mask
    component: Mask
    box: Box


@dataclass(frozen=True)
class Branches:
    """Embeddings [D] and logits [C] of both branches; the local one looks at the crop [3, s, s]."""

    embedding: Array
    logits: Array | None
    fused: Fused
    crop: Array
    local_embedding: Array
    local_logits: Array | None


def products(attention: Array) -> Long:
    """Return the product over heads of attention [L, H, T, T], element by element: [L, T, T]."""
    found: Long = attention.astype(np.longdouble).prod(axis=1)
    return found


def pooled(attention: Array, literal: bool, full_map: bool) -> Array:
    """Return one number a layer, [L], that the gates are made of.

    literal: the mean of the products. Else that of their rescaled geometric mean, the T-fold H-th
    root. full_map: over all rows; else over the CLS row, all T columns of it.
    """
    fused = products(attention)
    if not literal:
        fused = attention.shape[-1] * fused ** (np.longdouble(1) / attention.shape[1])
    rows = fused if full_map else fused[:, :1]
    found: Array = rows.mean(axis=(1, 2)).astype(np.float64)
    return found


def gates(state: Weights, values: Array) -> Array:
    """Return sigmoid(W2 relu(W1 values)) of one number a layer [L]."""
    hidden = np.maximum(state["sacm.fc1.weight"] @ values, 0)
    found: Array = 1 / (1 + np.exp(-(state["sacm.fc2.weight"] @ hidden)))
    return found


def largest_component(mask: Mask) -> Mask:
    """Return the largest part of a mask whose cells touch at sides or corners; of equals the first.

    The first is the one whose first cell, row by row, comes first.
    """
    seen = np.zeros_like(mask)
    best: list[tuple[int, int]] = []
    for start in zip(*np.nonzero(mask), strict=True):
        if seen[start]:
            continue
        seen[start] = True
        part, waiting = [], [(int(start[0]), int(start[1]))]
        while waiting:
            row, column = waiting.pop()
            part.append((row, column))
            for r in range(max(row - 1, 0), min(row + 2, mask.shape[0])):
                for c in range(max(column - 1, 0), min(column + 2, mask.shape[1])):
                    if mask[r, c] and not seen[r, c]:
                        seen[r, c] = True
                        waiting.append((r, c))
        if len(part) > len(best):
            best = part
    found = np.zeros_like(mask)
    for cell in best:
        found[cell] = True
    return found


def box_of(component: Mask, stride: int, patch: int) -> Box:
    """Return the pixels that the cells of a component cover: [stride r0, stride r1 + patch)."""
    rows, columns = np.nonzero(component)
    return (
        int(stride * rows.min()),
        int(stride * columns.min()),
        int(stride * rows.max() + patch),
        int(stride * columns.max() + patch),
    )


def sacm(
    state: Weights,
    attention: Array,
    grid: tuple[int, int],
    stride: int,
    patch: int,
    rate: float = 0.4,
    literal: bool = False,
    full_map: bool = False,
) -> Fused:
    """Fuse attention [L, H, T, T], T = 1 + N, and find the region that it points at.

    rate: the share of the L N entries that is chosen (rounded down), by value and then by position.
    """
    layer_gates = gates(state, pooled(attention, literal, full_map))
    scores: Long = layer_gates[:, None] * products(attention)[:, 0, 1:]
    chosen = first_best(scores.reshape(-1), math.floor(rate * scores.size))
    mask = np.zeros(grid[0] * grid[1], bool)
    for entry in chosen:
        mask[entry % len(mask)] = True
    mask = mask.reshape(grid)
    component = largest_component(mask)
    return Fused(layer_gates, scores, chosen, mask, component, box_of(component, stride, patch))


def aftrans(
    state: Weights,
    pixels: Array,
    heads: int,
    stride: int = 12,
    local_size: int = 224,
    rate: float = 0.4,
    eps: float = 1e-6,
    literal: bool = False,
    full_map: bool = False,
) -> Branches:
    """Look at normalised pixels [3, S, S], and at the region that SACM finds, [3, s, s]."""
    patch = state["patch_embed.proj.weight"].shape[-1]
    look = vit_tokens(state, pixels, heads, eps, stride)
    fused = sacm(state, look.attention, look.grid, stride, patch, rate, literal, full_map)
    crop = cut_and_resized(pixels, fused.box, local_size)
    local = vit_tokens(state, crop, heads, eps, stride, "local_cls_token", "local_pos_embed")
    rows = (look.normed[0], local.normed[0])
    both = [linear(row, state, "head") if "head.weight" in state else None for row in rows]
    return Branches(rows[0], both[0], fused, crop, rows[1], both[1])
