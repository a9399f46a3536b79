"""Where rows come from: which patches each stands for, or how attention has mixed them (rollout).

Tokens carry an origin only while somebody traces a network (`tracing`); steps then do to it what
they do to rows. Nothing of it is in training or in a graph.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fgdeploy.models.backbone.blocks import Attended

# A linear function of rows [B, T, D], any D: the rows that a step makes of them, [B, T', D].
Mix = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Origin:
    """What T rows are made of, as shares of the N patches that entered the first block.

    rows: [B, T, N], at least 0. Not rolled: what part of each patch a row stands for, so that the
    column of a patch sums to 1, or to 0 once it was dropped; rows that are no patches stand for
    none. rolled: how much of each patch has come into a row by attention and merging, a row's sum
    at most 1. cache, aside: the same of the rows in `Tokens.cache` and `Tokens.aside`. looks: how
    many blocks' attention a rolled one holds.
    """

    rows: Tensor
    rolled: bool = False
    cache: tuple[Tensor, ...] = ()
    aside: tuple[Tensor, ...] = ()
    looks: int = 0

    @classmethod
    def start(cls, like: Tensor, prefix: int, suffix: int, rolled: bool = False) -> Origin:
        """Return the origin of embedded rows `like` [B, T, D]: each patch is itself."""
        patches = like.shape[1] - prefix - suffix
        rows = like.new_zeros(like.shape[0], like.shape[1], patches)
        rows[:, prefix : prefix + patches] = torch.eye(patches).to(like)
        return cls(rows, rolled)

    def through(self, mix: Mix, size: Tensor | None = None) -> Origin:
        """Return the origin of the rows that `mix` makes of these.

        size: [B, T'], patches that each new row stands for, where `mix` takes means by size.
        """
        batch, count, _ = self.rows.shape
        shares = mix(torch.eye(count).to(self.rows).expand(batch, -1, -1))
        if size is not None and not self.rolled:
            shares = shares * size.unsqueeze(2)
        total = shares.sum(dim=2 if self.rolled else 1, keepdim=True)
        shares = shares / torch.where(total > 0, total, 1.0)
        return dataclasses.replace(self, rows=shares @ self.rows)

    def attending(self, attended: Attended) -> Origin:
        """Let a block's attention mix the rows, if rolled: half of it and half of themselves.

        Abnar and Zuidema, arXiv 2005.00928, Eq. 1, with the mean over heads.
        """
        if not self.rolled:
            return self
        mixed = attended.full_attention().mean(dim=1) @ self.rows
        return dataclasses.replace(self, rows=(self.rows + mixed) / 2, looks=self.looks + 1)

    def followed_by(self, count: int) -> Origin:
        """Return the origin with `count` more rows behind, of no patch."""
        batch, _, patches = self.rows.shape
        return self._with(self.rows.new_zeros(batch, count, patches))

    def recalling(self) -> Origin:
        """Return the origin with what is in the cache behind, and the cache empty."""
        return dataclasses.replace(self._with(*self.cache), cache=())

    def rejoining(self) -> Origin:
        """Return the origin with what was put aside behind, and nothing aside."""
        return dataclasses.replace(self._with(*self.aside), aside=())

    def _with(self, *more: Tensor) -> Origin:
        return dataclasses.replace(self, rows=torch.cat([self.rows, *more], dim=1))

    def caching(self, rows: tuple[Tensor, ...]) -> Origin:
        """Return the origin with more in `cache`: copies of what goes on beside them.

        They are no patches themselves, so they count where it is rolled alone.
        """
        kept = tuple(row if self.rolled else torch.zeros_like(row) for row in rows)
        return dataclasses.replace(self, cache=(*self.cache, *kept))

    def aside_too(self, rows: Tensor) -> Origin:
        """Return the origin with more in `aside`: rows that left and may come back."""
        return dataclasses.replace(self, aside=(*self.aside, rows))
