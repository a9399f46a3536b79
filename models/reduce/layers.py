"""What the weights of a reduction are made of: layers that start as its authors start them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_STD = 0.02


class SmallLinear(nn.Linear):
    """A linear layer that starts small, as timm starts those of a ViT: std 0.02, biases 0.

    It may have no outputs: its weights exist then, for checkpoints that hold them, and are empty.
    """

    def reset_parameters(self) -> None:
        """Draw the weights from torch's random state."""
        with torch.no_grad():
            if self.weight.numel():
                nn.init.trunc_normal_(self.weight, std=_STD)
            if self.bias is not None:
                self.bias.zero_()


class Product(nn.Module):
    """A matrix product that is part of a reduction, as a module, so that `plan` counts it."""

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Return left [..., n, m] times right [..., m, k]."""
        return left @ right


def macs_of(left: Tensor, right: Tensor) -> int:
    """Return the multiply-accumulates of a product, over all leading axes."""
    leading = math.prod((left if left.ndim > right.ndim else right).shape[:-2])
    return leading * left.shape[-2] * left.shape[-1] * right.shape[-1]
