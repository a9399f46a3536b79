"""Open two engines by name and hold one against the other on the same frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fgdeploy.bundle import Bundle
from fgdeploy.core.errors import BundleError, DataError, EngineError, MissingDependency
from fgdeploy.core.progress import Progress, no_progress
from fgdeploy.core.text import counted
from fgdeploy.engines import BACKENDS, Engine, Outputs, available, find, open_engine
from fgdeploy.engines.base import BATCH, GraphEngine
from fgdeploy.photos import Photo, batches, decode_all
from fgdeploy.proof import variety
from fgdeploy.proof.limits import Used, limits_to_use
from fgdeploy.proof.parity import Parity, compare, further
from fgdeploy.proof.variety import Variety


@dataclass(frozen=True)
class LayerError:
    """One INT8 layer: its matrix K x N, whether it is INT8, and what it does to the hash alone.

    hash_error: relative, of all hashes together; bits_changed: a fraction; None for layers that
    are in float.
    """

    layer: str
    size: str
    int8: bool
    hash_error: float | None
    bits_changed: float | None


def open_by_name(bundle: Bundle, name: str, checkpoint: Path | None = None) -> Engine:
    """Open `backend[:precision]`, or `pytorch` rebuilt from `checkpoint`.

    Raises what `open_engine` raises, and for pytorch what `export.exporter.rebuild` raises.
    """
    backend, _, precision = name.partition(":")
    if backend != "pytorch":
        return open_engine(bundle, backend, precision or "fp32")
    try:
        from fgdeploy.export.exporter import rebuild
    except ModuleNotFoundError as error:
        raise MissingDependency(error.name or "torch", "export", "the pytorch reference") from None
    return rebuild(bundle, checkpoint)


def choose_reference() -> str:
    """Return the first backend that opens a graph by itself, in fp32."""
    portable = (name for name in available() if not BACKENDS[name].gpu)
    return f"{next(portable, 'onnxruntime')}:fp32"


def choose_candidate(reference: str) -> str:
    """Return the first other backend that is installed. Raises EngineError if there is none."""
    other = [name for name in available() if name != reference.partition(":")[0]]
    if not other:
        raise EngineError(
            'there is no second engine to compare with; run: pip install "fgdeploy[cpu]", '
            "or name one with --candidate"
        )
    return f"{other[0]}:fp32"


def limits_for(bundle: Bundle, photos: int, *engines: Engine) -> Used:
    """Return the limits that these engines are held to on so many photos, with the reason.

    Those of building. One that was built for other limits, which were named then, keeps to these.
    """
    records = [built.record for built in find(bundle)]
    compiled = [
        record
        for engine in engines
        for record in records
        if record is not None
        and record.name == f"{engine.backend}:{engine.precision}"
        and isinstance(engine, GraphEngine)
        and engine.source.compiled
    ]
    precisions = [engine.precision for engine in engines]
    built = compiled[-1] if compiled else None
    return limits_to_use(bundle, precisions, photos, built=built)


@dataclass(frozen=True)
class Comparison:
    """Two engines on the same photos. skipped: why photos were left out. warnings: one line each.

    parity: on the photos that differ; alike ones count once.
    """

    parity: Parity
    variety: Variety
    skipped: list[str]
    warnings: Sequence[str]


def compare_engines(
    bundle: Bundle,
    reference: Engine,
    candidate: Engine,
    photos: Sequence[Photo],
    strict: bool = False,
    progress: Progress = no_progress,
) -> Comparison:
    """Compare two engines on the same photos.

    Each frame is decoded once and goes to both. Raises ImageError if `strict`, DataError if no
    photo can be read or so few differ that they prove nothing.
    """
    left: list[Outputs] = []
    right: list[Outputs] = []
    sketches: list[variety.Sketches] = []
    labels: list[str | None] = []
    skipped: list[str] = []
    make = bundle.manifest.preprocess
    for group, frames in batches(photos, make, BATCH, skipped, strict, progress):
        left.append(reference.run_all(frames))
        right.append(candidate.run_all(frames))
        sketches.append(variety.sketch(frames))
        labels.extend(photo.label for photo in group)
    if not photos:
        raise DataError("there are no photos to compare; check the list")
    if not left:
        raise DataError(
            f"none of {counted(len(photos), 'photo')} can be read; the first: {skipped[0]}"
        )
    rows = variety.different(np.concatenate(sketches))
    one, other = (
        {name: values[rows] for name, values in Outputs.concatenate(parts).arrays().items()}
        for parts in (left, right)
    )
    found = variety.measure(len(labels), one["code"], bundle.manifest.bits)
    warnings = variety.check(found, "to compare on")
    kept = [labels[row] for row in rows]
    others = further(one, other)
    parity = compare(one["hash"], one["code"], other["hash"], other["code"], kept, others)
    return Comparison(parity, found, skipped, warnings)


def bisect(
    bundle: Bundle,
    photos: Sequence[Photo],
    skipped: list[str],
    progress: Progress = no_progress,
) -> list[LayerError]:
    """Return what each INT8 layer alone does to the hashes of photos, the worst first.

    Raises MissingDependency without the onnx package, BundleError if the bundle holds no INT8
    graph or a stale calibration, DataError if no photo can be read.
    """
    try:
        import onnx

        from fgdeploy.calibration import cache, int8_plan
        from fgdeploy.calibration.judge import Judge
        from fgdeploy.calibration.repair import sensitivities
    except ModuleNotFoundError as error:
        raise MissingDependency(error.name or "onnx", "calibrate", "parity --bisect") from None
    record = cache.read(bundle)
    int8 = bundle.graph("int8")
    if record is None:
        raise BundleError(
            f"{bundle.path.name} has no {cache.FILE} to look into; run: fgdeploy calibrate --again"
        )
    kept, frames = decode_all(photos, bundle.manifest.preprocess, skipped)
    if not kept:
        raise DataError(
            f"none of {counted(len(photos), 'photo')} can be read; the first: {skipped[0]}"
        )
    model = onnx.load(bundle.graph("fp32"))
    made = int8_plan.restore(model, onnx.load(int8), record.balances())
    judge = Judge(model, frames, [photo.label for photo in kept])
    sizes = {
        name: f"{layer.linear.fan_in} x {layer.linear.fan_out}"
        for name, layer in made.layers.items()
    }
    found = [
        LayerError(one.layer, sizes[one.layer], True, one.hash_error, one.bits_changed)
        for one in sensitivities(made, judge, progress)
    ]
    in_float = sorted(made.in_float)
    return found + [LayerError(name, sizes[name], False, None, None) for name in in_float]
