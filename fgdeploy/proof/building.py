"""Engines of one bundle: choose a backend, compile, prove, time, say whether it is worth it."""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fgdeploy.bundle import Bundle
from fgdeploy.core.errors import EngineError, FgdeployError, ParityError, UsageError
from fgdeploy.core.progress import Bars, Notify, no_bars, silent
from fgdeploy.engines import BACKENDS, Built, available, build, open_engine
from fgdeploy.engines.backends import engine_type
from fgdeploy.engines.build_settings import BuildSettings
from fgdeploy.engines.choosing import default_engine
from fgdeploy.photos import Photo
from fgdeploy.proof import bench
from fgdeploy.proof.bench import Speed
from fgdeploy.proof.limits import Limits
from fgdeploy.proof.proving import Proof, prove, reference
from fgdeploy.proof.verdict import contest_of, verdict_of


@dataclass(frozen=True)
class Outcome:
    """What was built, the best first; proofs and speeds by the name BACKEND:PRECISION.

    reason: why this backend; verdict: whether the precision is worth it here, None if not timed;
    refused: why others were left out; skipped: why photos were. default: which engine of the bundle
    runs by itself from now on, and why, None where nothing that was built fits this machine.
    """

    built: Built
    name: str
    proof: Proof | None
    speeds: Sequence[Speed]
    reason: str
    verdict: str | None
    refused: dict[str, str] = field(default_factory=dict)
    skipped: Sequence[str] = ()
    default: tuple[str, str] | None = None


def build_proven(
    bundle: Bundle,
    precision: str,
    backend: str | None = None,
    settings: BuildSettings | None = None,
    photos: Sequence[Photo] = (),
    limits: Limits | None = None,
    timed: bool = True,
    notify: Notify = silent,
    bars: Bars = no_bars,
    strict: bool = False,
) -> Outcome:
    """Build an engine of a precision for this machine; without `backend` the best one.

    photos: to hold it against fp32 with; without them the frames in the bundle do. strict: raise
    ImageError for the first photo that cannot be read. The build of one that breaks its limits
    stays, marked as failed and never chosen by itself, nor is one that is no faster than fp32.
    Raises ParityError for broken limits, DataError for photos so alike that they prove nothing, and
    what `engines.build` raises.
    """
    settings = settings or BuildSettings()
    names = candidates(precision, backend)
    skipped: list[str] = []
    elsewhere = bool(settings.compute_capabilities)
    against = None if elsewhere else reference(bundle, photos, skipped, notify, bars, strict)
    built: dict[str, Built] = {}
    refused: dict[str, str] = {}
    for name in names:
        notify(f"compiling {name} {precision}")
        try:
            built[f"{name}:{precision}"] = build(bundle, name, precision, settings, notify)
        except FgdeployError as error:
            if len(names) == 1 or isinstance(error, UsageError):
                raise
            refused[name] = str(error)
    if not built:
        raise EngineError("; ".join(f"{name}: {why}" for name, why in refused.items()))
    if elsewhere:
        name, one = next(iter(built.items()))
        return Outcome(one, name, None, (), "named", None)
    proofs = {}
    if against is not None:
        proofs = prove(bundle, list(built), precision, against, limits, notify, bars)
    else:
        notify("parity was not measured: there are no photos; give some with --data")
    for name, proof in proofs.items():
        built[name] = _noted(built[name], parity=_measured(proof))
    kept = [name for name in built if name not in proofs or not proofs[name].broken]
    if not kept:
        lines = (f"{name}: {'; '.join(proof.broken)}" for name, proof in proofs.items())
        why = next(iter(proofs.values())).why
        raise ParityError(
            f"the engine does not keep to fp32: {' | '.join(lines)} (limits: {why}); it stays for "
            "parity --bisect but is never chosen by itself"
        )
    refused |= {name: "; ".join(proof.broken) for name, proof in proofs.items() if proof.broken}
    if not timed:
        first = kept[0]
        found = Outcome(built[first], first, proofs.get(first), (), _why(names), None, refused)
        return _ended(bundle, found, skipped)
    speeds = _timed(bundle, built, kept, precision, settings, notify, bars)
    by_name = {speed.name: speed for speed in speeds}
    best = min(kept, key=lambda name: _mean_ms(by_name[name]))
    compared = contest_of(speeds, settings.threads).to_json()
    built[best] = _noted(built[best], speed=by_name[best].to_json(), compared=compared)
    for name in set(built) - {best}:
        shutil.rmtree(built[name].folder, ignore_errors=True)
    reason = _why(names, best, [by_name[name] for name in kept])
    verdict = verdict_of(by_name[best], speeds)
    found = Outcome(built[best], best, proofs.get(best), speeds, reason, verdict, refused)
    return _ended(bundle, found, skipped)


def _ended(bundle: Bundle, found: Outcome, skipped: Sequence[str]) -> Outcome:
    try:
        default = default_engine(bundle)
    except EngineError:  # opening will say why
        default = None
    return dataclasses.replace(found, skipped=skipped, default=default)


def _measured(proof: Proof) -> dict[str, Any]:
    """Return a proof as an engine's record keeps it."""
    found = dataclasses.asdict(proof.parity) if proof.parity else {}
    if proof.int8 is not None:
        found["int8_bit_agreement"] = proof.int8.bit_agreement
    return {
        "passed": not proof.broken,
        "limits": proof.limits.to_json(),
        "limits_why": proof.why,
        "held_to": proof.used.words(),
        "variety": dataclasses.asdict(proof.variety),
        **found,
    }


def _noted(built: Built, **changes: Any) -> Built:
    """Write what was measured into an engine's record."""
    assert built.record is not None  # `build` gives one
    entry = dataclasses.replace(built.record, **changes)
    entry.write(built.folder)
    return dataclasses.replace(built, record=entry)


def candidates(precision: str, backend: str | None = None) -> list[str]:
    """Return the backends worth building here: TensorRT's first where a GPU is, else the CPU's.

    backend: the only one, unless it is None or `auto`. Raises UsageError, MissingDependency or
    EngineError for one that is not known, not installed or broken, and EngineError where none
    computes the precision as the graph says.
    """
    if backend is not None and backend != "auto":
        engine_type(backend).check_arithmetic(precision)
        return [backend]
    names = [name for name in available() if precision in engine_type(name).graphs]
    gpu = [name for name in names if BACKENDS[name].gpu]
    chosen = gpu[:1] or names
    if not chosen:
        raise UsageError(
            f"no backend that is installed here has the precision {precision}; see: fgdeploy doctor"
        )
    refusals = [why for name in chosen if (why := _refusal(name, precision))]
    if len(refusals) == len(chosen):
        raise EngineError("; ".join(refusals))
    return chosen


def _refusal(name: str, precision: str) -> str | None:
    try:
        engine_type(name).check_arithmetic(precision)
    except EngineError as error:
        return str(error)
    return None


def _why(names: Sequence[str], best: str = "", speeds: Sequence[Speed] = ()) -> str:
    if len(names) == 1:
        return "the one asked for or the only one for this machine"
    if not speeds:
        return "the first that can run here; not timed"
    first = speeds[0].latencies[0].batch
    took = ", ".join(f"{one.name} {one.at(first).p50_ms:.1f} ms" for one in speeds)
    return f"the fastest here: {took} at batch {first}"


def _mean_ms(speed: Speed) -> float:
    """Return the geometric mean of the medians over the batch sizes."""
    return math.exp(sum(math.log(one.p50_ms) for one in speed.latencies) / len(speed.latencies))


def _timed(
    bundle: Bundle,
    built: dict[str, Built],
    kept: Sequence[str],
    precision: str,
    settings: BuildSettings,
    notify: Notify,
    bars: Bars,
) -> list[Speed]:
    """Time the engines built against fp32 and half precision in the same backends."""
    names = list(kept)
    own = dict.fromkeys(name.partition(":")[0] for name in kept)
    rivals = [f"{backend}:{other}" for backend in own for other in ("fp32", "fp16", "bf16")]
    # What would run without an engine competes as well, whatever backend was asked for.
    rivals += [f"{backend}:fp32" for backend in _alike(list(own)) if backend not in own]
    for rival in rivals:
        if not rival.endswith(f":{precision}") and _can_run(bundle, rival, settings, notify):
            names.append(rival)
    return bench.compare(
        bundle.path, names, settings.batches, settings.threads, progress=bars("timing")
    )


def _can_run(bundle: Bundle, name: str, settings: BuildSettings, notify: Notify) -> bool:
    """Tell whether a rival runs here; one that must be compiled for that is compiled and kept."""
    backend, _, precision = name.partition(":")
    kind = engine_type(backend)
    if precision not in kind.graphs or (precision == "fp16" and not kind.gpu):
        return False  # on a CPU, FP16 graphs run as fp32: bf16 is its half precision
    try:
        if not kind.portable:
            notify(f"compiling {backend} {precision} to compare with")
            build(bundle, backend, precision, settings)
        open_engine(bundle, name).close()
    except FgdeployError:
        return False
    return True


def _alike(backends: Sequence[str]) -> list[str]:
    """Return the backends that open a graph by themselves on the same kind of device."""
    gpu = any(BACKENDS[name].gpu for name in backends)
    return [
        name for name in available() if BACKENDS[name].gpu == gpu and engine_type(name).portable
    ]
