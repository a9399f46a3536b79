"""A ViT whose blocks may each do something of their own with the tokens: the frame of all methods.

A method is a set of steps: block number -> `Complete`, what that block does after attention (keep
the best tokens, fuse the rest, merge, append). Everything else about a ViT stays here, once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from fgdeploy.models import blocks
from fgdeploy.models.blocks import Attended, Block, Complete
from fgdeploy.models.vit import ViT, embed_tokens


@dataclass(frozen=True)
class Shortcuts:
    """Exact rewritings of a published forward pass; each can be switched off.

    early_gather: a pruning block runs proj and MLP on the kept rows only.
    cls_last: the last block runs queries, proj, MLP and norm for the CLS row only.
    cls_row: scores take their attention row from one extra product, not from the whole matrix.
    """

    early_gather: bool = True
    cls_last: bool = True
    cls_row: bool = True

    def cls_attention(self, attended: Attended) -> Tensor:
        """Return the CLS row of the attention, [B, H, T], the short or the published way."""
        return attended.cls_attention() if self.cls_row else attended.full_attention()[:, :, 0]


PUBLISHED = Shortcuts(early_gather=False, cls_last=False, cls_row=False)

# Scores the patch tokens [B, N] of a block from its attended state and its CLS attention [B, H, T].
Score = Callable[[Attended, Tensor], Tensor]


class StagedViT(nn.Module):
    """A timm ViT with steps in some blocks; returns its normalised CLS token, [B, D].

    steps: block number (from 1) -> what that block does; no steps make the plain ViT. The last
    block has none, as after it only the CLS token is read.
    """

    def __init__(self, vit: ViT, steps: Mapping[int, Complete], shortcuts: Shortcuts) -> None:
        super().__init__()
        self.vit = vit
        self.steps = dict(steps)
        self.shortcuts = shortcuts

    def forward(self, images: Tensor) -> Tensor:
        """Return the embedding [B, D] of normalised images [B, 3, S, S]."""
        return self.encode(embed_tokens(self.vit, images))

    def encode(self, x: Tensor) -> Tensor:
        """Run the blocks on embedded tokens x [B, T, D] and return the embedding [B, D]."""
        *body, last = self.vit.blocks
        for number, block in enumerate(body, start=1):
            x = blocks.run(block, x, self.steps.get(number, blocks.complete))
        x = blocks.run_cls_only(last, x) if self.shortcuts.cls_last else blocks.run(last, x)
        embedding: Tensor = self.vit.norm(x)[:, 0]
        return embedding


def keep_best(keep: int, score: Score, prefix: int, shortcuts: Shortcuts) -> Complete:
    """Return the step that keeps the `keep` best patch tokens and the first `prefix` tokens.

    As published the whole block runs first and rows are dropped after it. Taking them before proj
    and MLP gives the same rows, since both work row by row.
    """

    def step(block: Block, attended: Attended) -> Tensor:
        scores = score(attended, shortcuts.cls_attention(attended))
        rows = scores.topk(keep, dim=1, sorted=False).indices
        if not shortcuts.early_gather:
            return blocks.take_rows(blocks.complete(block, attended), rows, prefix)
        x = blocks.take_rows(attended.x, rows, prefix)
        out = blocks.take_rows(attended.out, rows, prefix)
        return blocks.feed_forward(block, blocks.merge(block, x, out))

    return step
