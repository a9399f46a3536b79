"""The camera: every frame is accounted for, in order, with its hits."""

from __future__ import annotations

import os
import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fgdeploy
from fgdeploy.camera.camera import Camera
from fgdeploy.camera.camera_result import STAGES
from fgdeploy.camera.capture_source import BrokenFrame, Captured, StreamBroken
from fgdeploy.core.errors import ImageError, IndexStoreError, UsageError
from fgdeploy.live.hash_worker import HashWorker
from fgdeploy.retrieval import Index, Item
from tests.checks import COLOUR_BITS, refused
from tests.fgdeploy.camera.feeds import WAIT, Feed, HeldEngine, hasher_on, number_in, numbered


@pytest.fixture
def index(tmp_path: Path) -> Index:
    """An index with the frames 0 to 9, each by its number."""
    made = Index.create(tmp_path / "g.fgi", "ab" * 32, COLOUR_BITS)
    made.add(Item(None, number.to_bytes(3, "big"), id=number) for number in range(10))
    return made


def test_each_frame_of_a_list_is_hashed_and_searched_in_order(index: Index) -> None:
    feed = Feed(map(numbered, range(10)), live=False, ends=True)
    camera = fgdeploy.Camera(feed, hasher_on(HeldEngine()), index, k=3)
    results = list(camera)
    assert [result.number for result in results] == list(range(10))
    assert [number_in(result) for result in results] == list(range(10))
    assert [(result.hits[0].id, result.hits[0].distance) for result in results] == [
        (number, 0) for number in range(10)
    ]
    assert all(len(result.hits) == 3 and not result.dropped for result in results)
    assert tuple(results[0].latency) == STAGES and min(results[0].latency.values()) >= 0
    assert all(times.count == 10 for times in camera.times.summary().values())
    counters = camera.counters
    assert (counters.captured, counters.processed, counters.under_way) == (10, 10, 0)
    assert (feed.opened, feed.closed) == (1, 1)


def test_without_an_index_there_are_codes_alone() -> None:
    (result,) = Camera(Feed([numbered(7)], ends=True), hasher_on(HeldEngine()))
    assert number_in(result) == 7 and result.hits == [] and "search" not in result.latency
    assert result.outputs is not None and result.outputs.hash.shape == (1, COLOUR_BITS)


def test_broken_and_skipped_frames_are_counted_and_leave_gaps(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken = BrokenFrame("cut short")
    feed = Feed([numbered(0), broken, numbered(2), numbered(3), broken], False, ends=True)

    def select(captured: Captured) -> Captured | None:
        return None if captured.pixels[0, 0, 2] == 2 else captured

    camera = Camera(feed, hasher_on(HeldEngine()), select=select)
    results = list(camera)
    assert [(one.number, number_in(one), one.dropped) for one in results] == [(0, 0, 0), (3, 3, 0)]
    counters = camera.counters
    assert (counters.captured, counters.broken, counters.skipped) == (5, 2, 1)
    assert (counters.processed, counters.dropped, counters.under_way) == (2, 0, 0)
    assert caplog.text.count("broken_frame") == 2


def test_a_part_of_a_frame_may_be_hashed() -> None:
    both = np.concatenate([numbered(5), numbered(9)], axis=1)

    def right(captured: Captured) -> Captured:
        return Captured(captured.pixels[:, 8:], captured.color, captured.when, captured.at)

    (result,) = Camera(Feed([both], ends=True), hasher_on(HeldEngine()), select=right)
    assert number_in(result) == 9


def test_an_error_of_the_source_comes_after_what_was_done_before() -> None:
    feed = Feed([*map(numbered, range(5)), StreamBroken("the cable")], live=False)
    seen = []
    with refused(StreamBroken, "the cable"):
        for result in Camera(feed, hasher_on(HeldEngine())):
            seen.append(result.number)
    assert seen == list(range(5)) and feed.closed == 1


def test_blue_first_is_turned() -> None:
    frame = Captured(numbered(1)[..., ::-1].copy(), "bgr")
    (result,) = Camera(Feed([frame], ends=True), hasher_on(HeldEngine()))
    assert number_in(result) == 1


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (Captured(np.zeros((8, 8, 3), np.float32), "rgb"), "float32"),  # type: ignore[arg-type]
        (Captured(np.zeros((3, 8, 8), np.uint8), "rgb"), "put the channels last"),
        (Captured(np.zeros((0, 8, 3), np.uint8), "rgb"), "with pixels"),
    ],
)
def test_pixels_that_are_no_image_are_refused_in_a_line(wrong: Captured, words: str) -> None:
    seen = []
    with refused(ImageError, words):
        for result in Camera(Feed([numbered(4), wrong], False), hasher_on(HeldEngine())):
            seen.append(number_in(result))
    assert seen == [4]


def test_another_order_of_colours_is_refused() -> None:
    with refused(UsageError, "expected rgb or bgr"):
        list(Camera(Feed([Captured(numbered(0), "rbg")]), hasher_on(HeldEngine())))


def test_what_can_never_be_right_is_refused_at_once(index: Index, tmp_path: Path) -> None:
    hasher = hasher_on(HeldEngine())
    with refused(UsageError, "k=0"):
        Camera(Feed(), hasher, k=0)
    other = Index.create(tmp_path / "o.fgi", "cd" * 32, COLOUR_BITS)
    with refused(IndexStoreError, "of model"):
        Camera(Feed(), hasher, other)


def test_a_clock_that_is_set_back_changes_no_latency_and_no_order() -> None:
    start = datetime(2026, 11, 28, tzinfo=timezone.utc)
    frames = [
        Captured(numbered(number), "rgb", start - timedelta(hours=number)) for number in range(4)
    ]
    results = list(Camera(Feed(frames, live=False, ends=True), hasher_on(HeldEngine())))
    assert [result.time for result in results] == [frame.when for frame in frames]
    assert [result.number for result in results] == list(range(4))
    assert all(0 <= result.latency["total"] < WAIT for result in results)


def test_two_cameras_share_a_worker() -> None:
    found: dict[int, list[int]] = {}

    def watch(first: int) -> None:
        feed = Feed(map(numbered, range(first, first + 50)), live=False, ends=True)
        found[first] = [number_in(result) for result in Camera(feed, worker)]

    with HashWorker(hasher_on(HeldEngine()), waiting=1) as worker:
        watchers = [threading.Thread(target=watch, args=(first,)) for first in (0, 1000)]
        for watcher in watchers:
            watcher.start()
        for watcher in watchers:
            watcher.join(WAIT)
        assert worker.failed is None
    assert found == {0: list(range(50)), 1000: list(range(1000, 1050))}


def test_errors_of_the_index_are_raised(index: Index) -> None:
    camera = Camera(Feed([numbered(0)], ends=True), hasher_on(HeldEngine()), index)
    index.close()
    with refused(IndexStoreError, "closed"):
        list(camera)
    assert camera.counters.dropped == 1 and camera.counters.under_way == 0


def test_a_forked_process_must_open_its_own() -> None:
    with Camera(Feed(), hasher_on(HeldEngine())) as camera:
        child = os.fork()
        if not child:
            try:
                list(camera)
            except UsageError as error:
                os._exit(0 if "open it after the fork" in str(error) else 1)
            os._exit(2)
        assert os.waitpid(child, 0)[1] == 0


def test_arrays_and_photos_give_the_codes_of_the_hasher(toy_bundle: Path, tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (6, 50, 70, 3), np.uint8)
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"{number}.png")
    with fgdeploy.load(toy_bundle, threads=1) as hasher:
        expected = [code.tobytes() for code in hasher.encode(list(frames))]
        for source, color in ((frames, "rgb"), (frames[..., ::-1], "bgr"), (tmp_path, None)):
            camera = Camera(source, hasher, color=color)
            assert [result.code for result in camera] == expected
        with refused(UsageError, "say the order of their channels"):
            Camera(frames, hasher)
