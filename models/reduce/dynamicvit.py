"""DynamicViT: a predictor says before the block which rows stay (arXiv 2106.02034).

As ported in CLCA (arkel23/CLCA, models/dyvit.py). In training no row goes: decisions are drawn
(hard Gumbel, 1 keeps), multiply those before, and steer every attention behind them (`policy`).
Outside training the rows of the best scores stay. CLS stays always; everything else may go,
registers, CLR and cached rows too.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fgdeploy.models.backbone import blocks
from fgdeploy.models.backbone.blocks import Block
from fgdeploy.models.reduce.layers import SmallLinear
from fgdeploy.models.reduce.order import Chosen, best
from fgdeploy.models.reduce.policy import PolicyLast, PolicyStep
from fgdeploy.models.reduce.reduction import ReducedOptions, Reduction, Slot
from fgdeploy.models.tokens import Tokens
from fgdeploy.models.walk import Step

# What a share of kept rows off its rate costs, beside the loss of the task.
_RATIO_WEIGHT = 2.0


class Predictor(nn.Module):
    """Two logits for each row, keep and drop: from its own features and the mean of all that count.

    Paper, Eq. 3 to 6; the names of its layers are the authors'.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.own_width = width // 2
        self.in_conv = nn.Sequential(nn.LayerNorm(width), SmallLinear(width, width), nn.GELU())
        self.out_conv = nn.Sequential(
            SmallLinear(width, width // 2),
            nn.GELU(),
            SmallLinear(width // 2, width // 4),
            nn.GELU(),
            SmallLinear(width // 4, 2),
        )

    def forward(self, x: Tensor, policy: Tensor | None) -> Tensor:
        """Return logits [B, T, 2] of rows x [B, T, D].

        policy: [B, T], which rows the mean counts, None for all. Where it counts none the mean is 0
        (the authors divide by zero). The 1e-6 joins the mean behind the division, as they have it.
        """
        own, rest = self.in_conv(x).split([self.own_width, x.shape[2] - self.own_width], dim=2)
        if policy is None:
            mean = rest.mean(dim=1, keepdim=True)
        else:
            # Counts are whole numbers, so 0.5 changes none but 0.
            counted = policy.sum(dim=1).clamp(min=0.5)[:, None, None]
            mean = (rest * policy.unsqueeze(2)).sum(dim=1, keepdim=True) / counted
        everywhere = (mean + 1e-6).expand(-1, x.shape[1], -1)
        logits: Tensor = self.out_conv(torch.cat([own, everywhere], dim=2))
        return logits


class Likeliest(nn.Module):
    """The rows most probably kept; a module, so that its nodes have a name in the graph."""

    def forward(self, logits: Tensor, keep: int) -> Chosen:
        """Return `keep` rows by logits [B, N, 2]: log softmax rises with their difference."""
        return best(logits[:, :, 0] - logits[:, :, 1], keep)


class DynamicViT(PolicyStep):
    """Keep the best rows before the block; in training draw which of them count.

    stages: how many there are; each has its share in the loss.
    """

    def __init__(self, slot: Slot, stages: int) -> None:
        super().__init__()
        self.slot, self.share = slot, _RATIO_WEIGHT / stages
        self.predictor = Predictor(slot.width)
        self.select = Likeliest()

    def keep(self, count: int) -> int:
        """Return how many of `count` rows, CLS among them, stay behind CLS."""
        slot = self.slot
        if slot.cached:  # the first of several rates in every stage, as the authors' code has it
            return int((count - 2) * slot.rates[0])
        return int((slot.start - 1) * slot.of_all)

    def forward(self, block: Block, tokens: Tokens) -> Tokens:
        """Decide, then run the block."""
        return super().forward(block, self._drawn(tokens) if self.training else self._kept(tokens))

    def _scored(self, tokens: Tokens) -> Tensor:
        policy = None if tokens.policy is None else tokens.policy[:, 1:]
        logits: Tensor = self.predictor(tokens.x[:, 1:], policy)
        return logits

    def _kept(self, tokens: Tokens) -> Tokens:
        x, keep, policy = tokens.x, self.keep(tokens.count), None
        if keep >= tokens.count - 1:
            return tokens
        if self.slot.cached:  # rows will come back that do not count, as these do
            policy = x.new_ones(x.shape[0], 1)
        if keep == 0:
            origin = tokens.traced(lambda rows: rows[:, :1])
            return tokens.having(
                x[:, :1],
                prefix=1,
                suffix=0,
                policy=policy,
                origin=origin,
                places=tokens.cls_place,
            )
        chosen = self.select(self._scored(tokens), keep)
        if policy is not None:
            held = chosen.mask if tokens.policy is None else tokens.policy[:, 1:]
            policy = torch.cat([policy, held.gather(1, chosen.rows)], dim=1)
        x = blocks.take_rows(x, chosen.rows, 1)
        origin = tokens.traced(lambda rows: blocks.take_rows(rows, chosen.rows, 1))
        places = tokens.places_of(chosen.rows, 1)
        return tokens.having(x, prefix=1, suffix=0, policy=policy, origin=origin, places=places)

    def _drawn(self, tokens: Tokens) -> Tokens:
        logits = self._scored(tokens)
        decision = F.gumbel_softmax(logits.log_softmax(dim=2), hard=True)[:, :, 0]
        if tokens.policy is not None:
            decision = decision * tokens.policy[:, 1:]
        off = decision.mean(dim=1) - self.slot.of_all
        penalties = (*tokens.penalties, self.share * off.square().mean())
        policy = torch.cat([torch.ones_like(decision[:, :1]), decision], dim=1)
        return tokens.having(tokens.x, policy=policy, penalties=penalties)


def _make(slot: Slot, options: ReducedOptions) -> Step:
    return DynamicViT(slot, len(options.blocks or ()))


REDUCTION = Reduction(
    name="dynamicvit",
    make=_make,
    source="arXiv 2106.02034, as in arkel23/CLCA",
    pins=("steps.*predictor*", "steps.*select/*"),
    plain=PolicyStep,
    last=PolicyLast,
)
