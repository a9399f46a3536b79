"""What a calibration is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from fgdeploy.calibration.ranges import RANGES
from fgdeploy.calibration.sample import DEFAULT_IMAGES
from fgdeploy.core.errors import UsageError


@dataclass(frozen=True)
class CalibrationSettings:
    """How INT8 ranges and weights are found.

    range: how the range of an activation is chosen (`ranges.RANGES`). images: photos to observe.
    balance: shift and scale channels before rounding (`balance`), folded into the graph where it
    can be. compensate: round weights so that errors cancel (`rounding`) and correct biases. Each
    can be switched off, which leaves plain ranges. seed: of the choice of photos and rows.
    """

    range: str = "mse"
    images: int = DEFAULT_IMAGES
    balance: bool = True
    compensate: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.range not in RANGES:
            raise UsageError(f"no range {self.range!r}; choose {', '.join(RANGES)}")
