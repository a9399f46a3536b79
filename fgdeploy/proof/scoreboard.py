"""A whole benchmark: contenders timed in turn, beside what the machine can do at most."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fgdeploy import __version__, doctor
from fgdeploy.bundle import Bundle
from fgdeploy.core.errors import EngineError, UsageError
from fgdeploy.core.progress import Bars, Notify, no_bars, silent
from fgdeploy.engines import open_engine
from fgdeploy.engines.build_settings import MAX_BATCH, check_threads
from fgdeploy.photos import Photo, decode_all, spread
from fgdeploy.proof import bench, machine_peaks
from fgdeploy.proof.bench import Calls, Measured
from fgdeploy.proof.comparing import choose_reference, compare_engines
from fgdeploy.proof.contenders import Contender
from fgdeploy.proof.lineup import Lineup, line_up
from fgdeploy.proof.machine_peaks import TORCH, Peaks
from fgdeploy.proof.parity import Parity

_JUDGED = 256  # photos for the accuracy of an engine


@dataclass(frozen=True)
class BenchSettings:
    """How to time. Raises UsageError for what can never be right.

    batches: sizes, in the order of the table; threads: CPU threads, None for all cores; seconds:
    for each batch size in each round; base: the contender that ratios are against, None for the
    first; peaks: whether to measure the machine too; device: cpu or cuda, where rivals run.
    """

    batches: tuple[int, ...] = (1, 8)
    threads: int | None = None
    rounds: int = bench.ROUNDS
    seconds: float = bench.SECONDS
    base: str | None = None
    peaks: bool = True
    device: str = "cpu"

    def __post_init__(self) -> None:
        if not self.batches or not all(1 <= size <= MAX_BATCH for size in self.batches):
            raise UsageError(
                f"--batch {','.join(map(str, self.batches))}: expected sizes from 1 to "
                f"{MAX_BATCH}, such as 1,8"
            )
        object.__setattr__(self, "batches", tuple(dict.fromkeys(self.batches)))
        if self.rounds < 1 or not 0 < self.seconds <= 3600:
            raise UsageError(
                f"--rounds {self.rounds} --seconds {self.seconds:g}: expected one round or more "
                "of up to an hour"
            )
        check_threads(self.threads)


@dataclass(frozen=True)
class Line:
    """A contender at a batch size, beside the base and the machine.

    ratio: how many times as fast as the base at the same batch size, by medians; gmacs_per_s: 1e9
    multiply-accumulates per second; of_peak: its share of what its engine reaches in a product of
    big matrices. None where that is not known.
    """

    measured: Measured
    calls: Calls
    ratio: float | None
    gmacs_per_s: float | None
    of_peak: float | None


@dataclass(frozen=True)
class Scoreboard:
    """What a benchmark found. not_run: reasons by name. accuracy: against fp32, by name."""

    settings: BenchSettings
    lines: tuple[Line, ...]
    not_run: Mapping[str, str]
    base: str
    peaks: Peaks | None = None
    accuracy: Mapping[str, Parity] = field(default_factory=dict)
    skipped: Sequence[str] = ()

    def measured(self) -> list[Measured]:
        """Return the contenders that ran, in their order."""
        return list({one.measured.contender.name: one.measured for one in self.lines}.values())

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON-ready values, with what this machine is."""
        here = dataclasses.asdict(doctor.examine())
        versions = {one["name"]: one["version"] for one in here.pop("packages") if one["version"]}
        return {
            "machine": here,
            "versions": {"fgdeploy": __version__, "numpy": np.__version__, **versions},
            **{name: getattr(self.settings, name) for name in ("threads", "rounds", "seconds")},
            "base": self.base,
            "contenders": [self._entry(one) for one in self.measured()],
            "not_run": dict(self.not_run),
            "peaks": self.peaks.to_json() if self.peaks else None,
        }

    def _entry(self, one: Measured) -> dict[str, Any]:
        contender = one.contender
        parity = self.accuracy.get(contender.name)
        lines = [line for line in self.lines if line.measured is one]
        return {
            "name": contender.name,
            "kind": contender.kind,
            "source": contender.source,
            "engine": contender.engine,
            "runs": one.runs,
            "macs": contender.macs,
            "notes": list(contender.notes),
            "peak_mib": round(one.peak_mib, 1),
            "parity": dataclasses.asdict(parity) if parity else None,
            "batches": [
                {
                    **line.calls.to_json(),
                    "first_call_s": round(one.first_s[line.calls.batch], 3),
                    "ratio": _rounded(line.ratio),
                    "gmacs_per_s": _rounded(line.gmacs_per_s),
                    "of_peak": _rounded(line.of_peak),
                }
                for line in lines
            ],
        }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def run_benchmark(
    sources: Sequence[Path],
    engines: Sequence[str] = (),
    against: Sequence[str] = (),
    settings: BenchSettings | None = None,
    photos: Sequence[Photo] = (),
    notify: Notify = silent,
    bars: Bars = no_bars,
) -> Scoreboard:
    """Time everything that was named beside each other, as `line_up` reads it.

    photos: to run instead of random frames, and to hold each engine to fp32 with. Raises
    EngineError if nothing ran, UsageError for a base that is none, and what `line_up` raises.
    """
    settings = settings or BenchSettings()
    with tempfile.TemporaryDirectory(prefix="fgdeploy-") as name:
        folder = Path(name)
        lineup = line_up(
            sources, settings.batches, engines, against, settings.device, folder, notify
        )
        base = _base(lineup.contenders, settings.base)
        skipped: list[str] = []
        if photos:
            _give_frames(lineup, photos, settings, folder, skipped)
        raced = bench.race(
            lineup.contenders,
            settings.threads,
            settings.rounds,
            settings.seconds,
            bars("timing"),
        )
        failed = {**lineup.left_out, **raced.failed}
        if not raced.measured:
            raise EngineError(_nothing(failed))
        peaks = None
        if settings.peaks:
            notify("measuring what this machine reaches")
            keys = [_peak_of(one.contender) for one in raced.measured if one.contender.macs]
            peaks = machine_peaks.measure_peaks(keys, settings.threads, folder)
    accuracy = _accuracy(lineup, raced.measured, photos, bars) if photos else {}
    if base is None or all(one.contender.name != base for one in raced.measured):
        base = raced.measured[0].contender.name
    lines = _lines(raced.measured, base, peaks, settings.batches)
    return Scoreboard(settings, lines, failed, base, peaks, accuracy, skipped)


def _base(contenders: Sequence[Contender], wanted: str | None) -> str | None:
    names = [one.name for one in contenders]
    if wanted is None or wanted in names:
        return wanted or (names[0] if names else None)
    found = [name for name in names if wanted in name]
    if len(found) != 1:
        raise UsageError(
            f"--base {wanted}: {'none' if not found else 'several'} of the contenders; choose "
            f"{', '.join(found or names)}"
        )
    return found[0]


def _nothing(failed: Mapping[str, str]) -> str:
    reasons = "; ".join(f"{name}: {why}" for name, why in failed.items())
    return (
        f"nothing could be timed here: {reasons or 'no engine is installed'}; see: fgdeploy doctor"
    )


def _give_frames(
    lineup: Lineup,
    photos: Sequence[Photo],
    settings: BenchSettings,
    folder: Path,
    skipped: list[str],
) -> None:
    """Write the frames of some photos for each bundle, and let its contenders run them."""
    for number, (path, bundle) in enumerate(lineup.bundles.items()):
        some = spread(photos, max(settings.batches))
        _, frames = decode_all(some, bundle.manifest.preprocess, skipped)
        if not len(frames):
            raise UsageError(f"none of the photos can be read; the first: {skipped[0]}")
        target = folder / f"frames-{number}.npy"
        np.save(target, frames)
        lineup.contenders = [
            dataclasses.replace(one, frames=str(target))
            if one.kind == "bundle" and one.source == path
            else one
            for one in lineup.contenders
        ]


def _accuracy(
    lineup: Lineup, measured: Sequence[Measured], photos: Sequence[Photo], bars: Bars
) -> dict[str, Parity]:
    """Hold each engine of a bundle to the bundle's fp32 on the same photos."""
    found: dict[str, Parity] = {}
    some = spread(photos, _JUDGED)
    for one in measured:
        bundle: Bundle | None = lineup.bundles.get(one.contender.source)
        if bundle is None:
            continue
        with (
            open_engine(bundle, choose_reference()) as reference,
            open_engine(bundle, one.contender.engine) as engine,
        ):
            made = bars(f"comparing {one.contender.name}")
            found[one.contender.name] = compare_engines(
                bundle, reference, engine, some, progress=made
            ).parity
    return found


def _peak_of(contender: Contender) -> str:
    """Return the engine whose product shows what a contender could reach."""
    return TORCH if contender.kind == "timm" else contender.engine


def _lines(
    measured: Sequence[Measured], base: str, peaks: Peaks | None, batches: Sequence[int]
) -> tuple[Line, ...]:
    rival = next(one for one in measured if one.contender.name == base)
    lines = []
    for batch in batches:
        against = rival.at(batch)
        for one in measured:
            if (calls := one.at(batch)) is None:
                continue
            took, macs = calls.percentile(50), one.contender.macs
            rate = None if macs is None else 1e3 * macs * batch / took
            peak = peaks.macs_per_s.get(_peak_of(one.contender)) if peaks and rate else None
            lines.append(
                Line(
                    one,
                    calls,
                    None if against is None else against.percentile(50) / took,
                    None if rate is None else rate / 1e9,
                    None if peak is None or rate is None else rate / peak,
                )
            )
    return tuple(lines)
