"""Hash heads: from the embedding [B, D] to real-valued hashes [B, bits]; a code bit is hash > 0."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ClassHashHead(nn.Module):
    """EET's trained head: hash = head_hash(head(embedding)), on class logits (paper Eq. 20)."""

    def __init__(self, width: int, classes: int, bits: int) -> None:
        super().__init__()
        self.head = nn.Linear(width, classes)
        self.head_hash = nn.Linear(classes, bits)

    def forward(self, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Return (hash [B, bits], logits [B, C])."""
        logits = self.head(embedding)
        return self.head_hash(logits), logits

    def folded(self) -> nn.Linear:
        """Return the one Linear that gives the same hash, where logits are not wanted.

        W = W_hash W_cls and b = W_hash b_cls + b_hash: exact, as nothing non-linear lies between.
        """
        with torch.no_grad():
            outer, inner = self.head_hash.weight.double(), self.head.weight.double()
            linear = nn.Linear(inner.shape[1], outer.shape[0])
            linear.to(self.head.weight.dtype)
            linear.weight.copy_(outer @ inner)
            linear.bias.copy_(outer @ self.head.bias.double() + self.head_hash.bias.double())
        return linear


class ProjectionHead(nn.Module):
    """A fitted head (ITQ, LSH): hash = W (embedding / |embedding|) + b."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.linear = nn.Linear(weight.shape[1], weight.shape[0])
        self.linear.to(weight.dtype)
        with torch.no_grad():
            self.linear.weight.copy_(weight)
            self.linear.bias.copy_(bias)

    def forward(self, embedding: Tensor) -> Tensor:
        """Return the hash [B, bits]."""
        hashes: Tensor = self.linear(F.normalize(embedding, dim=-1, eps=1e-12))
        return hashes
