"""From a bundle and photos to INT8 and FP16 graphs that keep to the limits."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata

import onnx

from fgdeploy import __version__
from fgdeploy.bundle import GRAPHS, Bundle, checks
from fgdeploy.calibration import cache, int8_plan, qdq, sample
from fgdeploy.calibration.cache import Calibration
from fgdeploy.calibration.calibration_settings import CalibrationSettings
from fgdeploy.calibration.half import to_half
from fgdeploy.calibration.judge import Judge, default_limits
from fgdeploy.calibration.repair import Repair, repair
from fgdeploy.calibration.sample import Sample
from fgdeploy.core.errors import DataError, ParityError
from fgdeploy.core.progress import Bars, Notify, no_bars, silent
from fgdeploy.core.text import counted
from fgdeploy.engines.base import BATCH
from fgdeploy.photos import Photo, batches, decode_all
from fgdeploy.proof.parity import Limits, Parity


@dataclass(frozen=True)
class Calibrated:
    """A calibrated bundle: INT8 before and after repair, and FP16, all against fp32.

    reused: nothing was done, as the bundle held this very calibration. repair: None where INT8 met
    the limits at once. skipped: why photos were left out. warnings: one line each.
    """

    bundle: Bundle
    record: Calibration
    limits: Limits
    first: Parity | None = None
    int8: Parity | None = None
    fp16: Parity | None = None
    repair: Repair | None = None
    reused: bool = False
    skipped: Sequence[str] = ()
    warnings: Sequence[str] = ()


def calibrate(
    bundle: Bundle,
    photos: Sequence[Photo],
    settings: CalibrationSettings,
    limits: Limits | None = None,
    again: bool = False,
    notify: Notify = silent,
    bars: Bars = no_bars,
    strict: bool = False,
) -> Calibrated:
    """Write INT8 and FP16 graphs into a bundle, with the calibration that they came from.

    limits: the limits of INT8 (default: `judge.default_limits`); layers go back to float until they
    are kept. A calibration of the same graph, photos and settings is kept unless `again`; one of
    another graph is refused as stale. strict: raise ImageError for the first photo that cannot be
    read. Raises DataError for photos that cannot calibrate,
    ParityError if even repair does not meet the limits, ExportError, BundleError or OSError.
    """
    held = None if again else cache.read(bundle)
    chosen = sample.draw(photos, settings.images, bundle.manifest.image_size, settings.seed)
    for warning in chosen.warnings:
        notify(warning)
    # Before any work: are the checks labelled, and is this calibration there already?
    limits = limits or default_limits([photo.label for photo in chosen.checks])
    facts = {
        "count": len(chosen.calibration),
        "sha256": sample.digest([photo.path for photo in chosen.calibration]),
    }
    wanted = {**dataclasses.asdict(settings), "limits": limits.to_json()}
    if held is not None and held.photos == facts and held.settings == wanted:
        return Calibrated(bundle, held, limits, reused=True, warnings=chosen.warnings)
    skipped: list[str] = []
    model = onnx.load(bundle.graph("fp32"))
    made = _plan(model, bundle, chosen, settings, skipped, bars, strict)
    judge = _judge(model, bundle, chosen, skipped, bars, strict)
    first = judge.parity(qdq.write(made, unsigned_activations=True), bars("checking INT8"))
    fixed = None
    if broken := first.breaches(limits):
        notify(f"INT8 misses the limits ({'; '.join(broken)}): looking for the layers to blame")
        fixed = repair(made, judge, limits, bars("measuring each layer"), notify)
        if not fixed.met:
            broken = fixed.parity.breaches(limits)
            raise ParityError(
                f"INT8 cannot keep to the limits of this model, even with all "
                f"{counted(len(fixed.in_float), 'layer')} in float: {'; '.join(broken)}; "
                "use --fp16, or give wider limits"
            )
    in_float = fixed.in_float if fixed else []
    graphs = _graphs(made, in_float)
    fp16 = judge.parity(to_half(model), bars("checking FP16"))
    parity = fixed.parity if fixed else first
    record = Calibration(
        graph_sha256=bundle.manifest.files[GRAPHS["fp32"]]["sha256"],
        settings=wanted,
        photos=facts,
        ranges=made.ranges(),
        in_float=in_float,
        int8_sha256=hashlib.sha256(graphs[GRAPHS["int8"]]).hexdigest(),
        tools=_tools(),
        parity=dataclasses.asdict(parity),
    )
    held_to = judge.checks(onnx.load_from_string(graphs[GRAPHS["int8-u8"]]))
    files = {**graphs, cache.FILE: record.to_bytes(), checks.FILE: held_to.to_bytes()}
    written = bundle.with_files(files, record.summary())
    return Calibrated(
        written, record, limits, first, parity, fp16, fixed, False, skipped, chosen.warnings
    )


def _plan(
    model: onnx.ModelProto,
    bundle: Bundle,
    chosen: Sample,
    settings: CalibrationSettings,
    skipped: list[str],
    bars: Bars,
    strict: bool,
) -> int8_plan.Int8Plan:
    make = bundle.manifest.preprocess
    groups = batches(chosen.calibration, make, BATCH, skipped, strict, bars("observing"))
    held = [frames for _, frames in groups]
    if sum(map(len, held)) < sample.TOO_FEW:
        raise DataError(
            f"only {sum(map(len, held))} of {counted(len(chosen.calibration), 'photo')} can "
            "be read, at least "
            f"{sample.TOO_FEW} must calibrate; the first: {skipped[0]}"
        )
    return int8_plan.make(model, held, settings, bars("rounding layers"))


def _judge(
    model: onnx.ModelProto,
    bundle: Bundle,
    chosen: Sample,
    skipped: list[str],
    bars: Bars,
    strict: bool,
) -> Judge:
    photos = chosen.checks or chosen.calibration
    make = bundle.manifest.preprocess
    kept, frames = decode_all(photos, make, skipped, strict, bars("reading checks"))
    if not kept:
        raise DataError(
            f"none of {counted(len(photos), 'photo')} to check with can be read: {skipped[-1]}"
        )
    return Judge(model, frames, [photo.label for photo in kept], bars("running fp32"))


def _graphs(made: int8_plan.Int8Plan, in_float: list[str]) -> dict[str, bytes]:
    int8 = qdq.write(made, in_float)
    graphs = {
        "int8": int8,
        "int8-u8": qdq.write(made, in_float, unsigned_activations=True),
        "int8-fp16": to_half(int8),
        "fp16": to_half(made.model),
    }
    return {GRAPHS[key]: graph.SerializeToString() for key, graph in graphs.items()}


def _tools() -> dict[str, str]:
    names = ("numpy", "onnx", "onnxruntime")
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {"fgdeploy": __version__, **found}
