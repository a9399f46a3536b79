"""What an export is asked to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fgdeploy.core.codes import check_bits
from fgdeploy.core.errors import UsageError
from fgdeploy.models.assembly import NetworkSettings
from fgdeploy.photos import Columns
from fgdeploy.photos.table import AS_NAMED

WEIGHTS = ("pretrained", "random")
HEADS = ("auto", "trained", "itq", "lsh")
OPSETS = (18, 19, 20)


@dataclass(frozen=True)
class ExportSettings:
    """One export. None means: tell it from the checkpoint, or take the method's default.

    options: of the method, texts by name.
    weights: `pretrained` (timm's hub) or `random` (seeded); not read when `checkpoint` is given.
    weights_key: which network of a checkpoint that holds several, by name. renames: patterns for
    its names, PATTERN=REPLACEMENT.
    head: `trained` (in the checkpoint), `itq` (fitted on `fit_data`), `lsh` (seeded), or `auto`:
    the first of these that is possible. crop: the middle part of the photo's short side that the
    model sees, 0..1. columns: what those of `fit_data`, a CSV, are
    called. class_names: a text file with a name a line, where a checkpoint's class head has no
    names. without: names of exact simplifications to leave out, for comparison.
    """

    method: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    backbone: str | None = None
    checkpoint: Path | None = None
    weights: str = "pretrained"
    weights_key: str | None = None
    renames: tuple[str, ...] = ()
    head: str = "auto"
    bits: int | None = None
    image_size: int | None = None
    crop: float | None = None
    fit_data: Path | None = None
    fit_images: int = 4096
    columns: Columns = AS_NAMED
    logits: bool = False
    class_names: Path | None = None
    opset: int = 18
    seed: int = 0
    without: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.weights not in WEIGHTS:
            raise UsageError(
                f"--weights {self.weights!r}: choose {' or '.join(WEIGHTS)}; "
                "a file is given with --checkpoint"
            )
        if self.head not in HEADS:
            raise UsageError(f"--head {self.head!r}: choose {', '.join(HEADS)}")
        if self.opset not in OPSETS:
            raise UsageError(f"--opset {self.opset}: choose {OPSETS[0]} to {OPSETS[-1]}")
        if self.crop is not None and not 0.01 <= self.crop <= 1:
            raise UsageError(f"--crop {self.crop}: expected a part from 0.01 to 1")
        if self.bits is not None:
            check_bits(self.bits)
        if self.fit_images < 2:
            raise UsageError(f"--fit-images {self.fit_images}: expected at least 2")
        if self.seed < 0:
            raise UsageError(f"--seed {self.seed}: expected 0 or more")

    def network(self) -> NetworkSettings:
        """Return which network is meant."""
        return NetworkSettings(
            method=self.method,
            options=self.options,
            backbone=self.backbone,
            image_size=self.image_size,
            checkpoint=self.checkpoint,
            weights=self.weights,
            weights_key=self.weights_key,
            renames=self.renames,
            crop=self.crop,
            seed=self.seed,
        )
