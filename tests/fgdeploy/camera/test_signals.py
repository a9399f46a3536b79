"""Processes that are asked to end."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from fgdeploy.camera.signals import EndBySignal
from fgdeploy.retrieval import Index

WAIT = 60.0
SOON = 10.0  # a second, on a busy machine

SCRIPT = """
import sys, time
import fgdeploy
from fgdeploy.camera.signals import EndBySignal
from fgdeploy.retrieval import Index, Item
from tests.fgdeploy.camera.feeds import Feed, HeldEngine, hasher_on, numbered

class Endless(Feed):
    number = 0
    def read(self):
        self.number += 1
        self.push(numbered(self.number))
        time.sleep(0.001)
        return super().read()

index = Index.create(sys.argv[1], "ab" * 32, 24)
camera = fgdeploy.Camera(Endless(), hasher_on(HeldEngine()), index)
with index, EndBySignal(camera.close), camera:
    for result in camera:
        index.add([Item(f"camera://one/{result.number}", result.code, "moth")])
        print(result.number, flush=True)
        LOOP
print("ended", flush=True)
"""


def run(folder: Path, loop: str) -> subprocess.Popen[str]:
    script = textwrap.dedent(SCRIPT).replace("LOOP", loop)
    command = [sys.executable, "-c", script, str(folder / "g.fgi")]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes of the test, which do not outlive it."""
    running: list[subprocess.Popen[str]] = []
    yield running
    for process in running:
        process.kill()
        process.communicate(timeout=WAIT)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_ends_the_loop_with_the_gallery_committed(
    number: signal.Signals, tmp_path: Path, started: list[subprocess.Popen[str]]
) -> None:
    process = run(tmp_path, "pass")
    started.append(process)
    assert process.stdout is not None
    said = [process.stdout.readline() for _ in range(3)]
    process.send_signal(number)
    rest, _ = process.communicate(timeout=SOON)
    assert process.returncode == 0
    lines = "".join(said).split() + rest.split()
    assert lines.pop() == "ended"
    with Index.open(tmp_path / "g.fgi") as index:
        assert index.verify() == []
        assert [item.path for item in index.items()] == [f"camera://one/{line}" for line in lines]


def test_the_second_signal_ends_the_process_at_once(
    tmp_path: Path, started: list[subprocess.Popen[str]]
) -> None:
    process = run(tmp_path, "time.sleep(600)")
    started.append(process)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)  # the loop's body is not interrupted
    process.send_signal(signal.SIGINT)
    assert process.wait(SOON) == -signal.SIGINT
    with Index.open(tmp_path / "g.fgi") as index:
        assert len(index) == 1 and index.verify() == []


def test_handlers_are_given_back() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    closed: list[int] = []
    with EndBySignal(lambda: closed.append(1)) as asked:
        assert signal.getsignal(signal.SIGTERM) not in before
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    assert asked.received is None and not closed
