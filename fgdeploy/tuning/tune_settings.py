"""What a tuning is asked to do, checked before any work begins."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fgdeploy.core import numbers
from fgdeploy.core.codes import check_bits
from fgdeploy.core.errors import UsageError
from fgdeploy.core.text import shown
from fgdeploy.photos import Columns
from fgdeploy.photos.table import AS_NAMED

_UNITS = {"ms": 1.0, "s": 1e3, "": 1.0}
_LONGEST_MS = 1e7


def milliseconds(text: str) -> float:
    """Return the milliseconds of `8ms`, `8` or `0.008s`. Raises UsageError, for 0 too."""
    number, unit = re.fullmatch(r"(.*?)\s*(ms|s|)", text.strip(), re.DOTALL).groups()  # type: ignore[union-attr]
    try:
        value = numbers.real(number, "--latency") * _UNITS[unit]
    except UsageError:
        value = 0.0
    if not 0 < value <= _LONGEST_MS:
        raise UsageError(
            f"--latency {shown(text)}: expected a time above zero such as 8ms or 0.008s"
        )
    return value


@dataclass(frozen=True)
class TuneSettings:
    """One tuning. None means: told from the weights, or the method's default.

    latency_ms: of one call with `batch` frames, at most. max_drop: in points of mAP, at most.
    engine: BACKEND:PRECISION. options: of the method, texts by name; those that hold the schedule
    are replaced. weights: `pretrained`, `random`, or a checkpoint's path. images: most photos to
    evaluate with; best: how many schedules are evaluated on all of them. train: train those after
    the recipe `fast`, for `epochs`, before they are judged. Raises UsageError.
    """

    data: Path
    latency_ms: float
    max_drop: float = 0.5
    method: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    backbone: str | None = None
    weights: str = "pretrained"
    image_size: int | None = None
    bits: int | None = None
    batch: int = 1
    engine: str = "onnxruntime:fp32"
    images: int = 400
    best: int = 6
    train: bool = False
    epochs: int | None = None
    threads: int | None = None
    columns: Columns = AS_NAMED
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.latency_ms <= _LONGEST_MS:
            raise UsageError(f"a latency of {self.latency_ms} ms: expected more than 0")
        if not 0 <= self.max_drop <= 100:
            raise UsageError(f"--max-drop {self.max_drop:g}: expected points of mAP from 0 to 100")
        if self.bits is not None:
            check_bits(self.bits)
        for name, least in (("batch", 1), ("images", 8), ("best", 1)):
            if (value := getattr(self, name)) < least:
                raise UsageError(f"--{name} {value}: expected {least} or more")
        if self.epochs is not None and not self.train:
            raise UsageError("--epochs is of --train; give both")
        backend, colon, precision = self.engine.partition(":")
        if not (backend and colon and precision):
            raise UsageError(
                f"--engine {shown(self.engine)}: expected BACKEND:PRECISION such as openvino:int8"
            )
