"""From a bundle and photos to INT8 and FP16 graphs that keep to the limits."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import onnx

from fgdeploy import __version__
from fgdeploy.bundle import GRAPHS, Bundle, checks
from fgdeploy.calibration import cache, fp8, int8_plan, qdq, sample
from fgdeploy.calibration.cache import Calibration
from fgdeploy.calibration.calibration_settings import CalibrationSettings
from fgdeploy.calibration.half import to_half
from fgdeploy.calibration.judge import Judge
from fgdeploy.calibration.repair import Repair, repair
from fgdeploy.calibration.sample_frames import frames_of
from fgdeploy.core.errors import ParityError
from fgdeploy.core.progress import Bars, Notify, no_bars, silent
from fgdeploy.core.text import counted
from fgdeploy.photos import Photo
from fgdeploy.proof.limits import Limits, int8_limits
from fgdeploy.proof.parity import Parity
from fgdeploy.proof.variety import Variety, check_spread, measure


@dataclass(frozen=True)
class Calibrated:
    """A calibrated bundle: INT8 before and after repair, and FP16, all against fp32.

    reused: nothing was done, as the bundle held this very calibration. repair: None where INT8 met
    the limits at once. skipped: why photos were left out. warnings: one line each. variety: of the
    photos that INT8 was checked with. fp8: where it was asked for.
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
    variety: Variety | None = None
    fp8: Parity | None = None


def calibrate(
    bundle: Bundle,
    photos: Sequence[Photo],
    settings: CalibrationSettings,
    limits: Limits | None = None,
    again: bool = False,
    notify: Notify = silent,
    bars: Bars = no_bars,
    strict: bool = False,
    with_fp8: bool = False,
) -> Calibrated:
    """Write INT8 and FP16 graphs into a bundle, with the calibration that they came from.

    limits: the limits of INT8 (default: `int8_limits`); layers go back to float until they
    are kept. A calibration of the same graph, photos and settings is kept unless `again`; one of
    another graph is refused as stale. strict: raise ImageError for the first photo that cannot be
    read. with_fp8: write an FP8 graph as well, as is done where the bundle has one. Raises
    DataError for photos that cannot calibrate, such as alike ones, ParityError if even repair does
    not meet the limits or FP8 misses them, ExportError, BundleError or OSError.
    """
    bundle.check_open_to_changes()  # before an hour of work
    has_fp8 = GRAPHS["fp8"] in bundle.manifest.files
    with_fp8 = with_fp8 or has_fp8
    held = None if again else cache.read(bundle)
    chosen = sample.draw(photos, settings.images, bundle.manifest.image_size, settings.seed)
    for warning in chosen.warnings:
        notify(warning)
    # Before any work: are the checks labelled, and is this calibration there already?
    limits = limits or int8_limits([photo.label for photo in chosen.checks])
    facts = {
        "count": len(chosen.calibration),
        "sha256": sample.digest(chosen.calibration),
    }
    wanted = {**dataclasses.asdict(settings), "limits": limits.to_json()}
    same = held is not None and _same_photos(held, facts) and held.settings == wanted
    if held is not None and same and with_fp8 == has_fp8:
        return Calibrated(bundle, held, limits, reused=True, warnings=chosen.warnings)
    skipped: list[str] = []
    model = onnx.load(bundle.graph("fp32"))
    warnings = list(chosen.warnings)

    def warn(lines: Sequence[str]) -> None:
        for line in lines:
            notify(line)
        warnings.extend(lines)

    frames = frames_of(bundle, chosen, skipped, bars, warn, strict)
    made = int8_plan.make(model, frames.batches, settings, bars("rounding layers"))
    judge = Judge(model, frames.checks, frames.labels, bars("running fp32"))
    varied = measure(frames.read, judge.codes, bundle.manifest.bits)
    warn(check_spread(varied, "to check with"))
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
    graphs = _graphs(model, made, in_float)
    fp16 = judge.parity(to_half(model), bars("checking FP16"))
    eight = None
    if with_fp8:
        graph = fp8.write(made)
        eight = judge.parity(graph, bars("checking FP8"))
        if broken := eight.breaches(limits):
            raise ParityError(
                f"FP8 cannot keep to the limits of this model: {'; '.join(broken)}; use --int8 or "
                "--fp16, or give wider limits"
            )
        graphs[GRAPHS["fp8"]] = graph.SerializeToString()
    parity = fixed.parity if fixed else first
    record = Calibration(
        graph_sha256=bundle.manifest.files[GRAPHS["fp32"]]["sha256"],
        settings=wanted,
        photos={**facts, "different": frames.different, "checks": dataclasses.asdict(varied)},
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
        written, record, limits, first, parity, fp16, fixed, False, skipped, warnings, varied, eight
    )


def _same_photos(held: Calibration, facts: Mapping[str, Any]) -> bool:
    """Tell whether photos calibrated, and were found to differ, which was not always asked."""
    return "different" in held.photos and facts.items() <= held.photos.items()


def _graphs(
    model: onnx.ModelProto, made: int8_plan.Int8Plan, in_float: list[str]
) -> dict[str, bytes]:
    int8 = qdq.write(made, in_float)
    graphs = {
        "int8": int8,
        "int8-u8": qdq.write(made, in_float, unsigned_activations=True),
        "int8-fp16": to_half(int8),
        "fp16": to_half(model),  # which still shares the weights of two looks
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
