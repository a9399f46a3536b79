"""The way of the tokens through the blocks: the frame of all methods.

A method is a set of steps. A step owns its whole block: it may change tokens before it, inside
attention or after it, from the pieces in `backbone.blocks`. Observers see the tokens after each
block and change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Protocol

from torch import Tensor, nn

from fgdeploy.models.backbone import blocks
from fgdeploy.models.backbone.blocks import Block
from fgdeploy.models.simplify import Simplifiable, Simplification
from fgdeploy.models.tokens import Tokens

CLS_LAST = Simplification(
    "cls-last",
    "after the last block only the CLS row is read, and all but attention's keys works row by row",
    "queries, proj, MLP and norm of every other row of the last block",
)


class Step(Simplifiable):
    """What one block does with the tokens: (block, Tokens) -> Tokens. This one does what timm does.

    A step's own parameters are the network's: trained, saved, loaded and fingerprinted with it.
    carries_places: it passes on which patches its rows are; False where rows become mixtures.
    """

    carries_places: ClassVar[bool] = True

    def forward(self, block: Block, tokens: Tokens) -> Tokens:
        """Run the block on all rows."""
        attended = blocks.attend(block, tokens.x, tokens.bias(), tokens.places)
        return tokens.seeing(attended).having(blocks.complete(block, attended))


class Observer(Protocol):
    """Is told the tokens after each block, numbered from 1.

    wants_attention: the last block must compute `attended` for all rows, though only CLS is read.
    """

    wants_attention: bool

    def __call__(self, number: int, tokens: Tokens) -> None: ...


class CLSRows:
    """An observer that keeps the CLS row, not normalised, after some blocks."""

    wants_attention = False

    def __init__(self, numbers: Sequence[int]) -> None:
        self._numbers = frozenset(numbers)
        self.rows: list[Tensor] = []

    def __call__(self, number: int, tokens: Tokens) -> None:
        """Keep the row [B, D] if this block is one of those asked for."""
        if number in self._numbers:
            self.rows.append(tokens.x[:, 0])


class Walk(nn.Module):
    """The blocks' steps in order; blocks without a step of their own do what timm does.

    steps: block number (from 1) -> step. depth: the backbone's blocks.
    """

    def __init__(self, depth: int, steps: Mapping[int, Step]) -> None:
        super().__init__()
        if unknown := sorted(set(steps) - set(range(1, depth + 1))):
            raise ValueError(f"a step for block {unknown[0]}, but there are blocks 1 to {depth}")
        every = {number: steps.get(number) or Step() for number in range(1, depth)}
        every[depth] = steps.get(depth) or LastStep()
        self.steps = nn.ModuleDict({str(number): step for number, step in every.items()})

    def forward(
        self,
        through: Sequence[Block],
        tokens: Tokens,
        observers: Sequence[Observer] = (),
        all_rows: bool = False,
    ) -> Tokens:
        """Return the tokens behind the last block; only their CLS row unless `all_rows`."""
        attention = any(observer.wants_attention for observer in observers)
        for number, (block, step) in enumerate(
            zip(through, self.steps.values(), strict=True), start=1
        ):
            run: Callable[..., Tokens] = step
            if isinstance(step, LastStep):
                tokens = run(block, tokens, all_rows, attention)
            else:
                tokens = run(block, tokens)
            for observer in observers:
                observer(number, tokens)
        return tokens


class LastStep(Step):
    """The last block: exact for the CLS row, which is all that is read behind it."""

    simplifications = (CLS_LAST,)

    def forward(
        self, block: Block, tokens: Tokens, all_rows: bool = False, attention: bool = False
    ) -> Tokens:
        """Run the block; on the CLS row alone where that is enough."""
        if all_rows or not self.acts(CLS_LAST):
            return super().forward(block, tokens)
        return cls_only(block, tokens, attention)


def cls_only(block: Block, tokens: Tokens, attention: bool) -> Tokens:
    """Run a block for the CLS row alone. attention: compute `attended` for all rows."""
    if attention:
        attended = blocks.attend(block, tokens.x, tokens.bias(), tokens.places)
        merged = blocks.merge(block, attended.x[:, :1], attended.out[:, :1])
        return tokens.seeing(attended).cls_alone(blocks.feed_forward(block, merged))
    row = blocks.run_cls_only(block, tokens.x, tokens.bias(), tokens.places)
    return tokens.having(tokens.x, attended=None).cls_alone(row)
