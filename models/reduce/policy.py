"""Attention that can leave keys out softly, in training: nothing is shortened, so all learns.

DynamicViT (arXiv 2106.02034, Eq. 10 and 11): a policy of ones and zeros, 1 for CLS,
multiplies the keys inside the softmax, each row always seeing itself. As in arkel23/CLCA
(models/dyvit.py) every block of a network in training works this way, with a policy of ones before
the first decision. Outside training these steps do what timm does.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fgdeploy.models.backbone import blocks
from fgdeploy.models.backbone.blocks import Attended, Block
from fgdeploy.models.tokens import Tokens
from fgdeploy.models.walk import LastStep, Step

_EPS = 1e-6


class PolicyStep(Step):
    """A block without a decision of its own: it follows the policy in training."""

    def forward(self, block: Block, tokens: Tokens) -> Tokens:
        """Run the block on all rows."""
        if not self.training:
            return super().forward(block, tokens)
        attended = attend_by(block, tokens)
        return tokens.having(blocks.complete(block, attended), attended=attended)


class PolicyLast(LastStep):
    """The last block: it follows the policy in training."""

    def forward(
        self, block: Block, tokens: Tokens, all_rows: bool = False, attention: bool = False
    ) -> Tokens:
        """Run the block; proj and MLP on the CLS row alone unless `all_rows`."""
        if not self.training:
            return super().forward(block, tokens, all_rows, attention)
        attended = attend_by(block, tokens)
        if all_rows:
            return tokens.having(blocks.complete(block, attended), attended=attended)
        merged = blocks.merge(block, attended.x[:, :1], attended.out[:, :1])
        row = blocks.feed_forward(block, merged)
        return tokens.having(
            row, prefix=1, suffix=0, policy=None, attended=attended, places=tokens.cls_place
        )


def attend_by(block: Block, tokens: Tokens) -> Attended:
    """Return a block's attention under the policy of the tokens, None for all ones."""
    q, k, v = blocks.project(block, tokens.x, tokens.places)
    scale = float(q.shape[-1]) ** -0.5
    policy = tokens.x.new_ones(tokens.x.shape[:2]) if tokens.policy is None else tokens.policy
    out = policy_softmax((q * scale) @ k.transpose(-2, -1), policy).to(v.dtype) @ v
    return Attended(tokens.x, q, k, v, out.transpose(1, 2).flatten(2))


def policy_softmax(products: Tensor, policy: Tensor) -> Tensor:
    """Return the shares of all keys [B, H, T, T], in float32 at least.

    exp(a - max) times the policy [B, T], which is 1 for a row's own key, plus eps / T, over their
    sum plus eps.
    """
    kind = torch.promote_types(products.dtype, torch.float32)
    products = products.to(kind)
    keys = policy.to(kind)[:, None, None, :]
    own = torch.eye(products.shape[-1], dtype=kind, device=products.device)
    allowed = keys + (1 - keys) * own
    raised = (products - products.amax(dim=-1, keepdim=True)).exp() * allowed
    shares: Tensor = (raised + _EPS / products.shape[-1]) / (raised.sum(-1, keepdim=True) + _EPS)
    return shares
