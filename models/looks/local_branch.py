"""What a second look at a smaller image has of its own: a CLS token and positions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fgdeploy.models.backbone.embedding import (
    FOLD_NORMALISATION,
    Normalisation,
    folded_convolution,
)
from fgdeploy.models.backbone.vit import ViT
from fgdeploy.models.simplify import Simplifiable
from fgdeploy.models.tokens import Tokens
from fgdeploy.models.weights.checkpoint import resize_grid


class LocalEmbedding(Simplifiable):
    """Pixels [B, 3, s, s] to tokens, through the backbone's patch convolution.

    size: s in pixels. CLS and positions are its own; registers and the like are the backbone's.
    """

    simplifications = (FOLD_NORMALISATION,)

    def __init__(self, vit: ViT, norm: Normalisation, size: int) -> None:
        super().__init__()
        self.vit, self.norm = vit, norm
        patch, stride = int(vit.patch_embed.patch_size[0]), int(vit.patch_embed.proj.stride[0])
        side = (size - patch) // stride + 1
        self.grid = (side, side)
        self.fixed = 0 if vit.no_embed_class else int(vit.num_prefix_tokens)
        self.cls_token = nn.Parameter(torch.zeros_like(vit.cls_token))
        rows = self.fixed + side * side
        self.pos_embed = nn.Parameter(vit.pos_embed.new_zeros(1, rows, int(vit.embed_dim)))

    def begin(self) -> None:
        """Start as the backbone's CLS token and positions, these resized bilinearly."""
        with torch.no_grad():
            self.cls_token.copy_(self.vit.cls_token)
            self.pos_embed.copy_(self.fitted(self.vit.pos_embed))

    def fitted(self, positions: Tensor) -> Tensor:
        """Return positions [1, n, D] resized to the grid; as they are where they are no square."""
        return resize_grid(positions, self.fixed, self.grid)

    def forward(self, pixels: Tensor, shares: Tensor | None = None) -> Tokens:
        """Return the embedded tokens of normalised pixels.

        shares: [B, n], what each patch is multiplied with before its position is added.
        """
        vit = self.vit
        patches = _patches(vit.patch_embed.proj(pixels), vit.patch_embed.norm, shares)
        before, position = self.fixed_rows()
        rows = [before.expand(patches.shape[0], -1, -1), patches + position]
        return Tokens(vit.norm_pre(torch.cat(rows, dim=1)), int(before.shape[1]))

    def fixed_rows(self) -> tuple[Tensor, Tensor]:
        """Return CLS and registers with their positions [1, p, D], and the patches' [1, n, D]."""
        others = (getattr(self.vit, name, None) for name in ("dist_token", "reg_token"))
        before = torch.cat([self.cls_token, *(one for one in others if one is not None)], dim=1)
        if self.fixed:
            before = before + self.pos_embed[:, : self.fixed]
        return before, self.pos_embed[:, self.fixed :]

    def folded(self) -> nn.Module:
        """Return the embedding of raw pixels."""
        return FoldedLocalEmbedding(self) if self.acts(FOLD_NORMALISATION) else self


class FoldedLocalEmbedding(nn.Module):
    """`LocalEmbedding` of pixels in 0..255: mean and std in the patch weights, fixed rows."""

    before: Tensor
    position: Tensor

    def __init__(self, plain: LocalEmbedding) -> None:
        super().__init__()
        self.conv = folded_convolution(plain.vit.patch_embed.proj, plain.norm)
        with torch.no_grad():
            for name, rows in zip(("before", "position"), plain.fixed_rows(), strict=True):
                self.register_buffer(name, rows.clone(), persistent=False)
        self.norm = plain.vit.patch_embed.norm
        self.norm_pre = plain.vit.norm_pre

    def forward(self, pixels: Tensor, shares: Tensor | None = None) -> Tokens:
        """Return the embedded tokens."""
        patches = _patches(self.conv(pixels), self.norm, shares)
        rows = [self.before.expand(patches.shape[0], -1, -1), patches + self.position]
        return Tokens(self.norm_pre(torch.cat(rows, dim=1)), int(self.before.shape[1]))


def _patches(convolved: Tensor, norm: nn.Module, shares: Tensor | None) -> Tensor:
    """Return patches [B, n, D] of what the convolution gave, [B, D, rows, columns]."""
    patches: Tensor = norm(convolved.flatten(2).transpose(1, 2))
    return patches if shares is None else patches * shares.unsqueeze(2)


class LocalShares(nn.Module):
    """A map over the image's patches, seen at the patches of a crop: [B, n], of mean 1.

    grid: of the image's patches; size: of the crop in pixels. Bilinear between the middles of
    patches, which lie `stride` pixels apart.
    """

    def __init__(self, grid: tuple[int, int], local: tuple[int, int], size: int, vit: ViT) -> None:
        super().__init__()
        self.grid, self.local, self.size = grid, local, size
        self.stride = float(vit.patch_embed.proj.stride[0])
        self.middle = (float(vit.patch_embed.patch_size[0]) - 1) / 2

    def forward(self, values: Tensor, box: Tensor) -> Tensor:
        """Return the shares of values [B, N] in boxes y0, x0, y1, x1 [B, 4] in pixels."""
        top, left, bottom, right = box.chunk(4, dim=1)
        down = self._weights(top, bottom, self.grid[0], self.local[0])
        across = self._weights(left, right, self.grid[1], self.local[1])
        seen = down @ values.view(-1, *self.grid) @ across.transpose(1, 2)
        shares = seen.flatten(1)
        return shares / shares.mean(dim=1, keepdim=True)

    def _weights(self, low: Tensor, high: Tensor, cells: int, count: int) -> Tensor:
        """Return how much of each cell's value a local patch takes, [B, count, cells]."""
        number = torch.arange(count, device=low.device).to(low.dtype)
        pixel = low + (number * self.stride + self.middle) * (high - low - 1) / (self.size - 1)
        at = ((pixel - self.middle) / self.stride).clamp(0, cells - 1).unsqueeze(2)
        return (1 - (at - torch.arange(cells, device=low.device).to(low.dtype)).abs()).relu()
