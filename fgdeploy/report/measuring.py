"""A bundle measured for its report: every engine on the same photos, and all of them timed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fgdeploy.bundle import Bundle
from fgdeploy.core.errors import DataError, EngineError, UsageError
from fgdeploy.core.progress import Bars, Notify, no_bars, silent
from fgdeploy.core.text import counted
from fgdeploy.engines.base import Outputs
from fgdeploy.engines.choosing import default_engine
from fgdeploy.evaluation.metrics import Detail, evaluate_in_detail
from fgdeploy.evaluation.protocol import (
    ASYM_SIGN,
    SYMMETRIC,
    Evaluation,
    Sides,
    hash_sides,
    score_sides,
)
from fgdeploy.hasher import Hasher, load
from fgdeploy.photos import Photo
from fgdeploy.proof.comparing import choose_reference
from fgdeploy.proof.lineup import line_up
from fgdeploy.proof.parity import Parity, compare
from fgdeploy.proof.scoreboard import BenchSettings, Scoreboard, run_benchmark
from fgdeploy.report.failing import Failing, Searched, find_failures
from fgdeploy.retrieval import Index

AT = (1, 2, 4, 8, 16, 32, 64)  # the k of recall and precision
INDEX = "index"  # the protocol against a gallery index
_COMPARED = 1024  # photos for the parity of two engines


@dataclass(frozen=True)
class ReportSettings:
    """What a report measures. Raises UsageError.

    backends: BACKEND[:PRECISION]; by default those built, or else the graphs that open directly;
    the first is shown in full, by default the one that runs by default. queries, gallery: splits.
    index: a gallery that is searched too. timed: whether engines are timed, at `batches`. pictures:
    most queries that are shown with photos. strict, allow_leaks: as in an evaluation.
    """

    backends: tuple[str, ...] = ()
    queries: str = "test"
    gallery: str = "train"
    index: Path | None = None
    timed: bool = True
    batches: tuple[int, ...] = (1, 8)
    rounds: int = 3
    seconds: float = 1.0
    threads: int | None = None
    pictures: int = 12
    strict: bool = False
    allow_leaks: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.pictures <= 100:
            raise UsageError(f"--pictures {self.pictures}: expected 0 to 100")
        self.bench()

    def bench(self) -> BenchSettings:
        """Return how engines are timed."""
        return BenchSettings(self.batches, self.threads, self.rounds, self.seconds, peaks=False)


@dataclass(frozen=True)
class EngineScores:
    """What an engine reached. protocols: by name; parity: against fp32, None for itself."""

    name: str
    evaluation: Evaluation
    protocols: Mapping[str, Detail]
    parity: Parity | None


@dataclass(frozen=True)
class Measurement:
    """All that was measured on photos. engines: the one shown in full first.

    headline: the protocol whose numbers lead. reference: the engine that parity is against.
    default: the engine that runs by default. failed: why an engine has no numbers, by name. board:
    None where nothing was timed. skipped: why photos were left out.
    """

    photos: int
    headline: str
    reference: str
    default: str
    engines: tuple[EngineScores, ...]
    failing: Failing
    board: Scoreboard | None = None
    failed: Mapping[str, str] = field(default_factory=dict)
    skipped: Sequence[str] = ()


def measure_bundle(
    bundle: Bundle,
    photos: Sequence[Photo],
    settings: ReportSettings,
    notify: Notify = silent,
    bars: Bars = no_bars,
) -> Measurement:
    """Measure every engine of a bundle on labelled photos.

    Raises EngineError where none runs, IndexStoreError for an index of another model, DataError
    for photos as `evaluate_photos` does, or that are in the index themselves.
    """
    shelf = None if settings.index is None else _shelf(bundle, settings.index, photos, settings)
    default = default_engine(bundle)[0]
    names, failed = _names(bundle, settings, default)
    reference = choose_reference()
    found: dict[str, EngineScores] = {}
    sides: dict[str, Sides] = {}
    against: Outputs | None = None
    for name in sorted(names, key=lambda one: one != reference):  # the reference first
        try:
            with load(bundle.path, name, threads=settings.threads) as hasher:
                notify(f"hashing with {hasher.engine.describe()}")
                sides[name] = hash_sides(
                    hasher,
                    photos,
                    settings.queries,
                    settings.gallery,
                    settings.strict,
                    bars(f"hashing, {name}"),
                    settings.allow_leaks,
                    notify if not found else silent,
                )
                scored = _scored(hasher, sides[name], shelf, settings)
        except EngineError as error:
            failed[name] = str(error)
            continue
        outputs = sides[name].run.outputs
        against = outputs if name == reference else against
        parity = None if name == reference or against is None else _parity(against, sides[name])
        found[name] = dataclasses.replace(scored, name=name, parity=parity)
    if not found:
        reasons = "; ".join(f"{name}: {why}" for name, why in failed.items())
        raise EngineError(
            f"no engine of {bundle.path.name} runs here: {reasons or 'none is there'}"
        )
    ordered = [found[name] for name in names if name in found]
    lead = ordered[0]
    board = None
    if settings.timed:
        notify("timing, in turn")
        board = run_benchmark(
            [bundle.path], list(found), (), settings.bench(), (), notify=notify, bars=bars
        )
    return Measurement(
        len(sides[lead.name].run.photos),
        _headline(lead, shelf),
        reference,
        default,
        tuple(ordered),
        _failing(lead, sides[lead.name], shelf, settings),
        board,
        failed,
        lead.evaluation.skipped,
    )


def _names(
    bundle: Bundle, settings: ReportSettings, default: str
) -> tuple[list[str], dict[str, str]]:
    """Return the engines to measure, the one shown in full first, and why others are left out."""
    lineup = line_up([bundle.path], settings.batches, settings.backends)
    names = [one.engine for one in lineup.contenders]
    if not settings.backends:
        names.sort(key=lambda one: one != default)
        if default not in names:
            names.insert(0, default)
    if (reference := choose_reference()) not in names:
        names.append(reference)
    return names, dict(lineup.left_out)


def _scored(
    hasher: Hasher, sides: Sides, shelf: Searched | None, settings: ReportSettings
) -> EngineScores:
    evaluation = score_sides(hasher, sides, AT, settings.threads, AT)
    protocols = dict(evaluation.protocols)
    if shelf is not None:
        held = (shelf.codes, shelf.labels)
        protocols = {
            INDEX: evaluate_in_detail(
                *sides.queries, *held, False, AT, hasher.bits, settings.threads, AT
            ),
            **protocols,
        }
    return EngineScores("", evaluation, protocols, None)


def _headline(lead: EngineScores, shelf: Searched | None) -> str:
    if shelf is not None:
        return INDEX
    return ASYM_SIGN if ASYM_SIGN in lead.protocols else SYMMETRIC


def _parity(reference: Outputs, sides: Sides) -> Parity:
    """Hold an engine to fp32 on photos spread over all of them."""
    outputs, count = sides.run.outputs, len(sides.run.photos)
    rows = np.unique(np.linspace(0, count - 1, min(count, _COMPARED)).astype(np.int64))
    labels = [sides.run.photos[row].label for row in rows.tolist()]
    left, right = reference, outputs
    return compare(left.hash[rows], left.code[rows], right.hash[rows], right.code[rows], labels)


def _failing(
    lead: EngineScores, sides: Sides, shelf: Searched | None, settings: ReportSettings
) -> Failing:
    paths = [str(photo.path) for photo in sides.run.photos]
    begin = 0 if sides.undivided else sides.cut
    held = shelf or Searched(*sides.gallery, paths[begin:], sides.undivided)
    classes = lead.protocols[_headline(lead, shelf)].classes
    return find_failures(*sides.queries, paths[: sides.cut], held, classes, settings.pictures)


def _shelf(
    bundle: Bundle, path: Path, photos: Sequence[Photo], settings: ReportSettings
) -> Searched:
    """Return the labelled items of an index. Raises IndexStoreError, DataError, UsageError."""
    with Index.open(path, read_only=True) as opened:
        opened.require(bundle.manifest.fingerprint, bundle.manifest.bits)
        items = [item for item in opened.items() if item.label is not None]
        asking = [photo for photo in photos if photo.split in (None, settings.queries)]
        both = opened.by_path(str(photo.path.absolute()) for photo in asking)
    if not items:
        raise DataError(f"{path} holds no item with a label to compare; add some with labels")
    if both and not settings.allow_leaks:
        first = next(iter(both))
        raise DataError(
            f"{counted(len(both), 'query')} of these photos, such as {first}, would find "
            f"themselves in {path}; give others, or pass --allow-leaks"
        )
    codes = np.frombuffer(b"".join(item.code for item in items), np.uint8)
    return Searched(
        codes.reshape(len(items), -1),
        np.array([item.label for item in items], dtype=np.str_),
        [item.path for item in items],
    )
