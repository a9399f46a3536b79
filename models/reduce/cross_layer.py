"""CLCA's cache: what each block knew comes back behind the next reduction (arkel23/CLCA).

After every block the mean of its tokens (GAP) and the last rows of the sequence (the CLR token at
first, later the newest of what came back) are kept aside. After a reduction all that was kept joins
the tokens as ordinary rows, which the next reduction may take or merge. Where a reduction left CLS
alone, GAP is CLS: the authors' code takes the mean of no rows there, and all its logits are NaN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fgdeploy.core.errors import StageError
from fgdeploy.core.text import counted
from fgdeploy.models.backbone.blocks import Block
from fgdeploy.models.tokens import Tokens
from fgdeploy.models.walk import LastStep, Step


@dataclass(frozen=True)
class Carriers:
    """What a block keeps aside: GAP, and the last `clr` rows.

    pool_cls: GAP counts CLS too; pool_clr: GAP counts the CLR tokens until the first reduction.
    """

    gap: bool = True
    clr: int = 1
    pool_cls: bool = False
    pool_clr: bool = False

    @property
    def rows(self) -> int:
        """Return how many rows a block keeps aside."""
        return int(self.gap) + self.clr


class Cached(Step):
    """A block's step, and after it: bring back what was kept (`recovers`), keep more (`keeps`).

    behind: rows at the end of the sequence that GAP does not count.
    """

    def __init__(
        self, inner: Step, carriers: Carriers, recovers: bool, keeps: bool, behind: int
    ) -> None:
        super().__init__()
        self.inner = inner
        self.carriers, self.recovers, self.keeps, self.behind = carriers, recovers, keeps, behind

    def forward(self, block: Block, tokens: Tokens) -> Tokens:
        """Run the block's own step, then see to the cache.

        Raises StageError where fewer rows are left than CLR tokens: the cache takes the last ones.
        """
        tokens = self.inner(block, tokens)
        if self.recovers and tokens.cache:  # at the first block nothing was kept yet
            # The authors' predictor counts these rows in training, and not outside it.
            origin = tokens.origin and tokens.origin.recalling()
            cache = torch.cat(tokens.cache, dim=1)
            tokens = tokens.followed_by(cache, float(self.training), origin)
            tokens = tokens.having(tokens.x, cache=())
        if self.keeps:
            tokens = self._keeping(tokens)
        return tokens

    def _keeping(self, tokens: Tokens) -> Tokens:
        origin = tokens.origin
        if origin is not None:
            origin = origin.caching(self._carried(tokens, origin.rows))
        cache = (*tokens.cache, *self._carried(tokens, tokens.x))
        return tokens.having(tokens.x, cache=cache, origin=origin)

    def _carried(self, tokens: Tokens, x: Tensor) -> tuple[Tensor, ...]:
        """Return what is kept of rows x [B, T, D], the tokens' own or their origin."""
        rows = []
        if self.carriers.gap:
            end = tokens.count - self.behind
            span = slice(0 if self.carriers.pool_cls or end == 1 else 1, end)
            rows.append(_mean(x[:, span], None if tokens.mask is None else tokens.mask[:, span]))
        if self.carriers.clr:
            if tokens.count < self.carriers.clr:
                raise StageError(
                    f"clr={self.carriers.clr}: only {counted(tokens.count, 'row')} left before any "
                    "come back; use fewer CLR tokens, a higher keep_rate or later blocks"
                )
            rows.append(x[:, tokens.count - self.carriers.clr :])
        return tuple(rows)


def _mean(x: Tensor, mask: Tensor | None) -> Tensor:
    """Return the mean row [B, 1, D] of those that count."""
    if mask is None:
        return x.mean(dim=1, keepdim=True)
    weights = mask.to(x.dtype)
    weights = weights / weights.sum(dim=1, keepdim=True)
    return weights.unsqueeze(1) @ x


def cached(
    steps: Mapping[int, Step], reducing: Sequence[int], carriers: Carriers, at_last: bool
) -> dict[int, Step]:
    """Return the steps of all blocks with the cache around them.

    reducing: the blocks that reduce, from 1; there the cache comes back. at_last: also behind the
    last but one.
    """
    depth = max(steps)
    recovery = sorted({*reducing, *([depth - 1] if at_last else [])})
    behind = 0 if carriers.pool_clr else carriers.clr
    found: dict[int, Step] = {}
    kept = 0
    for number, step in sorted(steps.items()):
        recovers, keeps = number in recovery, bool(recovery) and number < recovery[-1]
        if recovers:
            behind, kept = kept * carriers.rows, 0
        kept += keeps
        plain = isinstance(step, LastStep) or not (recovers or keeps)
        found[number] = step if plain else Cached(step, carriers, recovers, keeps, behind)
    return found
