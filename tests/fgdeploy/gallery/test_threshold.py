"""The distance of the unknown: against a plain search, and galleries that prove nothing."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fgdeploy.core.codes import hamming
from fgdeploy.core.errors import DataError, UsageError
from fgdeploy.gallery import threshold as calibrating
from fgdeploy.gallery.threshold import Threshold, ThresholdSettings
from fgdeploy.retrieval import Index, Item
from tests.checks import refused

BITS, MODEL = 64, "ab" * 32
Fill = Callable[[Sequence[Item]], Index]


@pytest.fixture
def fill(tmp_path: Path) -> Iterator[Fill]:
    """Make an index of items."""
    with Index.create(tmp_path / "g.fgi", MODEL, BITS) as index:

        def call(items: Sequence[Item]) -> Index:
            index.add(items)
            return index

        yield call


def clustered(labels: int, each: int, flips: int = 6, seed: int = 0) -> list[Item]:
    """Return items whose codes lie within some bits of their label's own."""
    chooser = np.random.default_rng(seed)
    items = []
    for label in range(labels):
        centre = chooser.integers(0, 2, BITS)
        for number in range(each):
            bits = centre.copy()
            bits[chooser.choice(BITS, chooser.integers(flips + 1), replace=False)] ^= 1
            code = np.packbits(bits.astype(np.uint8)).tobytes()
            name = f"{seed}/{label}/{number}"
            items.append(Item(f"photo://{name}", code, f"label {label}", name))
    return items


def plainly(items: Sequence[Item], accept: float) -> tuple[int, float, float, float, float]:
    """Return (bits, false_reject, false_accept, first_right, twins) of all items, the slow way."""
    codes = np.frombuffer(b"".join(item.code for item in items), np.uint8).reshape(len(items), -1)
    distances = hamming(codes, codes).astype(int)
    labels = np.array([item.label for item in items])
    alike = labels[:, None] == labels
    np.fill_diagonal(distances, 1000)
    same = np.where(alike, distances, 1000).min(axis=1)
    other = np.where(alike, 1000, distances).min(axis=1)
    rows = same < 1000
    same, other = same[rows], other[rows]
    nearest = np.minimum(same, other)
    bits = next(bits for bits in range(BITS) if (nearest <= bits).mean() >= accept)
    return (
        bits,
        float((nearest > bits).mean()),
        float((other <= bits).mean()),
        float((same <= other).mean()),
        float((same == 0).mean()),
    )


@pytest.mark.parametrize("accept", [0.5, 0.9, 0.95, 0.99])
def test_it_is_what_a_plain_search_finds(fill: Fill, accept: float) -> None:
    chooser = np.random.default_rng(7)
    items = clustered(6, 20) + clustered(3, 1, seed=1) + clustered(2, 5, 30, seed=2)
    items = [items[place] for place in chooser.permutation(len(items))]
    strangers = [Item(f"photo://none/{n}", bytes([n] * 8)) for n in range(9)]  # without a label
    index = fill([*strangers, *items])
    found = calibrating.measure(index, ThresholdSettings(accept))
    shares = (found.false_reject, found.false_accept, found.first_right, found.twins)
    assert (found.bits, *shares) == pytest.approx(plainly(items, accept))
    assert (found.labelled, found.labels, found.items) == (133, 6, 142)
    assert (found.asked, found.copies, found.accept) == (133, 0, accept)


def test_a_sample_is_drawn_by_its_seed(fill: Fill) -> None:
    index = fill(clustered(8, 40))
    found = [calibrating.measure(index, ThresholdSettings(sample=40, seed=n)) for n in (0, 0, 1, 2)]
    assert found[0] == found[1] and found[0].asked == 40
    assert len(set(found)) > 1
    assert calibrating.measure(index).asked == 320


def test_single_items_answer_but_are_not_asked_for(fill: Fill) -> None:
    index = fill(clustered(4, 10) + [dataclasses.replace(one, label=f"one {one.label}") for one
                 in clustered(5, 1, seed=3)])  # fmt: skip
    found = calibrating.measure(index)
    assert (found.asked, found.labelled, found.labels) == (40, 45, 9)


def test_copies_count_once(fill: Fill) -> None:
    """By sha256, whatever their path and label; items that have none are no copies."""
    items = clustered(4, 12)
    again = [
        dataclasses.replace(one, path=f"{one.path}/again/{n}", label=("x", one.label)[n % 2])
        for n, one in enumerate(items)
    ]
    unknown = [dataclasses.replace(one, path=f"{one.path}/u", sha256="") for one in items[:1]]
    index = fill(items)
    alone = calibrating.measure(index)
    for one in again:  # one at a time, as what is added together is known to be one
        index.add([dataclasses.replace(one, id=None)])
    before = len(index)
    found = calibrating.measure(index)
    assert found.copies == before - 48
    assert dataclasses.replace(found, copies=0, items=48) == alone
    fill(unknown)
    assert calibrating.measure(index).labelled == 49


def filmed(items: Sequence[Item], step_s: float, name: str = "yard") -> list[Item]:
    """Return them as frames of a camera, each with ten that follow and differ by a bit or so."""
    chooser, found = np.random.default_rng(4), []
    begin = datetime(2026, 11, 28, tzinfo=timezone.utc)
    for number, one in enumerate(items):
        for frame in range(10):
            code = np.frombuffer(one.code, np.uint8).copy()
            code[chooser.integers(8)] ^= np.uint8(chooser.integers(2))
            time = (begin + timedelta(seconds=1000 * number + step_s * frame)).isoformat()
            uri = f"camera://{name}/{time}"
            found.append(Item(uri, code.tobytes(), one.label, time=time))
    return found


def test_frames_of_one_scene_do_not_answer_for_each_other(fill: Fill) -> None:
    items = clustered(6, 10)
    frames = filmed(items, 60.0)
    index = fill(frames)
    found = calibrating.measure(index)
    assert (found.labelled, found.scenes, found.labels) == (600, 60, 6)
    scene = np.arange(600) // 10
    codes = np.frombuffer(b"".join(one.code for one in frames), np.uint8).reshape(600, -1)
    distances = hamming(codes, codes).astype(int)
    distances[scene[:, None] == scene[None]] = 1000  # the slow way
    nearest = np.sort(distances.min(axis=1))
    assert found.bits == nearest[569]
    alike = calibrating.measure(index, ThresholdSettings(apart_s=59.9))
    assert alike.scenes == 600 and alike.bits < found.bits


def test_one_scene_a_label_proves_nothing(fill: Fill) -> None:
    index = fill(filmed(clustered(6, 1), 1.0))
    words = r"of 60 labelled items, which show 6 scenes, only 0 have another scene of their label"
    with refused(DataError, words):
        calibrating.measure(index)


# --- galleries that prove nothing


def without_labels() -> list[Item]:
    return [dataclasses.replace(one, label=None) for one in clustered(4, 20)]


def all_alone() -> list[Item]:
    return [dataclasses.replace(one, label=str(n)) for n, one in enumerate(clustered(4, 20))]


@pytest.mark.parametrize(
    ("items", "words"),
    [
        ([], r"none of 0 items has a label"),
        (without_labels(), r"none of 80 items has a label"),
        (clustered(1, 80), r"all 80 labelled items have one label"),
        (all_alone(), r"of 80 labelled items, which show 80 scenes, only 0 have another sc.*"),
        (clustered(2, 14), r"of 28 labelled items, which show 28 scenes, only 28 have another .*"),
    ],
)
def test_galleries_that_prove_nothing(fill: Fill, items: list[Item], words: str) -> None:
    index = fill(items)
    words = rf"g\.fgi: {words}, which proves nothing about unknown photos; expected 30 such items"
    with refused(DataError, words + r" or more, of two labels or more; add some with: .* --labels"):
        calibrating.measure(index)
    assert calibrating.of(index) is None


def test_frames_of_one_scene_prove_nothing(fill: Fill) -> None:
    """Other bytes, the same code: no copies by sha256, and nothing of a new photo."""
    index = fill(clustered(4, 20, flips=0))
    with refused(DataError, r"100% of 80 items have another with the very same code, so distances"):
        calibrating.measure(index)


def test_warnings(fill: Fill) -> None:
    assert calibrating.measure(fill(clustered(4, 20))).warnings() == []
    some = Threshold(3, 0.95, 0.04, 0.5, 0.9, 100, 100, 4, 100, 0, 100, 0.49)
    (mixed,) = some.warnings()
    assert mixed.startswith("50% of unknown classes are called known: ")
    (twins,) = dataclasses.replace(some, false_accept=0.1, twins=0.5).warnings()
    assert twins.startswith("50% of the items have another of their label with the same code: ")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"accept": 0.0}, "accept 0.0: expected a share between 0 and 1"),
        ({"accept": 1}, "accept 1: expected a share"),
        ({"accept": float("nan")}, "accept nan: expected a share"),
        ({"accept": "most"}, "accept most: expected a share"),
        ({"sample": 29}, "sample 29: expected 30 items or more"),
        ({"apart_s": -1.0}, "apart -1.0: expected seconds, 0 or more"),
        ({"apart_s": float("inf")}, "apart inf: expected seconds"),
        ({"seed": -1}, "seed -1: expected a whole number, 0 or more"),
    ],
)
def test_settings_that_can_never_be_right(settings: dict[str, Any], words: str) -> None:
    with refused(UsageError, f"^{words}"):
        ThresholdSettings(**settings)


# --- kept in the index


def test_it_stays_with_the_index(fill: Fill) -> None:
    index = fill(clustered(4, 20))
    assert calibrating.of(index) is None
    found = calibrating.measure(index)
    assert calibrating.of(index) is None  # measured, not noted
    calibrating.keep(index, found)
    index.remember_bundle("other.fgd")
    index.compact()
    with Index.open(index.path) as other:
        assert calibrating.of(other) == found
        assert [one for one in other.verify() if one.fatal] == []
        calibrating.keep(other, dataclasses.replace(found, bits=3))
    assert calibrating.of(index) == dataclasses.replace(found, bits=3)  # which another process set


def test_what_it_cannot_read_is_none(fill: Fill) -> None:
    index = fill(clustered(4, 20))
    entry = dataclasses.asdict(calibrating.measure(index))
    wrong: list[Any] = [[], 7, {**entry, "more": 1}, {**entry, "bits": -1}, {**entry, "bits": 1.5}]
    wrong += [{**entry, "accept": 2}, {**entry, "twins": None}, {**entry, "items": True}]
    for text in ("", "{", "[" * 100_000, *map(json.dumps, wrong)):
        index.notes.set(calibrating.NOTE, text)
        assert calibrating.of(index) is None, text[:80]


@pytest.mark.parametrize(
    ("items", "stale"), [(80, False), (120, False), (121, True), (54, False), (53, True)]
)
def test_it_goes_stale_as_the_gallery_changes(items: int, stale: bool) -> None:
    found = Threshold(3, 0.95, 0.04, 0.1, 0.9, 80, 80, 4, 80, 0, 80, 0.1)
    assert found.stale(items) is stale
    assert calibrating.as_json(found, items) == {**dataclasses.asdict(found), "stale": stale}
    assert calibrating.as_json(None, items) is None
