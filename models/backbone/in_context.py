"""In-context adapters: low-rank products beside the attention projection (DVA).

    q = W_q y + b_q + U_q A_q c;   k and v likewise, c = y, the block's norm1, or a norm of its own

'Fine-grained Image Retrieval via Dual-Vision Adaptation': two products without bias or activation,
added to the rows of queries and keys. With a norm of their own, norm1 keeps its statistics alone
and both affine maps act here, so that one projection can take both in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fgdeploy.core.errors import UsageError
from fgdeploy.models.simplify import Simplifiable, Simplification

Cast = Callable[[Tensor], Tensor]
TARGETS = "qkv"  # in the order of the projection's rows

FOLD_ADAPTERS = Simplification(
    "fold-adapters",
    "an adapter is linear in the normalised row that the projection reads, so both are one product",
    "two products for each adapter of each block",
)


class Adapter(nn.Module):
    """up(down(c)): rows c [B, T, D] through `rank` channels, no bias, no activation.

    It starts at nothing: `up` is zero, `down` normal with a deviation of 0.02.
    """

    def __init__(self, width: int, rank: int, own_norm: bool) -> None:
        super().__init__()
        self.down = nn.Linear(width, rank, bias=False)
        self.up = nn.Linear(rank, width, bias=False)
        self.norm = Affine(width) if own_norm else None
        nn.init.normal_(self.down.weight, std=0.02)
        nn.init.zeros_(self.up.weight)

    def forward(self, y: Tensor) -> Tensor:
        """Return what is added for rows y [B, T, D], that a norm without affine map has seen
        where the adapter has its own."""
        found: Tensor = self.up(self.down(y if self.norm is None else self.norm(y)))
        return found

    def product(self, exact: Cast) -> Tensor:
        """Return U A, [D, D]; exact: turns weights into the type to multiply in."""
        return exact(self.up.weight) @ exact(self.down.weight)


class Affine(nn.Module):
    """What a LayerNorm does behind its statistics: x * weight + bias, row by row."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """Return x * weight + bias, [..., D]."""
        return x * self.weight + self.bias


class AdaptedProjection(Simplifiable):
    """A block's q|k|v projection with adapters on some of the three.

    plain: the projection as it was. norm1: the affine map of the block's norm, where adapters have
    norms of their own and the block's keeps its statistics alone.
    """

    simplifications = (FOLD_ADAPTERS,)

    def __init__(
        self, plain: nn.Linear, targets: str, rank: int, norm1: Affine | None = None
    ) -> None:
        super().__init__()
        self.plain, self.norm1 = plain, norm1
        self._targets = targets
        for target in targets:
            adapter = Adapter(plain.in_features, rank, norm1 is not None)
            self.add_module(f"ic_{target}", adapter.to(plain.weight))

    def adapters(self) -> dict[str, Adapter]:
        """Return the adapters by the letter of what they are added to."""
        return {target: getattr(self, f"ic_{target}") for target in self._targets}

    def forward(self, y: Tensor) -> Tensor:
        """Return q, k and v of rows y [B, T, D] side by side, [B, T, 3 D]."""
        rows = self.plain(y if self.norm1 is None else self.norm1(y))
        parts = list(rows.chunk(3, dim=-1))
        for target, adapter in self.adapters().items():
            place = TARGETS.index(target)
            parts[place] = parts[place] + adapter(y)
        return torch.cat(parts, dim=-1)

    @property
    def weight(self) -> Tensor:
        """Return the one matrix that does all of it, [3 D, D]."""
        return self._matrix(_as_it_is)

    @property
    def bias(self) -> Tensor | None:
        """Return the bias that goes with `weight`, [3 D], None where there is none."""
        return self._offset(_as_it_is)

    def _matrix(self, exact: Cast) -> Tensor:
        given = exact(self.plain.weight)
        whole = given if self.norm1 is None else given * exact(self.norm1.weight)
        added = {}
        for target, one in self.adapters().items():
            product = one.product(exact)
            added[target] = product if one.norm is None else product * exact(one.norm.weight)
        return whole + _stacked(added, torch.zeros_like(given[: len(given) // 3]))

    def _offset(self, exact: Cast) -> Tensor | None:
        bias: Tensor | None = self.plain.bias
        given = None if bias is None else exact(bias)
        if self.norm1 is None:
            return given
        whole = F.linear(exact(self.norm1.bias), exact(self.plain.weight), given)
        added = {
            target: one.product(exact) @ exact(one.norm.bias)
            for target, one in self.adapters().items()
            if one.norm is not None
        }
        return whole + _stacked(added, torch.zeros_like(whole[: len(whole) // 3]))

    def folded(self) -> nn.Module:
        """Return one plain projection, merged in float64."""
        if not self.acts(FOLD_ADAPTERS):
            return self
        with torch.no_grad():
            weight, bias = self._matrix(Tensor.double), self._offset(Tensor.double)
            linear = nn.Linear(weight.shape[1], weight.shape[0], bias is not None)
            linear.to(self.plain.weight).requires_grad_(False)
            linear.weight.copy_(weight)
            if bias is not None:
                linear.bias.copy_(bias)
        return linear


def _as_it_is(value: Tensor) -> Tensor:
    return value


def _stacked(parts: dict[str, Tensor], nothing: Tensor) -> Tensor:
    return torch.cat([parts.get(target, nothing) for target in TARGETS])


def adapt(vit: Any, targets: str, rank: int, own_norm: bool) -> None:
    """Give every block of a ViT adapters, which start at nothing. targets: some letters of `qkv`.

    own_norm: each adapter has an affine map of its own behind the statistics of norm1. Raises
    UsageError where the backbone has no place for them.
    """
    for block in vit.blocks:
        if block.attn.qkv is None:
            raise UsageError(
                "the backbone makes queries, keys and values by matrices that lie apart, where "
                "adapters have no place; choose another --backbone, such as vit_small_patch16_224"
            )
        norm1 = None
        if own_norm:
            norm1 = _split_norm(block)
        block.attn.qkv = AdaptedProjection(block.attn.qkv, targets, rank, norm1)


def _split_norm(block: Any) -> Affine:
    """Leave norm1 its statistics alone and return its affine map."""
    norm = block.norm1
    behind = getattr(block, "post_norm", False)
    if behind or not isinstance(norm, nn.LayerNorm) or not norm.elementwise_affine:
        raise UsageError(
            f"--set own_norm=true: the backbone's norm1 is no LayerNorm before attention but "
            f"{type(norm).__name__}; leave it out"
        )
    affine = Affine(norm.normalized_shape[0]).to(norm.weight)
    with torch.no_grad():
        affine.weight.copy_(norm.weight)
        affine.bias.copy_(norm.bias)
    bare = nn.LayerNorm(norm.normalized_shape, norm.eps, elementwise_affine=False)
    block.norm1 = bare.to(norm.weight)
    return affine
