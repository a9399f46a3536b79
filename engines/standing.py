"""Which of the engines that fit is run first, and why, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fgdeploy.engines.backends import BACKENDS, engine_type
from fgdeploy.engines.contest import WORTH, Contest
from fgdeploy.engines.record import Built, Record

Fitting = tuple[Built, Record]


@dataclass(frozen=True)
class Choice:
    """An engine to run: one that was built, or None for the fp32 graph opened in a backend."""

    fitting: Fitting | None
    backend: str
    precision: str
    reason: str

    @property
    def name(self) -> str:
        """Return BACKEND:PRECISION."""
        return f"{self.backend}:{self.precision}"


@dataclass(frozen=True)
class _Standing:
    """An engine with the fp32 engine that its timing holds it against, None where there is none."""

    fitting: Fitting
    contest: Contest | None
    rival: str | None

    @property
    def entry(self) -> Record:
        return self.fitting[1]

    @property
    def gain(self) -> float | None:
        if self.contest is None or self.rival is None:
            return None
        return self.contest.gain(self.entry.name, self.rival)

    @property
    def outpaced(self) -> bool:
        return self.entry.precision != "fp32" and self.gain is not None and self.gain < WORTH

    def key(self) -> tuple[bool, bool, float, bool, float, int, str]:
        built, entry = self.fitting
        gain, place = self.gain, list(BACKENDS).index(entry.backend)
        timed, took = entry.p50_ms is None, entry.p50_ms or 0.0
        return entry.failed, gain is None, -(gain or 0.0), timed, took, place, built.folder.name


def choices(fitting: Sequence[Fitting], free: bool, backends: Sequence[str]) -> list[Choice]:
    """Return what may run, the best first: engines by their gain over fp32, then the others.

    free: no precision was asked for, so one that does not pay makes way for fp32, built or opened
    directly in one of `backends`.
    """
    compiled = {entry.name: (built, entry) for built, entry in fitting}
    standings = sorted((_standing(item, compiled, backends) for item in fitting), key=_Standing.key)
    slow = [one for one in standings if free and one.outpaced]
    found = [
        Choice(one.fitting, one.entry.backend, one.entry.precision, _why(one.entry, len(fitting)))
        for one in standings
        if one not in slow
    ]
    if not slow:
        return found
    reason = "; ".join(_slower(one) for one in slow)
    backend = str(slow[0].rival).partition(":")[0]
    fp32 = Choice(compiled.get(str(slow[0].rival)), backend, "fp32", f"fp32: {reason}")
    paying = sum(_pays(one) for one in standings)
    return [*found[:paying], fp32, *(one for one in found[paying:] if one.name != fp32.name)]


def _standing(item: Fitting, compiled: dict[str, Fitting], backends: Sequence[str]) -> _Standing:
    compared = item[1].compared
    if compared is None:
        return _Standing(item, None, None)
    contest = Contest.read(compared)
    if item[1].name not in contest.ms:
        return _Standing(item, None, None)
    can = [
        name
        for name in backends
        if f"{name}:fp32" in compiled or (f"{name}:fp32" in contest.ms and _opens(name))
    ]
    return _Standing(item, contest, contest.fp32(can))


def _opens(backend: str) -> bool:
    return engine_type(backend).portable


def _pays(one: _Standing) -> bool:
    known = not one.entry.failed and one.entry.precision != "fp32" and one.gain is not None
    return known and not one.outpaced


def _slower(one: _Standing) -> str:
    assert one.contest is not None and one.rival is not None
    how = one.contest.words(one.entry.name, one.rival)
    return f"{one.entry.precision.upper()} built here is {how}"


def _why(entry: Record, count: int) -> str:
    if entry.p50_ms is None:
        words = f"built for this machine, 1 of {count}, not measured yet"
    else:
        words = f"fastest of {count} built for this machine: {entry.p50_ms:.1f} ms"
    return f"{words}; held to {entry.held_to}" if entry.held_to else words
