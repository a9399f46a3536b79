"""CLCA's aggregation (CLA): the CLS rows of several blocks become one feature (arkel23/CLCA)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fgdeploy.models.simplify import Simplifiable, Simplification

FOLD_AGGREGATE = Simplification(
    "fold-aggregate",
    "both batch norms and the convolution over blocks are linear, each channel by itself",
    "two batch norms and a grouped convolution",
)


class Aggregate(Simplifiable):
    """CLS rows of `blocks` blocks to one feature: BatchNorm, convolution, BatchNorm, GELU.

    Each channel is convolved over the blocks by itself into `kernels` channels, so the feature has
    kernels D; the class head on it is the last convolution of the authors.
    """

    simplifications = (FOLD_AGGREGATE,)

    def __init__(self, width: int, blocks: int, kernels: int = 2) -> None:
        super().__init__()
        self.width = kernels * width
        self.norm_in = nn.BatchNorm1d(width)
        self.conv = nn.Conv1d(width, self.width, blocks, blocks, groups=width)
        self.norm_out = nn.BatchNorm1d(self.width)
        self.act = nn.GELU()

    def forward(self, rows: Tensor) -> Tensor:
        """Return the feature [B, kernels D] of CLS rows [B, D, blocks]."""
        feature: Tensor = self.act(self.norm_out(self.conv(self.norm_in(rows))).squeeze(2))
        return feature

    def begin(self) -> None:
        """Start so that CLS of the last block comes through whole, and no other block's.

        Its channel goes into `kernels` channels, as x and -x in turn: gelu(x) - gelu(-x) = x. Our
        choice: the authors' start is random and needs a longer training.
        """
        with torch.no_grad():
            self.conv.weight.zero_()
            self.conv.weight[0::2, :, -1] = 1.0
            self.conv.weight[1::2, :, -1] = -1.0
            assert self.conv.bias is not None
            self.conv.bias.zero_()

    def settle(self, rows: Tensor) -> Tensor:
        """Take the statistics of CLS rows [n, D, blocks], n > 1; return the features they get."""
        training = self.training
        with torch.no_grad():
            _settle(self.norm_in, rows)
            _settle(self.norm_out, self.conv(self.norm_in(rows)))
            feature: Tensor = self.eval()(rows)
        self.train(training)
        return feature

    def folded(self) -> nn.Module:
        """Return the one weighted sum that gives the same."""
        return FoldedAggregate(self) if self.acts(FOLD_AGGREGATE) else self


class FoldedAggregate(nn.Module):
    """u[o] = sum over blocks of W[o, t] cls[o // kernels, t] + b[o]; then GELU."""

    def __init__(self, plain: Aggregate) -> None:
        super().__init__()
        with torch.no_grad():
            inner, shift_in = _affine(plain.norm_in)
            outer, shift_out = _affine(plain.norm_out)
            conv = plain.conv.weight.double().squeeze(1)  # [kernels D, blocks]
            kernels = conv.shape[0] // inner.shape[0]
            weight = outer[:, None] * conv * inner.repeat_interleave(kernels)[:, None]
            bias = conv.sum(dim=1) * shift_in.repeat_interleave(kernels)
            assert plain.conv.bias is not None
            bias = outer * (plain.conv.bias.double() + bias) + shift_out
        kind = plain.conv.weight.dtype
        shape = (1, -1, kernels, conv.shape[1])
        self.register_buffer("weight", weight.to(kind).reshape(shape), persistent=False)
        self.register_buffer("bias", bias.to(kind), persistent=False)
        self.act = plain.act

    weight: Tensor
    bias: Tensor

    def forward(self, rows: Tensor) -> Tensor:
        """Return the feature [B, kernels D] of CLS rows [B, D, blocks]."""
        summed = (rows.unsqueeze(2) * self.weight).sum(dim=3).flatten(1)
        feature: Tensor = self.act(summed + self.bias)
        return feature


def _settle(norm: nn.BatchNorm1d, rows: Tensor) -> None:
    """Take mean and variance of rows as the statistics, and leave training mode."""
    momentum, norm.momentum = norm.momentum, 1.0
    norm.train()(rows)
    norm.momentum = momentum
    norm.eval()


def _affine(norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    """Return scale and shift of a batch norm with its statistics, in float64."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    return scale, norm.bias.double() - scale * norm.running_mean.double()


class WeightedAggregate(nn.Module):
    """The older head (`ifa_dws_conv_groups` 0): a weight for each block, ReLU, LayerNorm.

    From 'Anime Character Recognition using Intermediate Features Aggregation' (IEEE, 2022).
    """

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.width = width
        self.weigh = nn.Linear(blocks, 1)
        self.norm = nn.LayerNorm(width)

    def forward(self, rows: Tensor) -> Tensor:
        """Return the feature [B, D] of CLS rows [B, D, blocks]."""
        feature: Tensor = self.norm(self.weigh(rows).squeeze(2).relu())
        return feature
