"""Who waits for whom, what is dropped, and how it ends."""

from __future__ import annotations

import random
import threading
import time

import pytest

from fgdeploy.camera.camera import Camera
from fgdeploy.camera.capture_source import BrokenFrame, Captured, StreamEnded
from fgdeploy.core.errors import EngineError, UsageError
from fgdeploy.live.hash_worker import HashWorker
from tests.checks import refused
from tests.fgdeploy.camera.feeds import Feed, HeldEngine, hasher_on, number_in, numbered, until

SOON = 5.0  # seconds within which a closed camera has ended, on a busy machine; alone it is one


class Never:
    """An engine's usual time that is not learnt: frames are prepared while it is busy."""

    usual = 0.0

    def note(self, seconds: float) -> None:
        pass


def test_a_source_faster_than_the_engine_drops_its_oldest() -> None:
    engine, feed = HeldEngine(allowed=1), Feed()  # one run, which warms up
    with Camera(feed, hasher_on(engine)) as camera:
        camera._pipeline._inference = Never()  # so that one waits in the worker's queue too
        results = iter(camera)
        feeding = threading.Thread(target=lambda: [feed.push(numbered(n)) for n in range(10)])
        taken: list[object] = []
        taking = threading.Thread(target=lambda: taken.append(next(results)))
        taking.start()
        feed.push(numbered(100))
        until(lambda: engine.begun == 2)  # 0 runs
        feed.push(numbered(101))
        until(lambda: camera.counters.waiting == 1 and len(camera.worker) == 1)  # 1 is next
        feeding.start()
        until(lambda: camera.counters.captured == 12)
        counters = camera.counters
        assert (counters.dropped, counters.waiting, counters.under_way) == (9, 2, 3)
        engine.allowed.release()
        taking.join(SOON)
        found = [(taken[0].number, number_in(taken[0]))]  # type: ignore[attr-defined,arg-type]
        for _ in range(2):
            engine.allowed.release()
            result = next(results)
            found.append((result.number, number_in(result)))
        assert found == [(0, 100), (1, 101), (11, 9)] and result.dropped == 9
        counters = camera.counters
        assert (counters.processed, counters.dropped, counters.under_way) == (3, 9, 0)


def test_a_consumer_slower_than_the_engine_gets_the_newest() -> None:
    engine, feed = HeldEngine(), Feed()
    with Camera(feed, hasher_on(engine)) as camera:
        results = iter(camera)
        feed.push(numbered(0))
        assert number_in(next(results)) == 0
        for number in range(1, 6):
            feed.push(numbered(number))
            until(lambda number=number: engine.frames == number + 2)  # type: ignore[misc]
        until(lambda: camera.counters.dropped == 4)
        result = next(results)
        assert (number_in(result), result.dropped) == (5, 4)
        assert camera.counters.under_way == 0


def test_of_a_file_little_is_held_and_nothing_lost_while_the_consumer_rests() -> None:
    engine, feed = HeldEngine(), Feed(map(numbered, range(40)), live=False, ends=True)
    with Camera(feed, hasher_on(engine)) as camera:
        results = iter(camera)
        assert number_in(next(results)) == 0
        until(lambda: camera.counters.captured == 5)  # 2 done, 1 waits, 1 more waits to be put
        time.sleep(0.05)
        assert camera.counters.captured == 5 and engine.frames == 4  # one of them to warm up
        assert [number_in(result) for result in results] == list(range(1, 40))
        assert camera.counters.dropped == 0


def test_what_was_captured_before_the_end_is_given_out() -> None:
    engine = HeldEngine(allowed=1)
    with Camera(Feed([numbered(3)], ends=True), hasher_on(engine)) as camera:
        ends = threading.Timer(0.05, engine.allowed.release)
        ends.start()
        assert [number_in(result) for result in camera] == [3]


@pytest.mark.parametrize("given", ["nothing", "a frame that runs", "a frame that waits", "result"])
def test_closing_ends_it_at_every_stage(given: str) -> None:
    """The source's read blocks for ever in all of them."""
    engine, feed = HeldEngine(allowed=1 if given.startswith("a frame") else 9), Feed()
    camera = Camera(feed, hasher_on(engine))
    camera._pipeline._inference = Never()
    seen: list[int] = []
    with camera:
        results = iter(camera)
        reading = threading.Thread(target=lambda: seen.extend(map(number_in, results)))
        if given != "result":
            reading.start()
        else:
            feed.push(numbered(0))
            assert number_in(next(results)) == 0
        if given != "nothing":
            feed.push(numbered(0))
        if given.startswith("a frame"):
            until(lambda: engine.begun == 2)
        if given == "a frame that waits":
            feed.push(numbered(1))
            until(lambda: len(camera.worker) == 1)
            feed.push(numbered(2))
            until(lambda: camera.counters.waiting == 2)
        if given == "result":
            until(lambda: engine.frames == 3)
        start = time.monotonic()
        threading.Thread(target=camera.close).start()
        if given == "result":
            until(lambda: camera.counters.under_way == 0)
            assert list(results) == []
        else:
            reading.join(SOON)
            assert not reading.is_alive() and seen == []
        assert time.monotonic() - start < SOON
        engine.allowed.release(9)
    until(lambda: camera.counters.under_way == 0)
    feed.push(StreamEnded("at last"))
    until(lambda: feed.closed == 1)


def test_leaving_the_loop_closes_the_camera_and_with_keeps_it_open() -> None:
    feed = Feed(map(numbered, range(5)), live=False)
    camera = Camera(feed, hasher_on(HeldEngine()))
    for _ in camera:
        break
    with refused(UsageError, "the camera is closed; open it anew"):
        iter(camera).__next__()
    with Camera(Feed(map(numbered, range(5)), live=False), hasher_on(HeldEngine())) as camera:
        assert [number_in(next(iter(camera))) for _ in range(3)] == [0, 1, 2]


def test_an_error_in_the_loop_closes_the_camera() -> None:
    camera = Camera(Feed(map(numbered, range(5)), live=False), hasher_on(HeldEngine()))
    with pytest.raises(ZeroDivisionError):
        for _ in camera:
            raise ZeroDivisionError
    assert camera.counters.under_way == 0
    with refused(UsageError, "closed"):
        next(iter(camera))


def test_a_camera_that_nobody_holds_ends() -> None:
    feed = Feed([numbered(0)])
    results = iter(Camera(feed, hasher_on(HeldEngine())))
    assert number_in(next(results)) == 0
    del results
    feed.push(numbered(1))
    until(lambda: feed.closed == 1)


def test_the_hasher_stays_the_callers() -> None:
    engine = HeldEngine()
    hasher = hasher_on(engine)
    for _ in range(2):
        assert len(list(Camera(Feed([numbered(0)], ends=True), hasher))) == 1
    hasher.engine.check_open()
    with HashWorker(hasher_on(engine)) as worker:
        for _ in range(2):
            assert len(list(Camera(Feed([numbered(0)], ends=True), worker))) == 1
        assert worker.failed is None


def test_an_engine_that_fails_twice_is_an_error_after_what_was_done() -> None:
    engine = HeldEngine()
    engine.fails_at = 4  # warming up, then three frames
    feed = Feed(map(numbered, range(9)), live=False)
    seen = []
    with refused(EngineError, "failed again after it was opened anew: .*device lost"):
        camera = Camera(feed, hasher_on(engine))
        for result in camera:
            seen.append(number_in(result))
    assert len(seen) >= 3 and seen == list(range(len(seen)))
    counters = camera.counters
    assert (counters.rebuilds, counters.processed, counters.under_way) == (1, len(seen), 0)


def test_an_engine_that_fails_at_once_says_so() -> None:
    engine = HeldEngine()
    engine.fails_at = 0
    with refused(EngineError, "device lost"):
        list(Camera(Feed(), hasher_on(engine)))


def test_a_frame_of_a_live_source_is_taken_when_the_engine_is_nearly_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The engine takes an hour, as the pipeline believes: what waits for it is not taken yet."""
    engine, feed = HeldEngine(allowed=1), Feed()
    with Camera(feed, hasher_on(engine)) as camera:
        monkeypatch.setattr(camera._pipeline._inference, "usual", 3600.0)
        results = iter(camera)
        taking = threading.Thread(target=lambda: next(results))
        taking.start()
        feed.push(numbered(0))
        until(lambda: engine.begun == 2)
        for number in range(1, 5):
            feed.push(numbered(number))
            until(lambda number=number: camera.counters.captured == number + 1)  # type: ignore[misc]
        assert len(camera.worker) == 0 and camera.counters.waiting == 1
        engine.allowed.release()
        taking.join(SOON)
        engine.allowed.release()
        assert number_in(next(results)) == 4


def test_of_a_source_slower_than_the_engine_nothing_is_dropped() -> None:
    feed = Feed()
    with Camera(feed, hasher_on(HeldEngine())) as camera:
        results = iter(camera)
        for number in range(20):
            feed.push(numbered(number))
            result = next(results)
            assert (result.number, number_in(result), result.dropped) == (number, number, 0)
        assert camera.counters.dropped == camera.counters.under_way == 0


@pytest.mark.parametrize("live", [True, False])
def test_every_frame_is_accounted_for_whatever_the_pace(live: bool) -> None:
    chooser, given = random.Random(0), 0
    feed = Feed(live=live)

    def push() -> None:
        for number in range(3000):
            feed.push(BrokenFrame("cut") if number % 7 == 6 else numbered(number))
            if live and number % 10 == 0:
                time.sleep(0.002 * chooser.random())
        feed.push(StreamEnded("enough"))

    def select(captured: Captured) -> Captured | None:
        return None if captured.pixels[0, 0, 2] % 5 == 4 else captured

    pushing = threading.Thread(target=push)
    pushing.start()
    camera = Camera(feed, hasher_on(HeldEngine()), select=select)
    before = -1
    for result in camera:
        assert number_in(result) == result.number > before
        before = result.number
        given += 1
        counters = camera.counters
        assert 0 <= counters.under_way <= 5 and counters.waiting <= 2
        if result.number % 50 == 0:
            time.sleep(0.005 * chooser.random())
    pushing.join()
    found = camera.counters
    assert (found.captured, found.processed, found.under_way) == (3000, given, 0)
    assert found.broken == 3000 // 7
    assert found.dropped == 0 if not live else found.dropped > 0
    skipped = sum(n % 7 != 6 and n % 256 % 5 == 4 for n in range(3000))
    assert found.skipped == skipped or (live and found.skipped < skipped)
