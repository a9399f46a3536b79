"""Which scores are best: by score, then by position, in every engine.

ONNX gives equal scores to the lower position, ONNX Runtime keeps to it, OpenVINO and PyTorch do not
where ties straddle the cut. So nothing here depends on the order that TopK or ArgMin give to equal
values: only on the values themselves, which are the same in all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


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
    above = (scores > cut).to(scores.dtype)
    level = (scores == cut).to(scores.dtype)
    room = keep - above.sum(dim=1, keepdim=True)
    mask = above + level * (level.cumsum(dim=1) <= room).to(scores.dtype)
    return Chosen(positions(mask, keep), mask)


def positions(mask: Tensor, count: int) -> Tensor:
    """Return where a mask [B, N] that has exactly `count` ones has them, [B, count], rising."""
    length = mask.shape[1]
    falling = torch.arange(length, 0, -1, device=mask.device).to(mask.dtype)
    keys = (mask * falling).topk(count, dim=1).values  # no two of them are equal
    return (length - keys).to(torch.int64)


def first_least(values: Tensor) -> Tensor:
    """Return where the last axis [..., N] has its least value; the first of equal ones."""
    length = values.shape[-1]
    rising = torch.arange(length, device=values.device).to(values.dtype)
    least = values.amin(dim=-1, keepdim=True)
    at = torch.where(values == least, rising, float(length)).amin(dim=-1)
    return at.to(torch.int64)


def rising(values: Tensor) -> Tensor:
    """Return values [B, N] in rising order: sorted as values, which no tie can change."""
    return -(-values).topk(values.shape[1], dim=1).values
