"""A checkpoint's class head: logits beside a hash that another head makes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def class_head(state: Mapping[str, Tensor], width: int) -> nn.Linear | None:
    """Return the linear class head on an embedding of `width` in a state dict, None without one."""
    weight, bias = state.get("head.weight"), state.get("head.bias")
    if weight is None or weight.ndim != 2 or weight.shape[1] != width:
        return None
    if bias is not None and bias.shape != weight.shape[:1]:
        return None
    head = nn.Linear(width, int(weight.shape[0]), bias is not None)
    with torch.no_grad():
        head.weight.copy_(weight)
        if bias is not None:
            head.bias.copy_(bias)
    return head
