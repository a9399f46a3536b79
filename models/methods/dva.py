"""DVA: a frozen ViT with in-context adapters, which vanish when it is exported.

'Fine-grained Image Retrieval via Dual-Vision Adaptation'; its code is not public. Low-rank adapters
on queries and keys learn from views of objects and backgrounds; the deployed graph is the plain
ViT. An embedding is the CLS row behind the final norm; cosine retrieval divides by its length.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from fgdeploy.core.errors import UsageError
from fgdeploy.models.backbone.embedding import Normalisation
from fgdeploy.models.backbone.in_context import TARGETS, AdaptedProjection, adapt
from fgdeploy.models.backbone.vit import Geometry, ViT
from fgdeploy.models.encoder import Encoder
from fgdeploy.models.methods import dva_files
from fgdeploy.models.methods.base import Method, Recipe
from fgdeploy.models.options import Options

# Of the paper's training, in whole checkpoints of it; no part of the network.
PROXIES = frozenset({"proxies_obj", "proxies_all"})


@dataclass(frozen=True)
class DVAOptions(Options):
    """targets: which of q, k and v have adapters. rank: channels within one.

    own_norm: an adapter has a LayerNorm of its own, not the block's. adapter_eps: of that, where it
    is another than the backbone's: then nothing is exact and it is refused.
    """

    targets: str = "qk"
    rank: int = 16
    own_norm: bool = False
    adapter_eps: float | None = None

    @classmethod
    def read(cls, name: str, text: str) -> Any:
        """Read targets as letters, with or without commas, in any order."""
        return targets(text) if name == "targets" else super().read(name, text)

    def resolved(self, geometry: Geometry) -> DVAOptions:
        """Return the options, checked. Raises UsageError."""
        if self.targets != targets(self.targets):
            raise UsageError(f"--set targets={self.targets}: expected {targets(self.targets)}")
        if not 1 <= self.rank <= geometry.width:
            raise UsageError(
                f"--set rank={self.rank}: expected 1 to {geometry.width}, the backbone's width"
            )
        return self

    def deciding(self, geometry: Geometry) -> dict[str, Any]:
        """Return what of them the weights do not say, which is nothing."""
        return {"options": {"targets": self.targets, "rank": self.rank, "own_norm": self.own_norm}}


def targets(text: str) -> str:
    """Return targets in the order q, k, v, each once. Raises UsageError."""
    letters = {letter for letter in text.strip().lower() if letter not in ", "}
    if not letters or letters - set(TARGETS):
        raise UsageError(f"--set targets={text}: expected some of q, k and v, such as q,k")
    return "".join(letter for letter in TARGETS if letter in letters)


class Adapted(Encoder):
    """A frozen ViT with adapters: only they are trained."""

    unused = PROXIES

    def __init__(self, vit: ViT, norm: Normalisation, options: DVAOptions) -> None:
        eps = getattr(vit.blocks[0].norm1, "eps", None)
        if options.adapter_eps not in (None, eps):
            raise UsageError(
                f"--set adapter_eps={options.adapter_eps}: the backbone's norms have eps {eps}, "
                "and adapters with another cannot be folded exactly; train them with the same"
            )
        adapt(vit, options.targets, options.rank, options.own_norm)
        super().__init__(vit, norm)

    def begin(self) -> None:
        """Start the norms of adapters as those of their blocks."""
        with torch.no_grad():
            for projection in self._projections():
                for adapter in projection.adapters().values():
                    if adapter.norm is not None and projection.norm1 is not None:
                        adapter.norm.load_state_dict(projection.norm1.state_dict())

    def _projections(self) -> Iterable[AdaptedProjection]:
        for block in self.vit.blocks:
            if isinstance(block.attn.qkv, AdaptedProjection):  # else it is folded
                yield block.attn.qkv

    def _name(self, key: str) -> str:
        """Return timm's names for what is timm's, and `blocks.0.attn.ic_q.down.weight`."""
        name = super()._name(key).replace(".attn.qkv.plain.", ".attn.qkv.")
        name = name.replace(".attn.qkv.norm1.", ".norm1.")
        return name.replace(".attn.qkv.ic_", dva_files.ADAPTERS)

    def own(self) -> set[str]:
        """Return the names of the adapters' tensors."""
        return {name for name in self.state() if dva_files.ADAPTERS in name}

    def frozen(self) -> set[str]:
        """Return all names but those of the adapters."""
        return set(self.state()) - self.own()


def build(vit: ViT, norm: Normalisation, options: DVAOptions) -> Encoder:
    """Return DVA on `vit`."""
    return Adapted(vit, norm, options)


# Ten epochs at a rate of 0.1 are the paper's; Adam's eps of 1, the rate of proxies and eight
# classes of four photos are those of ProxyNCA++ and the authors' DVF.
PAPER = Recipe(
    objective="fgdeploy.training.proxies:ProxyObjective",
    epochs=10,
    batch=32,
    optimizer="adam",
    lr=0.1,
    momentum=0.9,
    weight_decay=1e-4,
    layer_decay=None,
    head_rate=1.0,
    warmup=0,
    least_area=(224 / 256) ** 2,
    augment="fgdeploy.training.object_views:object_views",
    per_class=4,
    parts=("background", "transfer", "start"),
    eps=1.0,
    boxes=True,
)

METHOD = Method(
    name="dva",
    backbone="vit_base_patch16_224.orig_in21k",
    build=build,
    options=DVAOptions,
    told=dva_files.told,
    claims=dva_files.claims,
    recipes={"paper": PAPER},
)
