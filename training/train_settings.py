"""What a training is asked to do."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fgdeploy.core.codes import check_bits
from fgdeploy.core.errors import UsageError
from fgdeploy.models.assembly import NetworkSettings
from fgdeploy.models.weights import trained
from fgdeploy.photos import Columns
from fgdeploy.photos.table import AS_NAMED

WEIGHTS = ("pretrained", "random")
VAL_FRACTION = 0.2
PRECISIONS = ("auto", "fp32", "bf16", "fp16")


@dataclass(frozen=True)
class TrainSettings:
    """One training. None means: the recipe's or the method's default.

    options: of the method, texts by name.
    data: a folder of classes, a CSV (path,class,split) or a dataset in its official layout.
    weights: `pretrained` (timm's hub), `random`, or the path of a checkpoint; weights_key: which
    network of one that holds several, by name; renames: patterns for its names,
    PATTERN=REPLACEMENT. crop: middle part of a photo's short side that the deployed model sees;
    least_area: least part of a photo's area in a training view; both above 0 and up to 1. warmup:
    steps. val_fraction: part of each class to evaluate with, for `data` without splits; None is
    VAL_FRACTION. without: parts of the method to leave out, for comparison.
    boxes: a file that says where the objects are, for recipes that look at them.
    teacher: trained weights to learn from, frozen. eval_photos: most test photos in the evaluation
    of an epoch, None for a quarter of those that it trains on; the last one takes all.
    """

    data: Path
    method: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    recipe: str = "fast"
    backbone: str | None = None
    weights: str = "pretrained"
    weights_key: str | None = None
    renames: tuple[str, ...] = ()
    image_size: int | None = None
    crop: float | None = None
    least_area: float | None = None
    bits: int = 64
    epochs: int | None = None
    batch: int | None = None
    lr: float | None = None
    warmup: int | None = None
    val_fraction: float | None = None
    without: frozenset[str] = frozenset()
    teacher: Path | None = None
    precision: str = "auto"
    eval_photos: int | None = None
    workers: int | None = None
    strict: bool = False
    columns: Columns = AS_NAMED
    allow_leaks: bool = False
    boxes: Path | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_bits(self.bits)
        if self.precision not in PRECISIONS:
            raise UsageError(f"--precision {self.precision!r}: choose {', '.join(PRECISIONS)}")
        for name in ("epochs", "batch", "image_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"--{name.replace('_', '-')} {value}: expected 1 or more")
        if self.batch == 1:
            raise UsageError("--batch 1: expected 2 or more, a batch of one has nothing to compare")
        if self.lr is not None and not 0 < self.lr < float("inf"):
            raise UsageError(f"--lr {self.lr}: expected a number above zero")
        if self.val_fraction is not None and not 0 <= self.val_fraction < 1:
            raise UsageError(
                f"--val-fraction {self.val_fraction}: expected a part from 0 to below 1"
            )
        for name, least in (("crop", 0.01), ("least_area", 1e-4)):
            value = getattr(self, name)
            if value is not None and not least <= value <= 1:
                raise UsageError(
                    f"--{name.replace('_', '-')} {value}: expected a part from {least:g} to 1"
                )
        if self.seed >= 1 << 63:
            raise UsageError(f"--seed {self.seed}: expected less than 2^63")
        for name in ("warmup", "workers", "seed", "eval_photos"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise UsageError(f"--{name.replace('_', '-')} {value}: expected 0 or more")

    def network(self) -> NetworkSettings:
        """Return which network is meant. Raises UsageError for weights that are not there."""
        named = self.weights in WEIGHTS
        path = None if named else trained.locate(Path(self.weights))
        if path is not None and not path.is_file():
            raise UsageError(
                f"--weights {self.weights}: expected {', '.join(WEIGHTS)} or a checkpoint's "
                "path, and there is no such file"
            )
        return NetworkSettings(
            method=self.method,
            options=self.options,
            backbone=self.backbone,
            image_size=self.image_size,
            checkpoint=path,
            weights=self.weights if named else "pretrained",
            weights_key=self.weights_key,
            renames=self.renames,
            crop=self.crop,
            seed=self.seed,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON-ready values."""
        entry = dataclasses.asdict(self)
        entry["data"] = str(self.data)
        entry["teacher"] = None if self.teacher is None else str(self.teacher)
        entry["without"] = sorted(self.without)
        # As runs of before call it, so that these compare as the same.
        given = entry.pop("val_fraction")
        entry["holdout"] = VAL_FRACTION if given is None else given
        # Left out where they say nothing, so that older runs compare as the same.
        entry["boxes"] = None if self.boxes is None else str(self.boxes)
        for name in ("columns", "allow_leaks", "renames", "boxes"):
            if getattr(self, name) == getattr(TrainSettings, name):
                del entry[name]
        return entry
