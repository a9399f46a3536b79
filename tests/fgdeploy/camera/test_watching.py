"""A camera with all that goes with it: the order of things, and what people read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from fgdeploy.camera.annotating import Note
from fgdeploy.camera.camera import Camera
from fgdeploy.camera.camera_result import CameraResult
from fgdeploy.camera.capture_source import Captured
from fgdeploy.camera.enrolling import Enroller
from fgdeploy.camera.picking import Picker
from fgdeploy.camera.preview import Preview
from fgdeploy.camera.region import Region
from fgdeploy.camera.voting import Voter
from fgdeploy.camera.watching import Sighting, Watch, nearest_of, title_of
from fgdeploy.core.errors import IndexStoreError
from fgdeploy.retrieval import Hit, Index
from tests.checks import refused
from tests.fgdeploy.camera.feeds import Feed, HeldEngine, hasher_on, number_in, numbered
from tests.fgdeploy.camera.results import START, result


class Notes:
    """A preview that keeps what it is shown."""

    def __init__(self) -> None:
        self.shown: list[tuple[Captured, Note]] = []
        self.times: list[float | None] = []

    def show(self, captured: Captured, note: Note, at: float | None) -> None:
        self.shown.append((captured, note))
        self.times.append(at)


@dataclass
class Fixed:
    """A camera that gives these results."""

    results: Sequence[CameraResult]
    live: bool = True

    def __iter__(self) -> Iterator[CameraResult]:
        return iter(self.results)


def watch(results: Sequence[CameraResult], **given: Any) -> Watch:
    return Watch(cast(Camera, Fixed(results)), **given)


def test_an_item_is_on_the_disk_before_it_is_told(tmp_path: Path) -> None:
    results = [result(bytes([n, 0]), START + timedelta(seconds=n), number=n) for n in range(4)]
    with Index.create(tmp_path / "g.fgi", "ab" * 32, 16) as index:
        for count, seen in enumerate(watch(results, enroller=Enroller(index, "owl")), start=1):
            with Index.open(tmp_path / "g.fgi") as other:
                assert len(other) == count
                assert seen.enrolled is not None and seen.enrolled.path is not None
                assert other.by_path([seen.enrolled.path])


def test_enrolling_while_the_camera_searches_the_same_index(tmp_path: Path) -> None:
    engine = HeldEngine()
    hasher = hasher_on(engine)
    feed = Feed([numbered(n) for n in range(1, 30)], live=False, ends=True)
    with Index.create(tmp_path / "g.fgi", hasher.fingerprint, hasher.bits) as index:
        camera = Camera(feed, hasher, index, k=3)
        for seen in Watch(camera, enroller=Enroller(index, "moth")):
            number = number_in(seen.result)
            assert len(seen.result.hits) == min(number - 1, 3)  # all before, none of itself
            assert len(index) == number


def test_a_refused_item_ends_the_loop(tmp_path: Path) -> None:
    with Index.create(tmp_path / "g.fgi", "ab" * 32, 16) as index:
        enroller = Enroller(index, "owl")
        index.close()
        seen = iter(watch([result(b"\1\1")], enroller=enroller))
        with refused(IndexStoreError, "closed"):
            next(seen)


def test_the_preview_is_told_what_people_want_to_read() -> None:
    captured = Picker(Region(1, 1, 3, 2))(result(b"\1").captured)
    assert captured is not None
    hit = Hit(1, 3, 7, "a.jpg", "owl")
    one = CameraResult(0, captured, b"\xa5\0", [hit], {"total": 0.0312})
    notes = Notes()
    given = {"preview": cast(Preview, notes), "region": Region(1, 1, 3, 2)}
    list(watch([one], voter=Voter(1), **given))
    list(watch([one], voter=Voter(1, threshold=2), **given))
    (shown, first), (_, other) = notes.shown
    assert shown is captured
    assert first == Note(
        "owl 100%", ("nearest: owl, 3 of 16 bits", "0.0 frames/s, 31 ms"), (1, 1, 4, 3)
    )
    assert other.title == "unknown 100%"


def test_titles_without_an_index_and_hits_without_a_label() -> None:
    assert title_of(Sighting(result(b"\xa5\1"))) == "a501"
    assert nearest_of(result(b"\1")) == ""
    assert nearest_of(result(b"\1", hits=[Hit(1, 2, 9, None, None)])) == "nearest: 9, 2 of 8 bits"


def test_the_rate_is_of_the_last_frames() -> None:
    slow = [result(b"\1", number=n) for n in range(50)]  # a second apart
    watched = watch(slow)
    assert watched.rate == 0
    for _ in watched:
        pass
    assert watched.rate == pytest.approx(1)


def test_a_preview_of_a_file_runs_steadily_however_fast_it_is_hashed() -> None:
    notes = Notes()
    results = [result(b"\1", number=number) for number in (0, 1, 25)]
    camera = cast(Camera, Fixed(results, live=False))
    list(Watch(camera, preview=cast(Preview, notes)))
    assert notes.times == [0, 1 / 25, 1]
    list(watch(results, preview=cast(Preview, notes)))
    assert notes.times[3:] == [None] * 3
