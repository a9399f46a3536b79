"""The frames of a sample: those that calibrate, and those that check and are like none of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fgdeploy.bundle import Bundle
from fgdeploy.calibration.sample import FEW, TOO_FEW, Sample
from fgdeploy.core.errors import DataError
from fgdeploy.core.progress import Bars
from fgdeploy.core.text import counted
from fgdeploy.engines.base import BATCH
from fgdeploy.photos import batches, decode_all
from fgdeploy.proof.variety import different, refuse, sketch

Frames = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class SampleFrames:
    """Frames uint8 (N, S, S, 3), as they go into graphs.

    batches: to calibrate on; different: how many of their photos differ. checks: to check with, no
    two alike; labels: of their photos; read: how many photos they were chosen from.
    """

    batches: list[Frames]
    different: int
    checks: Frames
    labels: list[str | None]
    read: int


def frames_of(
    bundle: Bundle,
    chosen: Sample,
    skipped: list[str],
    bars: Bars,
    warn: Callable[[Sequence[str]], None],
    strict: bool = False,
) -> SampleFrames:
    """Read the photos of a sample.

    Photos that look like one that calibrates do not check; where too few others are left, those
    that calibrate check as well, which is told. Raises DataError for too few that can be read, or
    that differ, ImageError for one that cannot be read if `strict`.
    """
    make = bundle.manifest.preprocess
    groups = list(batches(chosen.calibration, make, BATCH, skipped, strict, bars("observing")))
    held = [frames for _, frames in groups]
    photos = [photo for group, _ in groups for photo in group]
    if len(photos) < TOO_FEW:
        raise DataError(
            f"only {len(photos)} of {counted(len(chosen.calibration), 'photo')} can be read, at "
            f"least {TOO_FEW} must calibrate; the first: {skipped[0]}"
        )
    calibration = np.concatenate(held)
    sketches = sketch(calibration)
    own = different(sketches)
    if len(own) < TOO_FEW:
        refuse(len(photos), len(own), "to calibrate on")
    if len(own) < min(FEW, len(photos)):
        warn(
            [
                f"of {counted(len(photos), 'photo')} to calibrate on only {len(own)} differ; give "
                "more scenes"
            ]
        )

    kept, frames = decode_all(chosen.checks, make, skipped, strict, bars("reading checks"))
    if chosen.checks and not kept:
        raise DataError(
            f"none of {counted(len(chosen.checks), 'photo')} to check with can be read: "
            f"{skipped[-1]}"
        )
    rows = different(sketch(frames), sketches)
    checks, labels = frames[rows], [kept[row].label for row in rows]
    if len(rows) < TOO_FEW:
        if len(rows) < len(chosen.checks):
            warn(
                [
                    f"only {len(rows)} of {counted(len(chosen.checks), 'photo')} to check with can "
                    "be read and differ from those that calibrate, so these check as well; give "
                    "photos of other scenes"
                ]
            )
        checks = np.concatenate([checks, calibration[own]])
        labels += [photos[row].label for row in own]
        return SampleFrames(held, len(own), checks, labels, len(kept) + len(photos))
    return SampleFrames(held, len(own), checks, labels, len(kept))
