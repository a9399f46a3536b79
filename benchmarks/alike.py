"""How far photos lie apart that differ, and photos that are one: what `proof.variety` is set by.

    python benchmarks/alike.py eet.fgd ../shared/data/cub100_bboxcrop

Prints, for each kind of photos, the least distance of two sketches and the mean distance of two
fp32 codes, as a share of the bits.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

import fgdeploy
from fgdeploy.photos import decode_all, read, spread
from fgdeploy.proof.variety import measure, sketch

Frames = npt.NDArray[np.uint8]
_MANY, _FEW = 1024, 64


def kinds(frames: Frames) -> Iterator[tuple[str, Frames]]:
    """Yield sets of frames (N, S, S, 3), the first of photos that differ, the others of one."""
    random = np.random.default_rng(0)
    one, side = frames[0].astype(np.int16), frames.shape[1]
    shape = (_FEW, side, side, 3)
    yield f"{len(frames)} photos", frames
    yield "one photo with noise", _bytes(one + random.normal(0, 12, shape))
    yield "one photo, exposures", _bytes(one * np.linspace(0.6, 1.4, _FEW)[:, None, None, None])
    moves = random.integers(-3, 4, (_FEW, 2))
    yield "one photo, up to 3 pixels on", np.stack([np.roll(frames[0], m, (0, 1)) for m in moves])
    yield "black frames with noise", _bytes(random.integers(0, 4, shape))
    yield "noise alone", _bytes(random.integers(0, 256, shape))


def _bytes(values: npt.NDArray[np.generic]) -> Frames:
    return np.clip(values, 0, 255).astype(np.uint8)


def _least(frames: Frames) -> tuple[float, float]:
    """Return the least and the largest distance of two sketches."""
    rows = sketch(frames).astype(np.float64)
    squares = (rows**2).sum(axis=1)
    apart = squares[:, None] + squares - 2 * rows @ rows.T
    pairs = np.sqrt(np.maximum(apart, 0)[np.triu_indices(len(rows), 1)] / rows.shape[1])
    return float(pairs.min()), float(pairs.max())


def main() -> None:
    """Measure each kind with the bundle and the photos that are named."""
    bundle, folder = sys.argv[1:]
    with fgdeploy.load(bundle, precision="fp32") as hasher:
        photos = spread(read(Path(folder)), _MANY)
        _, frames = decode_all(photos, hasher.manifest.preprocess, [])
        print(f"{'':30}{'sketches: least':>17}{'most':>7}{'codes apart':>13}")
        for name, made in kinds(frames):
            least, most = _least(made)
            codes = hasher.engine.run_all(made).code
            distance = measure(len(made), codes, hasher.bits).distance or 0.0
            print(f"{name:30}{least:17.2f}{most:7.2f}{distance:13.0%}")


if __name__ == "__main__":
    main()
