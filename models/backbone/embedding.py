"""From frames to pixels and from pixels to tokens, as published and with everything folded."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fgdeploy.models.backbone import rotary
from fgdeploy.models.backbone.eva_blocks import is_eva
from fgdeploy.models.backbone.vit import ViT
from fgdeploy.models.simplify import Simplifiable, Simplification
from fgdeploy.models.tokens import Tokens

FOLD_NORMALISATION = Simplification(
    "fold-normalisation",
    "the patch convolution is linear and unpadded; fixed tokens depend on no image",
    "two passes over the pixels and the additions to CLS and its like",
)


@dataclass(frozen=True)
class Normalisation:
    """Mean and std per RGB channel, for pixels in 0..1."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def normalisation(vit: ViT) -> Normalisation:
    """Return the mean and std that timm records for the backbone's weights."""
    config = vit.pretrained_cfg
    mean, std = config["mean"], config["std"]
    return Normalisation((mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))


class Pixels(Simplifiable):
    """Frames, uint8 [B, 3, S, S], to the pixels that the network takes: normalised floats."""

    simplifications = (FOLD_NORMALISATION,)
    mean: Tensor
    std: Tensor

    def __init__(self, norm: Normalisation) -> None:
        super().__init__()
        for name, values in (("mean", norm.mean), ("std", norm.std)):
            held = torch.tensor(values).view(1, 3, 1, 1) * 255
            self.register_buffer(name, held, persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        """Return (frames - mean) / std, [B, 3, S, S]."""
        return (frames.to(self.mean.dtype) - self.mean) / self.std

    def folded(self) -> nn.Module:
        """Return the module that leaves mean and std to the patch embedding."""
        if not self.acts(FOLD_NORMALISATION):
            return self
        return RawPixels(self.mean)


class RawPixels(nn.Module):
    """Frames to floats in 0..255. The cast comes first, as TensorRT transposes no uint8."""

    like: Tensor

    def __init__(self, like: Tensor) -> None:
        super().__init__()
        self.register_buffer("like", like, persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        """Return the frames in the type of the weights."""
        return frames.to(self.like.dtype)


class Embedding(Simplifiable):
    """Pixels [B, 3, S, S] to tokens: patches with positions, CLS and registers before them.

    suffix: learned rows [1, n, D] behind the patches, their positions in them, or None.
    """

    simplifications = (FOLD_NORMALISATION,)

    def __init__(self, vit: ViT, norm: Normalisation, suffix: nn.Parameter | None = None) -> None:
        super().__init__()
        self.vit = vit
        self.norm = norm
        self.suffix = suffix

    def forward(self, pixels: Tensor, cls: Tensor | None = None) -> Tokens:
        """Return the embedded tokens of normalised pixels.

        cls: [1, 1, D], the CLS token in place of the backbone's; its position stays.
        """
        vit = self.vit
        x = _exchanged(_placed(vit, vit.patch_embed(pixels)), vit.cls_token, cls)
        if self.suffix is not None:
            x = torch.cat([x, self.suffix.expand(x.shape[0], -1, -1)], dim=1)
        prefix, suffix = (
            int(vit.num_prefix_tokens),
            0 if self.suffix is None else self.suffix.shape[1],
        )
        return Tokens(
            vit.norm_pre(x), prefix, suffix, places=rotary.places(vit, prefix, suffix, x.device)
        )

    def folded(self) -> nn.Module:
        """Return the embedding of raw pixels."""
        return FoldedEmbedding(self) if self.acts(FOLD_NORMALISATION) else self


def _placed(vit: ViT, patches: Tensor) -> Tensor:
    """Return CLS, registers and patches [B, N, D] with learned positions, where there are some."""
    if not is_eva(vit):
        placed: Tensor = vit.patch_drop(vit._pos_embed(patches))
        return placed
    tokens = (vit.cls_token, vit.reg_token)
    before = [one.expand(patches.shape[0], -1, -1) for one in tokens if one is not None]
    if vit.pos_embed is None:
        x = torch.cat([*before, patches], dim=1)
    elif vit.no_embed_class:
        x = torch.cat([*before, patches + vit.pos_embed], dim=1)
    else:
        x = torch.cat([*before, patches], dim=1) + vit.pos_embed
    dropped: Tensor = vit.pos_drop(x)
    return dropped


def _exchanged(x: Tensor, held: Tensor, cls: Tensor | None) -> Tensor:
    """Return rows x [B, T, D] with another CLS token than `held` in the first."""
    return x if cls is None else torch.cat([x[:, :1] + (cls - held), x[:, 1:]], dim=1)


class FoldedEmbedding(nn.Module):
    """`Embedding` of pixels in 0..255: mean and std in the patch weights, fixed tokens constant."""

    before: Tensor
    position: Tensor
    after: Tensor
    cls: Tensor
    places: Tensor | None

    def __init__(self, plain: Embedding) -> None:
        super().__init__()
        vit = plain.vit
        self.conv = folded_convolution(vit.patch_embed.proj, plain.norm)
        with torch.no_grad():
            width, patches = int(vit.embed_dim), int(vit.patch_embed.num_patches)
            fixed = _placed(vit, torch.zeros(1, patches, width).to(self.conv.weight))
            count = int(vit.num_prefix_tokens)
            rows = fixed[:, :0] if plain.suffix is None else plain.suffix.detach()
        self.register_buffer("before", fixed[:, :count].clone(), persistent=False)
        self.register_buffer("position", fixed[:, count:].clone(), persistent=False)
        self.register_buffer("after", rows.clone(), persistent=False)
        self.register_buffer("cls", vit.cls_token.detach(), persistent=False)
        self.norm = vit.patch_embed.norm
        self.norm_pre = vit.norm_pre
        places = rotary.places(vit, count, rows.shape[1], rows.device)
        self.register_buffer("places", places, persistent=False)

    def forward(self, pixels: Tensor, cls: Tensor | None = None) -> Tokens:
        """Return the embedded tokens; cls: as in `Embedding`."""
        patches = self.norm(self.conv(pixels).flatten(2).transpose(1, 2)) + self.position
        before = _exchanged(self.before, self.cls, cls)
        rows = [before.expand(patches.shape[0], -1, -1), patches]
        if self.after.shape[1]:
            rows.append(self.after.expand(patches.shape[0], -1, -1))
        x = self.norm_pre(torch.cat(rows, dim=1))
        return Tokens(x, self.before.shape[1], self.after.shape[1], places=self.places)


def folded_convolution(conv: nn.Conv2d, norm: Normalisation) -> nn.Conv2d:
    """Return the patch convolution of pixels in 0..255 that equals `conv` of normalised ones."""
    with torch.no_grad():
        weight = conv.weight.double()
        mean = torch.tensor(norm.mean, dtype=torch.float64).view(1, 3, 1, 1).to(weight.device)
        std = torch.tensor(norm.std, dtype=torch.float64).view(1, 3, 1, 1).to(weight.device)
        bias = -(weight * (mean / std)).sum(dim=(1, 2, 3))
        if conv.bias is not None:
            bias = bias + conv.bias.double()
        made = nn.Conv2d(3, conv.out_channels, conv.kernel_size, conv.stride)  # type: ignore[arg-type]
        made.to(conv.weight)
        made.weight.copy_(weight / (255.0 * std))
        assert made.bias is not None
        made.bias.copy_(bias)
    return made
