"""Keep the tokens that score best: a pruning block (EET; EViT's and Top-K's frame)."""

from __future__ import annotations

from fgdeploy.models.backbone import blocks
from fgdeploy.models.backbone.blocks import Block
from fgdeploy.models.reduce.scores import Score, Select
from fgdeploy.models.simplify import Simplification
from fgdeploy.models.tokens import Tokens
from fgdeploy.models.walk import Step

EARLY_GATHER = Simplification(
    "early-gather",
    "proj and MLP work row by row, so rows may be taken before them",
    "proj and MLP of the tokens that a pruning block drops",
)

# What decides which tokens stay, in the names of graph nodes.
PINS = ("steps.*.select/*",)


class KeepBest(Step):
    """Keep the `keep` patches of the best scores and all rows that are no patches.

    As published the whole block runs first and rows are dropped after it; taking them before proj
    and MLP gives the same rows.
    """

    simplifications = (EARLY_GATHER,)

    def __init__(self, keep: int, score: Score) -> None:
        super().__init__()
        self.select = Select(keep, score)

    def forward(self, block: Block, tokens: Tokens) -> Tokens:
        """Run the block and return the tokens that stay."""
        attended = blocks.attend(block, tokens.x, tokens.bias(), tokens.places)
        tokens = tokens.seeing(attended)
        prefix, suffix = tokens.prefix, tokens.suffix
        rows = self.select(attended, prefix, suffix)
        if self.acts(EARLY_GATHER):
            x = blocks.take_rows(attended.x, rows, prefix, suffix)
            out = blocks.take_rows(attended.out, rows, prefix, suffix)
            x = blocks.feed_forward(block, blocks.merge(block, x, out))
        else:
            x = blocks.take_rows(blocks.complete(block, attended), rows, prefix, suffix)
        origin = tokens.traced(lambda part: blocks.take_rows(part, rows, prefix, suffix))
        places = tokens.places_of(rows, prefix, suffix)
        return tokens.having(x, origin=origin, places=places)
