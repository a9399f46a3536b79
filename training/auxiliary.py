"""What a token reduction adds to the loss: its penalties, and class heads that live here alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fgdeploy.models.heads.base import Features
from fgdeploy.models.methods.base import Recipe
from fgdeploy.models.network import Network
from fgdeploy.training import losses


class AuxiliaryHeads(nn.Module):
    """A class head on each feature that the network reads out in training (Cropr, 2412.00965).

    They are trained and kept in the state of a run, and no part of the network. Each is LayerNorm
    and a product, and its cross entropy counts as much as the loss of the whole network.
    """

    def __init__(self, net: Network, classes: int, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.heads = nn.ModuleList(_head(width, classes) for width in _widths(net))

    def forward(self, features: Features, labels: Tensor) -> dict[str, Tensor]:
        """Return the terms `auxiliary` and `penalty` that features add, where they add any."""
        terms: dict[str, Tensor] = {}
        if len(self.heads):
            pairs = zip(self.heads, features.readouts, strict=True)
            given = [losses.classification(head(one).float(), labels) for head, one in pairs]
            terms["auxiliary"] = torch.stack(given).sum()
        if features.penalties:
            terms["penalty"] = torch.stack(features.penalties).sum()
        return terms

    def groups(self, recipe: Recipe) -> list[dict[str, Any]]:
        """Return the optimiser's group of these heads, at the rate of the network's own."""
        held = list(self.parameters())
        group = {"params": held, "weight_decay": 0.0, "lr_scale": recipe.head_rate}
        return [group] if held else []


def _head(width: int, classes: int) -> nn.Module:
    linear = nn.Linear(width, classes)
    nn.init.trunc_normal_(linear.weight, std=0.02)
    nn.init.zeros_(linear.bias)
    return nn.Sequential(nn.LayerNorm(width), linear)


def _widths(net: Network) -> list[int]:
    """Return how wide each feature is that the network reads out, as a blank photo shows.

    Buffers that a forward pass in training changes, such as statistics, are put back.
    """
    encoder, training = net.encoder, net.training
    kept = {name: value.clone() for name, value in encoder.named_buffers()}
    side = encoder.vit.patch_embed.img_size
    blank = next(encoder.parameters()).new_zeros(2, 3, *side)
    with torch.no_grad():
        readouts = net.train()(blank).readouts
        for name, value in encoder.named_buffers():
            value.copy_(kept[name])
    net.train(training)
    return [int(one.shape[-1]) for one in readouts]
