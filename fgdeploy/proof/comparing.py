"""Open two engines by name and hold one against the other on the same frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fgdeploy.bundle import Bundle, Manifest
from fgdeploy.core.errors import BundleError, DataError, EngineError, MissingDependency
from fgdeploy.core.progress import Progress, no_progress
from fgdeploy.core.text import counted
from fgdeploy.engines import BACKENDS, Engine, Outputs, available, open_engine
from fgdeploy.engines.base import BATCH
from fgdeploy.photos import Photo, batches, decode_all
from fgdeploy.proof.parity import Parity, compare, further


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


def limits_for(manifest: Manifest, *engines: Engine) -> dict[str, float]:
    """Return the limits of a manifest that these engines are held to, by name.

    They were set for fp32. An embedding of INT8 is further from fp32's than its bits tell, so the
    limit of further outputs is left out where an engine has another precision.
    """
    limits = dict(manifest.limits)
    if any(engine.precision != "fp32" for engine in engines):
        limits.pop("max_output_error", None)
    return limits


def compare_engines(
    bundle: Bundle,
    reference: Engine,
    candidate: Engine,
    photos: Sequence[Photo],
    strict: bool = False,
    progress: Progress = no_progress,
) -> tuple[Parity, list[str]]:
    """Compare two engines on the same photos; also returns why photos were skipped.

    Each frame is decoded once and goes to both. Raises ImageError if `strict`, DataError if no
    photo can be read.
    """
    left: list[Outputs] = []
    right: list[Outputs] = []
    labels: list[str | None] = []
    skipped: list[str] = []
    make = bundle.manifest.preprocess
    for group, frames in batches(photos, make, BATCH, skipped, strict, progress):
        left.append(reference.run_all(frames))
        right.append(candidate.run_all(frames))
        labels.extend(photo.label for photo in group)
    if not photos:
        raise DataError("there are no photos to compare; check the list")
    if not left:
        raise DataError(
            f"none of {counted(len(photos), 'photo')} can be read; the first: {skipped[0]}"
        )
    one, other = Outputs.concatenate(left), Outputs.concatenate(right)
    others = further(one.arrays(), other.arrays())
    return compare(one.hash, one.code, other.hash, other.code, labels, others), skipped


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
