"""Warm-up: the requests that Triton runs through a model before it calls it ready.

A file holds one frame, as it is, row by row in RGB. Triton makes `batch_size` requests of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fgdeploy.bundle import Bundle, checks
from fgdeploy.photos.generated_frames import wave_frame
from fgdeploy.photos.images import Frame

FOLDER = "warmup"


@dataclass(frozen=True)
class WarmUp:
    """One warm-up run: its name, its batch size, the name of its file and the frame in it."""

    name: str
    batch: int
    file: str
    frame: Frame

    @property
    def content(self) -> bytes:
        """Return the file: the frame's bytes and nothing else."""
        return np.ascontiguousarray(self.frame).tobytes()


def warm_ups(bundle: Bundle, batches: Sequence[int]) -> list[WarmUp]:
    """Return a run for each batch size, each with another of the bundle's check frames.

    A bundle that was never calibrated has none; a generated picture stands in.
    """
    held = checks.read(bundle)
    size = bundle.manifest.image_size
    frames = wave_frame(size, np.random.default_rng(0))[None] if held is None else held.frames
    return [
        WarmUp(f"batch_{batch}", batch, f"frame_{number}.raw", frames[number % len(frames)])
        for number, batch in enumerate(batches)
    ]
