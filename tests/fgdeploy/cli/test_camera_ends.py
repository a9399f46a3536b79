"""How `fgdeploy camera` ends on a stream that does not: signals, kill -9, nobody reading."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from fgdeploy.retrieval import Index
from tests.fgdeploy.camera.mjpeg_server import MjpegServer
from tests.fgdeploy.cli.clips import endless

pytest.importorskip("av")
ROOT = Path(__file__).resolve().parents[3]
WAIT = 60.0


@pytest.fixture(scope="module")
def stream(moths: Path) -> Iterator[str]:
    """The address of a camera that shows all moths in turn."""
    with MjpegServer(endless(sorted(moths.rglob("*.jpg")))) as server:
        yield server.url


@contextmanager
def camera(folder: Path, *words: object) -> Iterator[subprocess.Popen[str]]:
    """Run the command in a folder; it is killed if the test leaves it running."""
    process = subprocess.Popen(
        [sys.executable, "-m", "fgdeploy", "camera", *map(str, words)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    watchdog = subprocess.Popen(["sh", "-c", f"sleep {WAIT}; kill -9 {process.pid} 2>/dev/null"])
    try:
        yield process
    finally:
        watchdog.kill()
        watchdog.wait()
        process.kill()
        process.communicate()


def enrolled(output: IO[str] | None, count: int) -> list[str]:
    """Read so many lines of items from the output, and return their paths."""
    assert output is not None
    found: list[str] = []
    while len(found) < count:
        line = output.readline()
        assert line, "it ended"
        if path := json.loads(line)["enrolled"]:
            found.append(path)
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_all_that_was_told_on_the_disk(
    number: signal.Signals, stream: str, bundle: Path, tmp_path: Path
) -> None:
    words = [stream, "-b", bundle, "-i", "g.fgi", "--enroll", "moth", "--json"]
    with camera(tmp_path, *words, "--preview", "out.mp4") as process:
        told = enrolled(process.stdout, 3)
        with Index.open(tmp_path / "g.fgi") as index:  # others search meanwhile
            assert index.by_path(told).keys() == set(told)
            codes = [item.code for item in index.get([1])]
        process.send_signal(number)
        rest, messages = process.communicate(timeout=WAIT)
        assert process.returncode == 0, messages
    lines = [json.loads(line)["enrolled"] for line in rest.splitlines()]
    told += [path for path in lines if path]
    with Index.open(tmp_path / "g.fgi") as index:
        assert [item.path for item in index.items()] == told
        assert index.verify() == [] and codes
    assert f"enrolled {len(told)} frames as moth" in messages
    assert messages.splitlines()[-1].endswith("next: fgdeploy camera SOURCE --index g.fgi")
    assert (tmp_path / "out.mp4").stat().st_size > 1000
    assert not (tmp_path / "out.mp4.part").exists()


def test_kill_9_loses_nothing_that_was_told(stream: str, bundle: Path, tmp_path: Path) -> None:
    words = [stream, "-b", bundle, "-i", "g.fgi", "--enroll", "moth", "--json"]
    told: list[str] = []
    for _ in range(2):
        with camera(tmp_path, *words, "--keep-thumbnails") as process:
            told += enrolled(process.stdout, 6)
            process.kill()
            rest, _ = process.communicate(timeout=WAIT)
        whole = [line for line in rest.splitlines(keepends=True) if line.endswith("\n")]
        told += [path for path in (json.loads(line)["enrolled"] for line in whole) if path]
        with Index.open(tmp_path / "g.fgi") as index:
            assert index.verify() == []
            paths = [str(item.path) for item in index.items()]
            assert set(told) <= set(paths)
            assert len(paths) <= len(told) + 2  # one more may be there, not told any more, a run
            assert index.bundle == bundle.absolute()


def test_it_ends_when_nobody_reads(stream: str, bundle: Path, tmp_path: Path) -> None:
    with camera(tmp_path, stream, "-b", bundle, "--json") as process:
        assert process.stdout is not None and process.stdout.readline().startswith('{"frame"')
        process.stdout.close()
        assert process.wait(WAIT) == 141  # as `| head -1` makes of it


def test_a_browser_sees_the_preview_until_the_camera_ends(
    stream: str, bundle: Path, tmp_path: Path
) -> None:
    words = [stream, "-b", bundle, "--preview", "http://127.0.0.1:0"]
    with camera(tmp_path, *words) as process:
        assert process.stderr is not None
        address = next(line.split()[1] for line in process.stderr if line.startswith("preview: "))
        with urllib.request.urlopen(address, timeout=WAIT) as answer:
            assert answer.headers["Content-Type"].startswith("multipart/x-mixed-replace")
            assert b"image/jpeg" in answer.read(3000)
            process.send_signal(signal.SIGTERM)
            while answer.read(65536):
                pass
        assert process.wait(WAIT) == 0
