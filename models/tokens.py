"""What travels from block to block: the tokens, and what a method must know of them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fgdeploy.models.backbone import rotary
from fgdeploy.models.backbone.blocks import Attended
from fgdeploy.models.origins import Mix, Origin

# Added to the scores of a row that is no key. Finite, as an infinity would make NaN of a row
# without any key, and within half precision.
_NO_KEY = -1e4


@dataclass(frozen=True)
class Tokens:
    """Tokens between two blocks.

    x: [B, T, D]. prefix: rows at the start that are no patches (CLS, registers); suffix: rows at
    the end that are none. size: [B, T], how many patches a row stands for, None for one each. mask:
    [B, T], True where a row counts, None where all do. cache, aside: rows [B, n, D] kept by a step
    for a later one, CLCA's and a reduction's own. attended: what the block that made x attended,
    for observers; None where its step does not say. policy: [B, T], which rows a predictor counts
    (DynamicViT) and which are keys in training, 1 or 0 each, None for all of them. penalties:
    scalars that steps add to the loss in training; readouts: features [B, D] of the image from
    within, for heads that exist in training alone. origin: where the rows come from, while
    somebody traces them (`tracing`), else None. places: which patch each row is, from 1, and 0 for
    a row without a position, [T] where it is the same in every image, else [B, T]; None where the
    backbone's positions are not rotary; places_aside: of the rows in `aside`, [B, n] each.
    """

    x: Tensor
    prefix: int = 1
    suffix: int = 0
    size: Tensor | None = None
    mask: Tensor | None = None
    cache: tuple[Tensor, ...] = ()
    aside: tuple[Tensor, ...] = ()
    attended: Attended | None = None
    policy: Tensor | None = None
    penalties: tuple[Tensor, ...] = ()
    readouts: tuple[Tensor, ...] = ()
    origin: Origin | None = None
    places: Tensor | None = None
    places_aside: tuple[Tensor, ...] = ()

    @property
    def count(self) -> int:
        """Return T."""
        return int(self.x.shape[1])

    @property
    def patches(self) -> int:
        """Return how many rows lie between prefix and suffix."""
        return self.count - self.prefix - self.suffix

    def bias(self) -> Tensor | None:
        """Return what attention adds before its softmax, [B, 1, 1, T]: log(size), no masked key.

        A row that stands for n patches is n keys (ToMe, arXiv 2210.09461, Eq. 1).
        """
        total = None if self.size is None else self.size.log()
        if self.mask is not None:
            hidden = torch.where(self.mask, 0.0, _NO_KEY).to(self.x.dtype)
            total = hidden if total is None else total + hidden
        return None if total is None else total[:, None, None, :]

    @property
    def cls_place(self) -> Tensor | None:
        """Return the place of the first row alone, [1] or [B, 1]."""
        return None if self.places is None else self.places[..., :1]

    def places_of(self, rows: Tensor, prefix: int, suffix: int = 0, more: int = 0) -> Tensor | None:
        """Return the places of the rows that `blocks.take_rows` takes, None without any.

        more: rows without a position behind them.
        """
        if self.places is None:
            return None
        found = rotary.take_places(self.places, rows, prefix, suffix)
        return rotary.unplaced_behind(found, more) if more else found

    def seeing(self, attended: Attended) -> Tokens:
        """Return the tokens with what their block attended, for observers and a rollout."""
        origin = None if self.origin is None else self.origin.attending(attended)
        return dataclasses.replace(self, attended=attended, origin=origin)

    def traced(self, mix: Mix, size: Tensor | None = None) -> Origin | None:
        """Return the origin of the rows that a step makes of these, None if nobody traces them.

        mix: what it does to rows [B, T, D] of any width; size: of the new rows, where it takes
        means by size.
        """
        return None if self.origin is None else self.origin.through(mix, size)

    def followed_by(
        self,
        rows: Tensor,
        policy: float = 0.0,
        origin: Origin | None = None,
        places: Tensor | None = None,
    ) -> Tokens:
        """Return the tokens with more rows [B, n, D] behind them that are no patches.

        Each stands for one patch and counts as a key; policy: of each, where there is one; origin:
        of all rows, where those behind have one (by default they are of no patch); places: [B, n],
        of those behind (by default they have none).
        """

        def longer(values: Tensor | None, fill: float) -> Tensor | None:
            if values is None:
                return None
            return torch.cat([values, values.new_full(rows.shape[:2], fill)], dim=1)

        return self.having(
            torch.cat([self.x, rows], dim=1),
            suffix=self.suffix + int(rows.shape[1]),
            size=longer(self.size, 1.0),
            mask=longer(self.mask, True),
            policy=longer(self.policy, policy),
            origin=origin or (self.origin and self.origin.followed_by(int(rows.shape[1]))),
            places=self._places_with(places, int(rows.shape[1])),
        )

    def _places_with(self, more: Tensor | None, count: int) -> Tensor | None:
        if self.places is None:
            return None
        if more is None:
            return rotary.unplaced_behind(self.places, count)
        return torch.cat([self.places.expand(more.shape[0], -1), more], dim=1)

    def cls_alone(self, row: Tensor) -> Tokens:
        """Return the tokens with the CLS row alone, as [B, 1, D]."""
        origin = self.traced(lambda rows: rows[:, :1])
        changed = {"size": None, "mask": None, "origin": origin, "places": self.cls_place}
        return self.having(row, prefix=1, suffix=0, **changed)

    def having(self, x: Tensor, **changes: Any) -> Tokens:
        """Return the tokens with other rows x; what else changes is given by name."""
        return dataclasses.replace(self, x=x, **changes)
