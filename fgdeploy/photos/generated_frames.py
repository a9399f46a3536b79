"""Pictures that need no photo: what an engine is tried with where there is nothing else."""

from __future__ import annotations

import numpy as np

from fgdeploy.photos.images import Frame


def wave_frame(size: int, chooser: np.random.Generator) -> Frame:
    """Draw overlapping waves with a little noise, uint8 (S, S, 3): attention has what to choose."""
    y, x = np.mgrid[0:size, 0:size] / size
    picture = np.zeros((size, size, 3))
    for _ in range(6):
        fx, fy, phase = chooser.uniform(-12, 12), chooser.uniform(-12, 12), chooser.uniform(0, 6.3)
        wave = np.sin(2 * np.pi * (fx * x + fy * y) + phase)
        picture += wave[..., None] * chooser.uniform(-30, 30, 3)
    picture += chooser.normal(0, 8, picture.shape) + chooser.uniform(60, 190, 3)
    return picture.clip(0, 255).astype(np.uint8)
