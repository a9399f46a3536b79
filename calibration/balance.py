"""Shift and scale the channels of an activation so that one step fits them all.

    y = x W + b  =  ((x - c) / s) (s W) + (b + c W)

Exact for any shift c and scale s per channel; only INT8's rounding changes. X. Wei et al.,
"Outlier Suppression+" (EMNLP 2023): c centres each channel; G. Xiao et al., "SmoothQuant" (ICML
2023), Eq. 4: s_j = reach(x_j)^a / reach(W_j)^(1-a). Here a is chosen per activation, with the limit
of the step, by the error of the layers behind it. Where x comes from a norm or from attention the
division folds into weights before it (`folding`); elsewhere it stays as one product and one sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fgdeploy.calibration.ranges import RANGES, quantise, step_of
from fgdeploy.calibration.rounding import nearest, steps_of

if TYPE_CHECKING:  # which needs the onnx package; a device that reads calibrations has none
    from fgdeploy.calibration.observe import Observed

Doubles = npt.NDArray[np.float64]
_STRENGTHS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_ROWS = 1024  # of the sample, to choose by


@dataclass(frozen=True)
class Balance:
    """What is done to an activation before rounding.

    shift, scale: (K,), zeros and ones for nothing; step: of INT8, in units of the scaled values;
    strength: SmoothQuant's a, None where nothing is scaled; snr_db: of the layers' outputs.
    """

    shift: Doubles
    scale: Doubles
    step: float
    strength: float | None
    snr_db: float

    def apply(self, rows: Doubles) -> Doubles:
        """Return rows (R, K) shifted and scaled."""
        return (rows - self.shift) / self.scale


def choose(seen: Observed, weight: Doubles, range_: str, free: bool, seed: int = 0) -> Balance:
    """Return the balance with the least error of rows @ weight, both in INT8.

    weight: (K, N) of all layers that read the activation, side by side. free: whether channels may
    be shifted and scaled at all.
    """
    rng = np.random.default_rng(seed)
    rows, weights = seen.rows, seen.weights
    if len(rows) > _ROWS:
        picked = rng.choice(len(rows), _ROWS, replace=False, p=weights / weights.sum())
        rows, weights = rows[picked], np.ones(_ROWS)
    shift = _single((seen.high + seen.low) / 2) if free else np.zeros_like(seen.low)
    reach = np.maximum(np.maximum(seen.high - shift, shift - seen.low), 1e-6)
    weight_reach = np.maximum(np.abs(weight).max(axis=1), 1e-6)
    wanted = rows @ weight
    power = float(((wanted**2).mean(axis=1) * weights).mean())
    best: tuple[float, Balance] | None = None
    for strength in _STRENGTHS if free else (None,):
        scale = _scale(reach, weight_reach, strength)
        scaled, loaded = (rows - shift) / scale, weight * scale[:, None]
        steps = steps_of(loaded)
        rounded, constant = nearest(loaded, steps) * steps, shift @ weight
        for limit in RANGES[range_](np.abs(scaled), float((reach / scale).max())):
            step = step_of(limit)
            error = quantise(scaled, step) @ rounded + constant - wanted
            error -= error.mean(axis=0)
            noise = float(((error**2).mean(axis=1) * weights).mean())
            if best is None or noise < best[0]:
                snr = 10 * np.log10(max(power, 1e-30) / max(noise, 1e-30))
                best = (noise, Balance(shift, scale, step, strength, float(snr)))
    assert best is not None
    return best[1]


def _scale(reach: Doubles, weight_reach: Doubles, strength: float | None) -> Doubles:
    if strength is None:
        return np.ones_like(reach)
    scale = reach**strength / weight_reach ** (1 - strength)
    return _single(scale / np.exp(np.log(scale).mean()))


def _single(values: Doubles) -> Doubles:
    """Return values that float32 holds exactly, so that files and graphs keep them as they are."""
    return values.astype(np.float32).astype(np.float64)
