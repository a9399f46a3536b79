"""Which scores are best: by score, then by position, in every engine.

ONNX gives equal scores to the lower position, ONNX Runtime keeps to it, OpenVINO and PyTorch do not
where ties straddle the cut. So nothing here depends on the order that TopK or ArgMin give to equal
values: only on the values themselves, which are the same in all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# The most that TensorRT's TopK gives.
MOST = 3840


@dataclass(frozen=True)
class Chosen:
    """The best of N: rows [B, k] in rising order, and mask [B, N] of ones and zeros."""

    rows: Tensor
    mask: Tensor


def best(scores: Tensor, keep: int) -> Chosen:
    """Return the `keep` greatest of scores [B, N]; among equal ones the first.

    The keep-th greatest value is the cut. All above it stay, and of those that equal it as many as
    there is room for, from the first on. 1 <= keep <= N < 2**24.
    """
    cut = scores.topk(keep, dim=1).values[:, keep - 1 :]
    kind = _counts(scores)
    above, level = (scores > cut).to(kind), (scores == cut).to(kind)
    room = keep - above.sum(dim=1, keepdim=True)
    mask = above + level * (level.cumsum(dim=1) <= room).to(kind)
    return Chosen(positions(mask, keep), mask.to(scores.dtype))


def mask_of_best(scores: Tensor, keep: int, most: int = MOST) -> Tensor:
    """Return a mask [B, N] of ones at the `keep` greatest of scores; among equal ones the first.

    `most` are chosen at a time and then left out. Scores are finite, above the type's least value.
    """
    chosen = best(scores, min(keep, most)).mask
    while (keep := keep - most) > 0:
        left = torch.where(chosen > 0, torch.finfo(scores.dtype).min, scores)
        chosen = chosen + best(left, min(keep, most)).mask
    return chosen


def _counts(values: Tensor) -> torch.dtype:
    """Return a float type that holds every position: bfloat16 has whole numbers to 256 alone."""
    return torch.promote_types(values.dtype, torch.float32)


def positions(mask: Tensor, count: int) -> Tensor:
    """Return where a mask [B, N] that has exactly `count` ones has them, [B, count], rising."""
    kind = _counts(mask)
    falling = torch.arange(mask.shape[1], 0, -1, device=mask.device).to(kind)
    # No two keys above zero are equal, so this order too hangs on no tie.
    return (mask.to(kind) * falling).topk(count, dim=1).indices


def first_least(values: Tensor) -> Tensor:
    """Return where the last axis [..., N] has its least value; the first of equal ones."""
    length = values.shape[-1]
    rising = torch.arange(length, device=values.device).to(_counts(values))
    least = values.amin(dim=-1, keepdim=True)
    at = torch.where(values == least, rising, float(length)).amin(dim=-1)
    return at.to(torch.int64)


def rising(values: Tensor) -> Tensor:
    """Return values [B, N] in rising order: sorted as values, which no tie can change."""
    return -(-values).topk(values.shape[1], dim=1).values
