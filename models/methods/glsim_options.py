"""What a user may choose of GLSim, and what its files may say of themselves."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from fgdeploy.core import numbers
from fgdeploy.core.errors import UsageError
from fgdeploy.core.json_schema import said
from fgdeploy.models.backbone.variant import Variant
from fgdeploy.models.backbone.vit import Geometry
from fgdeploy.models.looks.adapter import ADAPTERS
from fgdeploy.models.looks.aggregator import POOLS
from fgdeploy.models.looks.similarity import METRICS
from fgdeploy.models.options import Options

_O = TypeVar("_O", bound="GLSimOptions")

TWICE, SELECT, ONCE = "twice", "select", "once"
CONVOLUTIONS = ("dwsc", "conv")
WIDEST = 1 << 12  # the widest ViT that timm knows is below it; wider ones fill a machine's memory
_CHOICES = {
    "metric": tuple(METRICS),
    "look": (TWICE, SELECT, ONCE),
    "aggregator": ("transformer", *CONVOLUTIONS, "none"),
    "tokens": ("cls", "all"),
    "pool": POOLS,
    "adapter": ADAPTERS,
}
# Options that are None by default, with the least and the greatest that they may be otherwise.
_WHOLE = {
    "top": (1, 1 << 16),
    "width": (1, WIDEST),
    "aggregator_heads": (1, 1 << 10),
    "heads": (1, 1 << 10),
    "hidden": (1, WIDEST),
    "depth": (1, 1 << 10),
    "patch": (1, 1 << 10),
    "stride": (1, 1 << 10),
}
_REAL = {"norm_eps": (0.0, 1.0), "last_eps": (0.0, 1.0), "mlp_ratio": (0.01, 64.0)}
_HEAD_WIDTH = 64  # of a reduced aggregator, whatever the encoder's is
_TOP, _GRID = 8, 14  # the paper's: 8 of 14 x 14 patches, 16 of 28 x 28


@dataclass(frozen=True)
class GLSimOptions(Options):
    """top: how many patches the box is around, None for the paper's 8 at 14 x 14, scaled by side.

    metric: cos, l1 or l2. inclusive_box: the last row and column of these patches are inside.
    look: `twice`; `select`: the patches themselves are aggregated, without a crop; `once`: neither.
    shared_cls: the second look has the first one's CLS token. norm: the backbone's last norm is
    there. tokens: the rows that are aggregated, CLS of each look or all. aggregator: transformer
    (`layers` blocks), dwsc or conv, or none; aggregator_norm: it has a last norm, of `last_eps`;
    width: of its rows; aggregator_heads. pool: what is read of its rows: cls, their mean, or both.
    flip: the mean over photo and mirror image. adapter: bottlenecks beside attention and MLP of the
    backbone's blocks, `plain` or with a convolution (`convpass`), or none. norm_eps, heads, hidden,
    depth, mlp_ratio, patch, stride: of the backbone, where they are not its own.
    """

    top: int | None = None
    metric: str = "cos"
    inclusive_box: bool = True
    look: str = TWICE
    shared_cls: bool = False
    norm: bool = True
    tokens: str = "cls"
    aggregator: str = "transformer"
    layers: int = 1
    aggregator_norm: bool = True
    width: int | None = None
    aggregator_heads: int | None = None
    pool: str = "cls"
    flip: bool = False
    norm_eps: float | None = None
    last_eps: float | None = None
    heads: int | None = None
    hidden: int | None = None
    depth: int | None = None
    mlp_ratio: float | None = None
    patch: int | None = None
    stride: int | None = None
    adapter: str = "none"

    @classmethod
    def read(cls, name: str, text: str) -> Any:
        """Read one option; numbers that may be left to the backbone have their bounds here."""
        if name in _WHOLE:
            return numbers.whole(text, f"--set {name}", *_WHOLE[name])
        if name in _REAL:
            return numbers.real(text, f"--set {name}", *_REAL[name])
        return super().read(name, text)

    @classmethod
    def from_json(cls: type[_O], entry: Mapping[str, Any]) -> _O:
        """Read what `to_json` wrote. Raises TypeError or ValueError for values of other kinds."""
        for bounds, kind in ((_WHOLE, int), (_REAL, float)):
            for name, (least, most) in bounds.items():
                value = entry.get(name)
                if value is None:
                    continue
                if type(value) is not kind or not least <= value <= most:
                    raise TypeError(f"option {name} is {said(value)}, expected {least} to {most}")
        found = super().from_json(entry)
        if (wrong := found._odd()) is not None:
            raise ValueError(wrong)
        return found

    def resolved(self: _O, geometry: Geometry) -> _O:
        """Return the options with the patches that the box is around. Raises UsageError."""
        if (wrong := self._odd()) is not None:
            raise UsageError(wrong)
        side, patches = max(geometry.grid), geometry.patches
        top = self.top or min(max(1, round(_TOP * side / _GRID)), patches)
        if top > patches:
            raise UsageError(
                f"--set top={top}: the photo has {patches} patches at this size; choose 1 to "
                f"{patches}"
            )
        self._check_heads(geometry.width)
        return dataclasses.replace(self, top=top)

    def resized(self: _O) -> _O:
        """Let the side of the grid decide the top anew, unless weights hang on it."""
        fixed = self.look == SELECT and self.aggregator in CONVOLUTIONS
        return self if fixed else dataclasses.replace(self, top=None)

    def backbone(self) -> Variant:
        """Return what the backbone has otherwise than timm's of its name."""
        return Variant(
            norm_eps=self.norm_eps,
            heads=self.heads,
            width=self.hidden,
            depth=self.depth,
            mlp_ratio=self.mlp_ratio,
            patch=self.patch,
            stride=self.stride,
        )

    def usual_heads(self, width: int) -> int | None:
        """Return the heads of an aggregator behind a backbone of `width`; None: the backbone's."""
        reduced = self.width not in (None, width)
        return max(1, (self.width or width) // _HEAD_WIDTH) if reduced else None

    def _check_heads(self, width: int) -> None:
        """Raise UsageError where the heads of the aggregator do not divide its width."""
        rows, heads = self.width or width, self.aggregator_heads or self.usual_heads(width)
        if self.aggregator == "transformer" and heads and rows % heads:
            raise UsageError(
                f"--set aggregator_heads={heads}: they do not divide the aggregator's width of "
                f"{rows}; choose another number, or another --set width"
            )

    @property
    def own_cls(self) -> bool:
        """Return whether the second look has a CLS token of its own."""
        return self.look == TWICE and not self.shared_cls

    @property
    def convolves(self) -> bool:
        """Return whether the aggregator is a convolution over its rows."""
        return self.aggregator in CONVOLUTIONS

    def _odd(self) -> str | None:
        """Return in words what does not go together, None where all does."""
        for name, known in _CHOICES.items():
            if (value := getattr(self, name)) not in known:
                return f"--set {name}={value}: choose one of {', '.join(known)}"
        if not 1 <= self.layers <= 64:
            return f"--set layers={self.layers}: expected a number from 1 to 64"
        if self.convolves:
            return self._odd_convolution()
        if self.tokens == "all" and self.look == SELECT:
            return "--set tokens=all: look=select has CLS and the top patches; leave tokens out"
        if self.pool == "both" and self.look == ONCE and self.tokens == "cls":
            return "--set pool=both: look=once has CLS alone, and no other rows; add tokens=all"
        return None

    def _odd_convolution(self) -> str | None:
        usual = {"tokens": "cls", "pool": "cls", "layers": 1, "aggregator_norm": True}
        usual |= {"width": None, "aggregator_heads": None}
        for name, value in usual.items():
            if (given := getattr(self, name)) != value:
                return (
                    f"--set {name}={given}: a convolution makes one row of fixed rows; leave it "
                    f"out with aggregator={self.aggregator}"
                )
        return None
