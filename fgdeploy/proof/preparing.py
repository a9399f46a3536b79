"""A bundle made ready for this machine in one call: calibrated where that is needed, then built."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fgdeploy.bundle import GRAPHS, Bundle, open_bundle
from fgdeploy.core.errors import MissingDependency
from fgdeploy.core.progress import Bars, Notify, no_bars, silent
from fgdeploy.engines.build_settings import BuildSettings
from fgdeploy.photos import (
    Columns,
    Photo,
    Photos,
    named_or_found,
    own_split,
    skipped_of,
    spread,
)
from fgdeploy.photos.table import AS_NAMED
from fgdeploy.proof.building import Outcome, build_proven, candidates
from fgdeploy.proof.limits import PHOTOS, Limits

if TYPE_CHECKING:
    from fgdeploy.calibration.calibration_settings import CalibrationSettings
    from fgdeploy.calibration.calibrator import Calibrated

_PURPOSE = "to calibrate on"


def calibrate(
    bundle: Bundle | str | os.PathLike[str],
    photos: Photos | None = None,
    settings: CalibrationSettings | None = None,
    limits: Limits | None = None,
    again: bool = False,
    notify: Notify = silent,
    bars: Bars = no_bars,
    columns: Columns = AS_NAMED,
    strict: bool = False,
    fp8: bool = False,
) -> Calibrated:
    """Write INT8 and FP16 graphs into a bundle: `fgdeploy.calibrate("eet.fgd", "birds")`.

    photos: real ones, by default those of the training that the model comes from, or else the only
    ones in the working folder. limits: what INT8 keeps to against fp32, by default half a point of
    mAP and 98.5 % of code bits. again: whatever the bundle holds already. columns: what those of a
    CSV are called. strict: raise ImageError for the first photo that cannot be read. fp8: write an
    FP8 graph as well. Raises what `calibration.calibrator.calibrate` raises, UsageError where there
    are no photos, MissingDependency without the onnx package.
    """
    try:
        from fgdeploy.calibration.calibration_settings import CalibrationSettings
        from fgdeploy.calibration.calibrator import calibrate as run
    except ModuleNotFoundError as error:
        raise MissingDependency(error.name or "onnx", "calibrate", "calibrating") from None
    opened = _opened(bundle)
    chosen = named_or_found(photos, _PURPOSE, notify, own_photos(opened), columns, strict)
    settings = settings or CalibrationSettings()
    done = run(opened, chosen, settings, limits, again, notify, bars, strict, fp8)
    every = dict.fromkeys([*skipped_of(chosen), *done.skipped])
    return dataclasses.replace(done, skipped=list(every))


def own_photos(bundle: Bundle) -> Path | None:
    """Return the list of photos of the training that a bundle's model comes from, None if unknown.

    Its folder has to lie beside the bundle, or in the working folder.
    """
    return own_split(bundle.manifest.weights.get("run"), Path(), bundle.path.parent)


def build_engine(
    bundle: Bundle | str | os.PathLike[str],
    precision: str,
    photos: Photos | None = None,
    backend: str | None = None,
    settings: BuildSettings | None = None,
    calibration: CalibrationSettings | None = None,
    limits: Limits | None = None,
    again: bool = False,
    timed: bool = True,
    notify: Notify = silent,
    bars: Bars = no_bars,
    columns: Columns = AS_NAMED,
    strict: bool = False,
) -> Outcome:
    """Build an engine for this machine: `fgdeploy.build_engine("eet.fgd", "int8")`.

    It is held to fp32 and timed. A precision whose graph the bundle lacks is calibrated first, any
    other if `again`. photos: to calibrate on and to hold the engine against fp32 with; by default
    those that `calibrate` takes if a calibration needs them, else the frames in the bundle judge.
    backend: by default the best for this machine. columns, strict: as in `calibrate`. Raises what
    `calibrate` and `building.build_proven` raise.
    """
    opened = _opened(bundle)
    candidates(precision, backend)  # before minutes go into a calibration
    missing = GRAPHS.get(precision, GRAPHS["fp32"]) not in opened.manifest.files
    skipped: Sequence[str] = ()
    judges: Sequence[Photo] = ()
    if missing or again or photos is not None:
        from fgdeploy.calibration.calibration_settings import CalibrationSettings

        calibration = calibration or CalibrationSettings()
        chosen = named_or_found(photos, _PURPOSE, notify, own_photos(opened), columns, strict)
        skipped = skipped_of(chosen)
        if missing or again:
            done = calibrate(
                opened,
                chosen,
                calibration,
                limits,
                again,
                notify,
                bars,
                strict=strict,
                fp8=precision == "fp8",
            )
            opened, skipped = done.bundle, done.skipped
        judges = _judges(chosen, precision, opened.manifest.image_size, calibration)
    outcome = build_proven(
        opened, precision, backend, settings, judges, limits, timed, notify, bars, strict
    )
    every = dict.fromkeys([*skipped, *outcome.skipped])
    return dataclasses.replace(outcome, skipped=list(every))


def _opened(bundle: Bundle | str | os.PathLike[str]) -> Bundle:
    return bundle if isinstance(bundle, Bundle) else open_bundle(bundle)


def _judges(
    photos: Sequence[Photo], precision: str, image_size: int, settings: CalibrationSettings
) -> Sequence[Photo]:
    """Return the photos that judge an engine, INT8 and FP8 by others than calibrated them, if any.

    Copies of a photo are left out, so that none both calibrates and judges.
    """
    from fgdeploy.calibration import sample

    if precision not in ("int8", "fp8"):
        return spread(photos, PHOTOS, settings.seed)
    drawn = sample.draw(photos, settings.images, image_size, settings.seed)
    return drawn.checks or drawn.calibration
