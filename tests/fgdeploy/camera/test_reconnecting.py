from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fgdeploy.camera.back_off import BackOff
from fgdeploy.camera.capture_source import (
    BrokenFrame,
    Captured,
    CaptureSource,
    StreamBroken,
    StreamEnded,
)
from fgdeploy.camera.reconnecting import Patience, Reconnecting
from fgdeploy.camera.sources import open_source
from fgdeploy.core.errors import UsageError
from tests.checks import refused
from tests.fgdeploy.camera.feeds import WAIT
from tests.fgdeploy.camera.mjpeg_server import MjpegServer, Stall, head, part, plain_jpeg

_QUICK = BackOff(0.01, 0.02)
_FRAME = np.zeros((2, 2, 3), np.uint8)


class _Connections:
    """What each connection does in turn: frames by number, errors to raise, things to call."""

    def __init__(self, *connections: list[Any]) -> None:
        self.left = [list(one) for one in connections]
        self.opened = self.closed = 0


class _Stream(CaptureSource):
    """Plays connections. The first step may be an error of `open`."""

    live = True
    longest: float | None = 1.0

    def __init__(self, connections: _Connections, lasts: bool = True) -> None:
        self.connections, self.lasts = connections, lasts
        self.steps: list[Any] = []

    def again(self) -> _Stream:
        return _Stream(self.connections, self.lasts)

    def open(self) -> None:
        self.connections.opened += 1
        self.steps = self.connections.left.pop(0) if self.connections.left else []
        if self.steps and self.steps[0] == "open":
            self.steps.pop(0)
            self._next()

    def read(self) -> Captured:
        return Captured(_FRAME + np.uint8(self._next()), "rgb")

    def _next(self) -> Any:
        step = self.steps.pop(0) if self.steps else StreamEnded("no more")
        step = step() if callable(step) else step
        if isinstance(step, BaseException):
            raise step
        return step

    def close(self) -> None:
        self.connections.closed += 1

    def describe(self) -> str:
        return "a stream"


class _Clock:
    """A clock that only waiting moves; `waits` are the seconds that were waited."""

    def __init__(self) -> None:
        self.now = 100.0
        self.waits: list[float] = []

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


def _values(source: CaptureSource, count: int) -> list[int]:
    return [int(source.read().pixels[0, 0, 0]) for _ in range(count)]


def _events(caught: pytest.LogCaptureFixture) -> list[tuple[str, dict[str, Any]]]:
    return [
        (record.event, record.values)  # type: ignore[attr-defined]
        for record in caught.records
        if record.name == "fgdeploy.live"
    ]


def test_a_stream_that_breaks_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fgdeploy.live")
    clock = _Clock()
    connections = _Connections(
        [1, 2, StreamBroken("the cable")],
        ["open", StreamBroken("still out")],
        [StreamEnded("empty")],
        [3, StreamEnded("its end")],
        [4],
    )
    patience = Patience(BackOff(1, 30, jitter=0))
    source = Reconnecting(_Stream(connections), patience, clock, clock.wait)
    with source:
        source.open()
        assert source.live and source.lasts and source.describe() == "a stream"
        assert _values(source, 4) == [1, 2, 3, 4]
        assert clock.waits == [1, 2, 4, 1]  # back means that a frame came, not that it opened
        assert (source.reconnects, source.broken, source.hung) == (2, 0, 0)
    events = _events(caplog)
    assert [name for name, _ in events] == ["stream_broken", "reconnected"] * 2
    assert events[0][1] == {"source": "a stream", "error": "the cable"}
    assert events[1][1] == {"source": "a stream", "attempts": 3, "down_s": 7.0}


def test_every_source_that_was_opened_is_closed() -> None:
    connections = _Connections([1, StreamBroken("out")], [StreamBroken("out")], [2])
    with Reconnecting(_Stream(connections), Patience(_QUICK)) as source:
        source.open()
        assert _values(source, 2) == [1, 2]
    _wait_for(lambda: connections.closed == connections.opened == 3)


def test_jitter_is_of_the_chance_that_is_given() -> None:
    clock, chance = _Clock(), random.Random(3)
    connections = _Connections([StreamBroken("a")], [StreamBroken("b")], [1])
    source = Reconnecting(_Stream(connections), Patience(BackOff(1, 30)), clock, clock.wait, chance)
    with source:
        source.open()
        source.read()
    other = random.Random(3)
    assert clock.waits == [BackOff(1, 30).seconds(n, other) for n in range(2)]


def test_the_first_opening_may_fail_or_not() -> None:
    faults: list[list[Any]] = [["open", StreamBroken("not there yet")], [7]]
    source = Reconnecting(_Stream(_Connections(*faults)), Patience(_QUICK))
    with source, refused(StreamBroken, "not there yet"):
        source.open()
    with Reconnecting(_Stream(_Connections(*faults)), Patience(_QUICK, at_start=True)) as source:
        source.open()
        assert _values(source, 1) == [7]


@pytest.mark.parametrize("error", [StreamBroken("torn"), StreamEnded("all read")])
def test_what_does_not_last_ends_for_good(error: StreamBroken) -> None:
    connections = _Connections([1, error], [2])
    with Reconnecting(_Stream(connections, lasts=False), Patience(_QUICK)) as source:
        source.open()
        source.read()
        with refused(type(error), str(error)):
            source.read()
    assert connections.opened == 1


def test_broken_frames_are_counted_and_passed_on() -> None:
    bad = BrokenFrame("cut short")
    with Reconnecting(_Stream(_Connections([bad, 1, bad, bad, 2])), Patience(_QUICK)) as source:
        source.open()
        seen: list[object] = []
        while len(seen) < 5:
            try:
                seen += _values(source, 1)
            except BrokenFrame:
                seen.append("broken")
        assert seen == ["broken", 1, "broken", "broken", 2]
        assert (source.broken, source.reconnects) == (3, 0)


@pytest.mark.parametrize("lasts", [True, False])
def test_too_many_broken_frames_in_a_row_are_a_broken_stream(lasts: bool) -> None:
    bad: list[Any] = [BrokenFrame("cut short")] * 5
    connections = _Connections([1, *bad, 2], [3])
    patience = Patience(_QUICK, broken_in_a_row=4)
    with Reconnecting(_Stream(connections, lasts), patience) as source:
        source.open()
        assert _values(source, 1) == [1]
        for _ in range(4 if lasts else 5):
            with refused(BrokenFrame, "cut short"):
                source.read()
        assert _values(source, 1) == [3 if lasts else 2]
        assert source.reconnects == lasts


def test_an_error_of_the_user_is_raised_as_it_is() -> None:
    with Reconnecting(_Stream(_Connections([UsageError("float32")]))) as source:
        source.open()
        with refused(UsageError, "float32"):
            source.read()


class _Blocks:
    """A read that blocks until it is let go."""

    def __init__(self) -> None:
        self.begun, self.over = threading.Event(), threading.Event()

    def __call__(self) -> int:
        self.begun.set()
        self.over.wait(WAIT)
        return 99


def test_a_read_that_never_returns_is_left_behind(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fgdeploy.live")
    blocks = _Blocks()
    connections = _Connections([1, blocks], [2])
    stream = _Stream(connections)
    stream.longest = 0.1
    with Reconnecting(stream, Patience(_QUICK, grace_s=0.1)) as source:
        source.open()
        assert _values(source, 2) == [1, 2]
        assert (source.hung, source.hanging, source.reconnects) == (1, 1, 1)
        names = [name for name, _ in _events(caplog)]
        assert names == ["reader_hangs", "stream_broken", "reconnected"]
        blocks.over.set()
        _wait_for(lambda: source.hanging == 0 and connections.closed == 1)


def test_an_opening_that_never_returns_is_left_behind() -> None:
    blocks = _Blocks()
    stream = _Stream(_Connections(["open", blocks]))
    stream.longest = 0.1
    with Reconnecting(stream, Patience(_QUICK, grace_s=0.1)) as source:
        with refused(StreamBroken, "a stream hangs: no answer for 0.2 s"):
            source.open()
        blocks.over.set()
        _wait_for(lambda: source.hanging == 0)


def test_no_more_threads_hang_than_may() -> None:
    blocks = [_Blocks() for _ in range(3)]
    connections = _Connections([blocks[0]], [blocks[1]], [blocks[2]], [5])

    class Quick(_Stream):
        longest = 0.05

        def again(self) -> Quick:
            return Quick(self.connections)

    clock = _Clock()

    def wait(seconds: float) -> None:
        clock.wait(seconds)
        if len(clock.waits) == 12:  # by then two hang, and no third thread was started
            assert connections.opened == 2
            for one in blocks:
                one.over.set()
            _wait_for(lambda: source.hanging == 0)

    patience = Patience(_QUICK, grace_s=0.05, most_hanging=2)
    with Reconnecting(Quick(connections), patience, clock, wait) as source:
        source.open()
        assert _values(source, 2) == [99, 5]
        assert source.hung == 2


@pytest.mark.parametrize("where", ["read", "open", "wait"])
def test_closing_ends_what_blocks(where: str) -> None:
    blocks = _Blocks()
    steps = {
        "read": [[blocks]],
        "open": [[StreamBroken("out")], ["open", blocks]],
        "wait": [[StreamBroken("out")]],
    }
    stream = _Stream(_Connections(*steps[where]))
    stream.longest = None
    back_off = BackOff(WAIT, WAIT) if where == "wait" else _QUICK
    source = Reconnecting(stream, Patience(back_off))
    source.open()
    caught: list[BaseException] = []

    def read() -> None:
        try:
            source.read()
        except BaseException as error:
            caught.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    if where == "wait":
        _wait_for(lambda: source._down_since is not None)
    else:
        assert blocks.begun.wait(WAIT)
    start = time.monotonic()
    source.interrupt()
    reader.join(WAIT)
    assert time.monotonic() - start < 5  # half a second, and a busy machine
    assert not reader.is_alive() and type(caught[0]) is StreamEnded
    assert "was closed" in str(caught[0])
    blocks.over.set()


def test_what_is_closed_stays_closed() -> None:
    connections = _Connections([1], [2])
    source = Reconnecting(_Stream(connections))
    with refused(StreamEnded, "is not open"):
        source.read()
    source.open()
    source.close()
    source.close()
    with refused(StreamEnded, "was closed"):
        source.read()
    with refused(StreamEnded, "was closed"):
        source.open()
    assert connections.closed == connections.opened == 1


def test_a_camera_that_comes_and_goes() -> None:
    """Over HTTP: stalls, drops in a frame, sends garbage, refuses, ends, and is whole again."""
    pytest.importorskip("av")
    jpegs = [plain_jpeg(20 * number) for number in range(6)]
    scripts: list[list[Any]] = [
        [head(), part(jpegs[0]), part(jpegs[1])[:500], Stall()],
        [head(), part(jpegs[1]), part(jpegs[2])[:-300]],
        [bytes(range(256)) * 40],
        [head(status="503 Service Unavailable")],
        [head(), part(jpegs[2]), bytes(range(256)) * 40],
        [Stall()],
        [head(), part(jpegs[3]), part(jpegs[4])],
    ]
    with MjpegServer(*scripts) as server:
        stream = open_source(server.url, open_s=0.5, read_s=0.3)
        with Reconnecting(stream, Patience(_QUICK)) as source:
            source.open()
            values: list[int] = []
            while len(values) < 5:
                try:
                    values.append(round(float(source.read().pixels.mean())))
                except BrokenFrame:
                    continue
            assert values == [0, 20, 40, 60, 80]
            assert source.reconnects == 3 and source.hung == 0
        assert len(server.requests) == len(scripts)


def _wait_for(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)
