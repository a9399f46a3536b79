"""Beyond which distance an answer is unknown: found from the gallery's own labelled items.

Each of some items, drawn by a seed, is asked for as if it were new: without itself and its scene.
The nearest of all others answers for a photo of a known class; the nearest of the other labels
answers for a photo of a class that the gallery does not hold. The threshold is the least distance
that recognises as many known ones as wanted. This is open-set recognition by the nearest neighbour
(Mendes Junior et al., "Nearest neighbors distance ratio open-set classifier", 2017, with a distance
in place of the ratio).
"""

from __future__ import annotations

import dataclasses
import json
import math
from array import array
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from fgdeploy.core.codes import UInt8Array, code_bytes
from fgdeploy.core.errors import DataError, UsageError
from fgdeploy.core.numbers import as_whole
from fgdeploy.core.progress import Progress, no_progress
from fgdeploy.core.text import counted, shown
from fgdeploy.retrieval import Index, Item, search_codes

NOTE = "threshold"
_CAMERA = "camera://"
_NO_TIME = -(1 << 62)
_LEAST_ASKED = 30  # items, below which shares of them are chance
_SHOW_EVERY = 10_000  # items
_GROWN = 1.5  # times the items it was measured on: what is nearest then is nearer
_TWINS, _MIXED = 0.5, 0.5  # shares from which on a warning is due

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ThresholdSettings:
    """accept: the share of known photos to recognise, 0 to 1. sample: items asked for. seed: which.

    apart_s: seconds between two frames of a camera (camera://NAME/...) with one label, up to which
    they show one scene, as do all in a row of such. Raises UsageError for values that can never be
    right.
    """

    accept: float = 0.95
    sample: int = 2000
    seed: int = 0
    apart_s: float = 60.0

    def __post_init__(self) -> None:
        if not isinstance(self.accept, (int, float)) or not 0 < self.accept < 1:
            raise UsageError(f"accept {shown(self.accept)}: expected a share between 0 and 1")
        if (as_whole(self.sample) or 0) < _LEAST_ASKED:
            raise UsageError(f"sample {shown(self.sample)}: expected {_LEAST_ASKED} items or more")
        if as_whole(self.seed) is None or self.seed < 0:
            raise UsageError(f"seed {shown(self.seed)}: expected a whole number, 0 or more")
        if not isinstance(self.apart_s, (int, float)) or not 0 <= self.apart_s < math.inf:
            raise UsageError(f"apart {shown(self.apart_s)}: expected seconds, 0 or more")


@dataclass(frozen=True)
class Threshold:
    """The distance in bits up to which an answer is believed, and what that rests on.

    accept: the share of known photos that was wanted. false_reject: of known photos, the share that
    it calls unknown; false_accept: of photos of unknown classes, the share that it calls known;
    first_right: of known ones, the share whose nearest has their label, whatever its distance.
    asked: items that these shares are of; labelled, labels, scenes: of the items that answered,
    copies left out; items: of the whole index then. twins: the share of `asked` that have another
    of their label with the very same code.
    """

    bits: int
    accept: float
    false_reject: float
    false_accept: float
    first_right: float
    asked: int
    labelled: int
    labels: int
    scenes: int
    copies: int
    items: int
    twins: float

    def stale(self, items: int) -> bool:
        """Tell whether the index, of so many items now, has changed too much for it since."""
        return not self.items / _GROWN <= items <= self.items * _GROWN

    def warnings(self) -> list[str]:
        """Return a line for each reason to trust it less."""
        found = []
        if self.twins >= _TWINS:
            found.append(
                f"{self.twins:.0%} of the items have another of their label with the same code: "
                "frames of one scene, or photos that the model was trained on, are nearer than "
                "new photos will be, so new ones will be called unknown too often; measure on a "
                "gallery of photos taken apart"
            )
        if self.false_accept >= _MIXED:
            found.append(
                f"{self.false_accept:.0%} of unknown classes are called known: these codes hardly "
                "tell them from known ones; a smaller --accept, more bits or a trained model help"
            )
        return found


def measure(
    index: Index,
    settings: ThresholdSettings | None = None,
    progress: Progress = no_progress,
) -> Threshold:
    """Find the threshold of an index, in about 250 bytes of memory an item; nothing is changed.

    Items of equal sha256 count once. Raises DataError where the items prove nothing: too few
    labelled ones, one label, no label with two scenes, or most with a twin of the same code.
    """
    settings = settings or ThresholdSettings()
    held = _read(index, settings.apart_s, progress)
    rows = _asked(held, settings, index)
    same, other = _nearest(held, rows)
    nearest = np.minimum(same, other)
    bits = int(np.sort(nearest)[math.ceil(settings.accept * len(rows)) - 1])
    if bits == 0:
        raise DataError(
            f"{index.path}: {np.mean(nearest == 0):.0%} of {counted(len(rows), 'item')} have "
            "another with the very same code, so distances tell nothing of new photos: frames of "
            "one scene, copies, or photos that the model was trained on; measure on a gallery of "
            "photos taken apart"
        )
    return Threshold(
        bits=bits,
        accept=float(settings.accept),
        false_reject=float((nearest > bits).mean()),
        false_accept=float((other <= bits).mean()),
        first_right=float((same <= other).mean()),
        asked=len(rows),
        labelled=len(held.codes),
        labels=len(held.starts) - 1,
        scenes=len(held.scenes) - 1,
        copies=held.copies,
        items=held.items,
        twins=float((same == 0).mean()),
    )


def keep(index: Index, threshold: Threshold) -> None:
    """Note a threshold in its index, in place of the one before."""
    index.notes.set(NOTE, json.dumps(dataclasses.asdict(threshold)))


def of(index: Index) -> Threshold | None:
    """Return the threshold that is noted in an index, None where none was measured."""
    text = index.notes.get(NOTE)
    if text is None:
        return None
    try:
        found = Threshold(**json.loads(text))
    except (ValueError, TypeError, RecursionError):  # of a later fgdeploy
        return None
    whole = [found.bits, found.asked, found.labelled, found.labels, found.items]
    whole += [found.scenes, found.copies]
    shares = (found.accept, found.false_reject, found.false_accept, found.first_right, found.twins)
    if any(type(value) is not int or value < 0 for value in whole):
        return None
    if any(type(value) not in (int, float) or not 0 <= value <= 1 for value in shares):
        return None
    return found


@dataclass(frozen=True)
class _Held:
    """Labelled items by label, then scene: codes (N, bytes); label n is starts[n] to starts[n + 1].

    scenes: where each begins, and N.
    """

    codes: UInt8Array
    starts: Numbers
    scenes: Numbers
    copies: int
    items: int


def _read(index: Index, apart_s: float, progress: Progress) -> _Held:
    numbers: dict[str, int] = {}
    codes, labels, digests, times = bytearray(), _Growing(), _Growing(), _Growing()
    count, total = 0, len(index)
    for item in index.items():
        count += 1
        if count % _SHOW_EVERY == 0:
            progress(min(count, total), total)
        if item.label is not None:
            codes += item.code
            labels.append(numbers.setdefault(item.label, len(numbers)))
            digests.append(hash(item.sha256) if item.sha256 else ~len(labels))
            times.append(_time(item))
    progress(total, total)
    found = np.frombuffer(codes, np.uint8).reshape(-1, code_bytes(index.bits))
    _, first = np.unique(digests.all(), return_index=True)
    first.sort()  # of copies the one with the least id
    order = first[np.lexsort((times.all()[first], labels.all()[first]))]
    label, time = labels.all()[order], times.all()[order]
    near = (np.diff(time) <= apart_s * 1e6) & (time[1:] != _NO_TIME) & (np.diff(label) == 0)
    scenes = np.flatnonzero(np.concatenate([[True], ~near, [True]])) if len(order) else np.zeros(1)
    starts = np.concatenate([[0], np.cumsum(np.bincount(label, minlength=len(numbers)))])
    whole = starts.astype(np.int64), scenes.astype(np.int64)
    return _Held(found[order], *whole, len(found) - len(first), count)


def _time(item: Item) -> int:
    """Return when a frame of a camera was taken, in microseconds; photos have no such time."""
    if item.path is None or not item.path.startswith(_CAMERA):
        return _NO_TIME
    try:
        return int(datetime.fromisoformat(item.time).timestamp() * 1e6)
    except (ValueError, OverflowError):  # which `Index.add` would not have taken
        return _NO_TIME


class _Growing:
    """Whole numbers of 64 bits, one after the other."""

    def __init__(self) -> None:
        self._values = array("q")

    def __len__(self) -> int:
        return len(self._values)

    def append(self, value: int) -> None:
        self._values.append(value)

    def all(self) -> Numbers:
        return np.frombuffer(self._values, np.int64) if self._values else np.empty(0, np.int64)


def _asked(held: _Held, settings: ThresholdSettings, index: Index) -> Numbers:
    """Return the rows to ask for, ascending. Raises DataError where they prove nothing."""
    sizes, lengths = np.diff(held.starts), np.diff(held.scenes)
    of_label = np.repeat(sizes, sizes)  # how many items have the label of each
    able = np.flatnonzero(of_label > np.repeat(lengths, lengths))
    without = f" ({counted(held.copies, 'copy')} left out)" if held.copies else ""
    why = None
    if len(held.codes) == 0:
        why = f"none of {counted(held.items, 'item')} has a label"
    elif len(sizes) == 1:
        why = f"all {counted(len(held.codes), 'labelled item')} have one label{without}"
    elif len(able) < _LEAST_ASKED:
        why = (
            f"of {counted(len(held.codes), 'labelled item')}{without}, which show "
            f"{counted(len(lengths), 'scene')}, only {len(able)} have another scene of their label"
        )
    if why is not None:
        raise DataError(
            f"{index.path}: {why}, which proves nothing about unknown photos; expected "
            f"{_LEAST_ASKED} such items or more, of two labels or more; add some with: "
            f"fgdeploy index add {index.path} PHOTOS --labels FILE"
        )
    chooser = np.random.default_rng(settings.seed)
    drawn = chooser.choice(able, min(settings.sample, len(able)), replace=False)
    return np.sort(drawn)


def _nearest(held: _Held, rows: Numbers) -> tuple[Numbers, Numbers]:
    """Return the distances of rows to the nearest other scene of their label, and other label."""
    labels = np.searchsorted(held.starts, rows, side="right") - 1
    scenes = np.searchsorted(held.scenes, rows, side="right") - 1
    same, other = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
    for label in np.unique(labels):
        places = np.flatnonzero(labels == label)
        start, stop = held.starts[label : label + 2]
        other[places] = _least(held.codes, rows[places], [(0, start), (stop, len(held.codes))])
        for scene in np.unique(scenes[places]):
            inside = places[scenes[places] == scene]
            begin, end = held.scenes[scene : scene + 2]
            same[inside] = _least(held.codes, rows[inside], [(start, begin), (end, stop)])
    return same, other


def _least(codes: UInt8Array, rows: Numbers, parts: list[tuple[int, int]]) -> Numbers:
    """Return the distance of each row to the nearest of some parts, of which one holds some."""
    queries = np.ascontiguousarray(codes[rows])
    found = [search_codes(queries, codes[one:end], 1)[1][:, 0] for one, end in parts if end > one]
    nearest: Numbers = np.stack(found).min(axis=0).astype(np.int64)
    return nearest


def as_json(threshold: Threshold | None, items: int) -> dict[str, Any] | None:
    """Return a threshold as JSON-ready values, with whether it is stale for so many items."""
    if threshold is None:
        return None
    return {**dataclasses.asdict(threshold), "stale": threshold.stale(items)}
