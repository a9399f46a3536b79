"""Multiply-accumulates per image, as the papers count (no norms, softmax, biases, heads).

block = q D^2 + 2 kv D^2 + 2 q kv D + proj D^2 + 2 r mlp D^2, with the rows of each part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fgdeploy.models.stages import Stage


@dataclass(frozen=True)
class Shape:
    """The sizes that the count depends on: D, blocks, patch side, patch tokens, other tokens."""

    width: int
    depth: int
    patch_size: int
    patches: int
    prefix_tokens: int = 1
    mlp_ratio: float = 4.0


def block_macs(width: int, query: int, keyval: int, proj: int, mlp: int, ratio: float = 4.0) -> int:
    """Count one block: `query`, `keyval`, `proj` and `mlp` are token rows."""
    square = width * width
    attention = query * square + 2 * keyval * square + 2 * query * keyval * width
    return int(attention + proj * square + 2 * ratio * mlp * square)


def dense(shape: Shape) -> int:
    """Count the unpruned model as timm runs it."""
    return _count(shape, (), early=False, cls_last=False)


def published(shape: Shape, stages: Sequence[Stage]) -> int:
    """Count the model as its authors run it: a stage's block works on all tokens that enter it."""
    return _count(shape, stages, early=False, cls_last=False)


def exported(shape: Shape, stages: Sequence[Stage], early: bool = True, last: bool = True) -> int:
    """Count the exported graph: early gather (`early`) and a CLS-only last block (`last`)."""
    return _count(shape, stages, early=early, cls_last=last)


def _count(shape: Shape, stages: Sequence[Stage], early: bool, cls_last: bool) -> int:
    keep = {stage.block: stage.keep for stage in stages}
    total = shape.patches * 3 * shape.patch_size**2 * shape.width
    tokens = shape.patches + shape.prefix_tokens
    for block in range(1, shape.depth + 1):
        after = keep.get(block, tokens - shape.prefix_tokens) + shape.prefix_tokens
        rows = after if early else tokens
        query = tokens
        if cls_last and block == shape.depth:
            query = rows = 1
        total += block_macs(shape.width, query, tokens, rows, rows, shape.mlp_ratio)
        tokens = after
    return total
