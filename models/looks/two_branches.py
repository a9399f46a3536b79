"""A ViT that looks at the image and at the part of it that its own attention points at (AFTrans).

Both looks run through the same blocks; the second has a CLS token and positions of its own. In
training both give an embedding; deployed, the first one alone decides, or the mean of both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from fgdeploy.models.backbone import vit as backbones
from fgdeploy.models.backbone.embedding import Normalisation
from fgdeploy.models.backbone.vit import ViT
from fgdeploy.models.encoder import Encoder
from fgdeploy.models.heads.base import Features
from fgdeploy.models.looks.component import Around, Largest, largest_parts
from fgdeploy.models.looks.crop import Crop
from fgdeploy.models.looks.local_branch import LocalEmbedding, LocalShares
from fgdeploy.models.looks.sacm import SACM, CLSReader, Fused
from fgdeploy.models.walk import Observer

_LOCAL = "local."


@dataclass(frozen=True)
class LocalLook:
    """size: the crop's sides in pixels. deployed: it decides in deployed networks too.

    rounds: of the search for connected patches there (`component.Largest`). reweight: the local
    patches are multiplied with the gated attention, which is how the gates learn.
    """

    size: int
    deployed: bool
    rounds: int
    reweight: bool


class TwoBranches(Encoder):
    """The global and the local branch; embedding [B, D] of the first, or the mean of both.

    Training adds the local branch's embedding as `further`; deployed with both, `box` [B, 4] (y0,
    x0, y1, x1 in pixels) is among the extras. On request (`explains`) there are `box`, `attention`
    [B, rows, columns] and `component`, of the same shape, 1 where a patch is in the part.
    """

    def __init__(self, vit: ViT, norm: Normalisation, sacm: SACM, look: LocalLook) -> None:
        super().__init__(vit, norm)
        shape = backbones.geometry(vit)
        stride = shape.stride or shape.patch_size
        self.sacm, self.look, self.grid = sacm, look, shape.grid
        self.largest = Largest(shape.grid, look.rounds)
        self.around = Around(shape.grid, stride, shape.patch_size)
        self.crop = Crop(int(vit.patch_embed.img_size[0]), look.size)
        self.local = LocalEmbedding(vit, norm, look.size)
        grids = (shape.grid, self.local.grid)
        self.shares = LocalShares(*grids, look.size, vit) if look.reweight else None

    def forward(self, pixels: Tensor, observers: Sequence[Observer] = ()) -> Features:
        """Return the features of normalised pixels [B, 3, S, S]."""
        if not (self.training or self.look.deployed or self.explains):
            return super().forward(pixels, observers)
        reader = CLSReader(self.sacm)
        first = super().forward(pixels, [*observers, reader])
        fused = self.sacm(reader)
        component, box = self._part(fused.mask)
        extras = {"box": box}
        if self.explains:
            extras["attention"] = fused.attention.view(-1, *self.grid)
            extras["component"] = component.view(-1, *self.grid)
        if not (self.training or self.look.deployed):
            return dataclasses.replace(first, extras=extras)
        second = self._second(pixels, box, fused)
        if self.training:
            return dataclasses.replace(first, further=(second,))
        return Features((first.embedding + second) / 2, extras)

    def _part(self, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the largest part of the mask [B, N], and the box around it [B, 4]."""
        in_graph = self.look.deployed and not self.training
        component = self.largest(mask) if in_graph else largest_parts(mask, self.grid)
        return component, self.around(component)

    def _second(self, pixels: Tensor, box: Tensor, fused: Fused) -> Tensor:
        """Return the embedding [B, D] of the local branch."""
        shares = None
        if self.shares is not None:
            shares = self.shares((fused.gates.unsqueeze(2) * fused.roots).sum(dim=1), box)
        tokens = self.local(self.crop(pixels, box), shares)
        embedding: Tensor = self.vit.norm(self.walk(self.vit.blocks, tokens).x)[:, 0]
        return embedding

    def begin(self) -> None:
        """Start the local CLS token and positions from the global ones."""
        self.local.begin()

    def fitted(self, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Resize the local positions, as the global ones are."""
        name = self._name(f"{_LOCAL}pos_embed")
        if name not in given:
            return dict(given)
        return {**given, name: self.local.fitted(given[name])}

    def frozen(self) -> set[str]:
        """Leave the gates as they are where no gradient comes to them."""
        own = self.own()
        return set() if self.look.reweight else {one for one in own if one.startswith("sacm.")}

    def deciding(self) -> dict[str, Tensor]:
        """Leave out what the deployed network does not run: without the second look, its own."""
        state = self.state()
        left = frozenset() if self.look.deployed else self.own()
        return {name: value for name, value in state.items() if name not in left}

    def _name(self, key: str) -> str:
        """Name the local branch's own tensors `local_cls_token` and `local_pos_embed`."""
        name = super()._name(key)
        return f"local_{name.removeprefix(_LOCAL)}" if name.startswith(_LOCAL) else name
