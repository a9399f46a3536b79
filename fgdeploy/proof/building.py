"""`fgdeploy build-engine`: choose a backend, compile, prove, time, say whether it is worth it."""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fgdeploy.bundle import Bundle, checks
from fgdeploy.core.errors import EngineError, FgdeployError, ParityError, UsageError
from fgdeploy.engines import BACKENDS, Built, available, build, open_engine
from fgdeploy.engines.backends import engine_type
from fgdeploy.engines.build_settings import BuildSettings
from fgdeploy.photos import Photo, decode_all
from fgdeploy.proof import bench
from fgdeploy.proof.bench import Speed
from fgdeploy.proof.parity import Limits, Parity, compare

PHOTOS = 1024
# What an engine keeps to where nothing else is asked for; INT8 has its calibration's limits.
LIMITS = {
    "fp32": Limits(min_bit_agreement=0.999),
    "fp16": Limits(min_bit_agreement=0.995),
    "bf16": Limits(min_bit_agreement=0.97),
    "int8": Limits(min_bit_agreement=0.98),
}
_WIDEST = 2.0  # times a limit, where few photos tell
_SAME = 1.05  # times as fast is no difference
_LONGEST_HEADER = 10_000  # characters of a CSV's first line

Bars = Callable[[str], Callable[[int, int], None]]


@dataclass(frozen=True)
class Proof:
    """An engine against fp32: the photos' parity, the limits, and those that it breaks.

    parity: None where there were no numbers to compare, which breaks every limit.
    """

    parity: Parity | None
    limits: Limits
    broken: list[str]


@dataclass(frozen=True)
class Outcome:
    """What was built, the best first; proofs and speeds by the name BACKEND:PRECISION.

    reason: why this backend; verdict: whether the precision is worth it here, None if not timed;
    refused: why others were left out; skipped: why photos were.
    """

    built: Built
    name: str
    proof: Proof | None
    speeds: Sequence[Speed]
    reason: str
    verdict: str | None
    refused: dict[str, str] = field(default_factory=dict)
    skipped: Sequence[str] = ()


def build_engine(
    bundle: Bundle,
    precision: str,
    backend: str | None = None,
    settings: BuildSettings | None = None,
    photos: Sequence[Photo] = (),
    limits: Limits | None = None,
    timed: bool = True,
    notify: Callable[[str], None] = lambda message: None,
    bars: Bars = lambda label: lambda done, total: None,
) -> Outcome:
    """Build an engine of a precision for this machine; without `backend` the best one.

    photos: to hold it against fp32 with; without them the frames in the bundle do. The build of
    one that breaks its limits stays, marked as failed and never chosen by itself. Raises
    ParityError for that, and what `engines.build` raises.
    """
    settings = settings or BuildSettings()
    names = candidates(precision, backend)
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
    if settings.compute_capabilities:
        name, one = next(iter(built.items()))
        return Outcome(one, name, None, (), "named", None)
    skipped: list[str] = []
    proofs = _proofs(bundle, list(built), precision, photos, limits, skipped, notify, bars)
    for name, proof in proofs.items():
        measured = dataclasses.asdict(proof.parity) if proof.parity else {}
        built[name] = _noted(built[name], parity={"passed": not proof.broken, **measured})
    sound = [name for name in built if name not in proofs or not proofs[name].broken]
    if not sound:
        lines = (f"{name}: {'; '.join(proof.broken)}" for name, proof in proofs.items())
        raise ParityError(
            f"the engine does not keep to fp32: {' | '.join(lines)}; it stays for parity --bisect "
            "but is never chosen by itself"
        )
    refused |= {name: "; ".join(proof.broken) for name, proof in proofs.items() if proof.broken}
    if not timed:
        first = sound[0]
        why = _why(names)
        return Outcome(built[first], first, proofs.get(first), (), why, None, refused, skipped)
    speeds = _timed(bundle, built, sound, precision, settings, notify, bars)
    by_name = {speed.name: speed for speed in speeds}
    best = min(sound, key=lambda name: _mean_ms(by_name[name]))
    built[best] = _noted(built[best], speed=by_name[best].to_json())
    for name in set(built) - {best}:
        shutil.rmtree(built[name].folder, ignore_errors=True)
    reason = _why(names, best, [by_name[name] for name in sound])
    verdict = _verdict(by_name[best], speeds)
    return Outcome(built[best], best, proofs.get(best), speeds, reason, verdict, refused, skipped)


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


def _proofs(
    bundle: Bundle,
    names: Sequence[str],
    precision: str,
    photos: Sequence[Photo],
    limits: Limits | None,
    skipped: list[str],
    notify: Callable[[str], None],
    bars: Bars,
) -> dict[str, Proof]:
    reference, labels = _reference(bundle, photos[:PHOTOS], skipped, bars)
    if reference is None:
        notify("parity was not measured: there are no photos; give some with --data")
        return {}
    limits = limits or _widened(limits_of(bundle, precision), len(reference.frames))
    proofs = {}
    for name in names:
        try:
            with open_engine(bundle, name) as engine:
                found = engine.run_all(reference.frames, progress=bars(f"parity of {name}"))
            parity = compare(reference.hashes, reference.codes, found.hash, found.code, labels)
        except (EngineError, ParityError) as error:  # it fails on real frames, or gives NaN
            proofs[name] = Proof(None, limits, [str(error)])
        else:
            proofs[name] = Proof(parity, limits, parity.breaches(limits))
    return proofs


def _widened(limits: Limits, photos: int) -> Limits:
    """Return limits for fewer photos than `PHOTOS`, whose answers scatter by 1/sqrt(photos)."""
    factor = min(max(math.sqrt(PHOTOS / photos), 1.0), _WIDEST)
    drop, bits = limits.max_map_drop, limits.min_bit_agreement
    return dataclasses.replace(
        limits,
        max_map_drop=None if drop is None else factor * drop,
        min_bit_agreement=None if bits is None else 1 - factor * (1 - bits),
    )


def limits_of(bundle: Bundle, precision: str) -> Limits:
    """Return the limits of a precision: of INT8 those that its calibration kept."""
    from fgdeploy.calibration import cache

    held = cache.read(bundle) if precision == "int8" else None
    return Limits.from_json(held.settings["limits"]) if held else LIMITS[precision]


def _reference(
    bundle: Bundle, photos: Sequence[Photo], skipped: list[str], bars: Bars
) -> tuple[checks.Checks | None, list[str | None] | None]:
    """Return frames and what fp32 makes of them: of photos, or those that the bundle carries."""
    portable = [name for name in available() if not BACKENDS[name].gpu]
    if not photos or not portable:
        return checks.read(bundle), None
    kept, frames = decode_all(photos, bundle.manifest.preprocess, skipped)
    if not kept:
        return checks.read(bundle), None
    with open_engine(bundle, portable[0], "fp32") as engine:
        outputs = engine.run_all(frames, progress=bars("running fp32"))
    return checks.Checks(frames, outputs.hash, outputs.code), [photo.label for photo in kept]


def _timed(
    bundle: Bundle,
    built: dict[str, Built],
    sound: Sequence[str],
    precision: str,
    settings: BuildSettings,
    notify: Callable[[str], None],
    bars: Bars,
) -> list[Speed]:
    """Time the engines built against fp32 and half precision in the same backends."""
    names = list(sound)
    for name in sound:
        backend = name.partition(":")[0]
        for other in ("fp32", "fp16", "bf16"):
            rival = f"{backend}:{other}"
            if other != precision and _can_run(bundle, rival, settings, notify):
                names.append(rival)
    return bench.compare(
        bundle.path, names, settings.batches, settings.threads, progress=bars("timing")
    )


def _can_run(
    bundle: Bundle, name: str, settings: BuildSettings, notify: Callable[[str], None]
) -> bool:
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


def _verdict(best: Speed, speeds: Sequence[Speed]) -> str:
    """Say how the best engine compares with the others of its backend, at each batch size."""
    backend, _, precision = best.name.partition(":")
    rivals = [one for one in speeds if one.name != best.name and one.name.startswith(f"{backend}:")]
    if not rivals:
        return "there was nothing in this backend to compare with"
    lines = []
    for latency in best.latencies:
        rival = min(rivals, key=lambda one: one.at(latency.batch).p50_ms)
        ratio = rival.at(latency.batch).p50_ms / latency.p50_ms
        other = rival.name.partition(":")[2]
        if ratio >= _SAME:
            lines.append(f"{ratio:.1f}x as fast as {other} at batch {latency.batch}")
        else:
            lines.append(
                f"NOT worth it at batch {latency.batch}: {other} takes "
                f"{rival.at(latency.batch).p50_ms:.1f} ms, {precision} {latency.p50_ms:.1f} ms"
            )
    return f"{precision} is {'; '.join(lines)}"


def find_photos(folder: Path) -> Path | None:
    """Return the one place in a folder where photos lie: a CSV of paths and classes, or a folder.

    None if there is none. Raises UsageError if there are several.
    """
    from fgdeploy.photos import images

    tables = (path for path in sorted(folder.glob("*.csv")) if path.is_file())
    places = [path for path in tables if _lists_photos(path)]
    for path in sorted(folder.iterdir()):
        if path.is_dir() and path.suffix not in (".fgd", ".fgi") and path.name[0] not in "._":
            inside = path / "split.csv"
            if inside.is_file() and _lists_photos(inside):
                places.append(inside)
            elif any(True for _ in images.find(path)):
                places.append(path)
    if len(places) > 1:
        raise UsageError(
            f"photos lie in {', '.join(str(path.relative_to(folder)) for path in places[:4])}; "
            "name one with --data"
        )
    return places[0] if places else None


def _lists_photos(path: Path) -> bool:
    with open(path, encoding="utf-8-sig", errors="replace") as stream:
        line = stream.readline(_LONGEST_HEADER)
    header = [name.strip().strip('"').lower() for name in line.split(",")]
    return "path" in header and "class" in header
