"""The writer's lock: one holder, told by number, freed by any end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fgdeploy.core.errors import IndexStoreError
from fgdeploy.retrieval.store import lock
from tests.checks import refused

HOLD = """
import sys
from pathlib import Path
from fgdeploy.retrieval.store import lock

with lock.held(Path(sys.argv[1]), 5):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Give another process that holds the lock until its input ends."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        yield child


def test_one_after_another(tmp_path: Path) -> None:
    for _ in range(3):
        with lock.held(tmp_path, 0):
            assert (tmp_path / lock.NAME).read_text() == str(os.getpid())
    assert [entry.name for entry in tmp_path.iterdir()] == [lock.NAME]


def test_another_holder_is_told_by_its_number(tmp_path: Path) -> None:
    with holder(tmp_path) as other:
        words = (
            rf"^{tmp_path}: another process is writing to it \(process {other.pid}\); "
            "wait for it to finish$"
        )
        with refused(IndexStoreError, words), lock.held(tmp_path, 0.05):
            pytest.fail("two hold one lock")


def test_a_holder_that_finishes_is_waited_for(tmp_path: Path) -> None:
    with holder(tmp_path) as other:
        assert other.stdin is not None
        other.stdin.close()
        with lock.held(tmp_path, 30):
            assert other.wait(30) == 0


def test_a_killed_holder_frees_the_lock(tmp_path: Path) -> None:
    with holder(tmp_path) as other:
        other.send_signal(signal.SIGKILL)
        other.wait(30)
        with lock.held(tmp_path, 0):
            assert (tmp_path / lock.NAME).read_text() == str(os.getpid())


def test_an_error_inside_frees_the_lock(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), lock.held(tmp_path, 0):
        raise KeyboardInterrupt
    with lock.held(tmp_path, 0):
        pass


@pytest.mark.parametrize("text", ["", "no number", "12345678901234567890123", "\xff"])
def test_a_holder_without_a_number(text: str, tmp_path: Path) -> None:
    with holder(tmp_path):
        (tmp_path / lock.NAME).write_bytes(text.encode("latin-1"))
        with (
            refused(IndexStoreError, r"another process is writing to it(; | \(process \d{20}\); )"),
            lock.held(tmp_path, 0),
        ):
            pytest.fail("two hold one lock")


def test_a_child_that_was_forked_meanwhile_does_not_keep_the_lock(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    with lock.held(tmp_path, 0):
        child = os.fork()
        if child == 0:
            os.close(writing)
            os.read(reading, 1)  # until the parent ends it
            os._exit(0)
    try:
        with lock.held(tmp_path, 0):
            pass
    finally:
        os.close(writing)
        os.close(reading)
        os.waitpid(child, 0)


def test_a_child_that_leaves_the_block_does_not_free_the_lock(tmp_path: Path) -> None:
    child = -1
    with lock.held(tmp_path, 0):
        child = os.fork()
        if child:
            os.waitpid(child, 0)
            with refused(IndexStoreError, "another process is writing"), lock.held(tmp_path, 0):
                pytest.fail("two hold one lock")
        # and here the child leaves it
    if not child:
        os._exit(0)


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(PermissionError), lock.held(tmp_path, 0):
            pass
    finally:
        tmp_path.chmod(0o755)


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), lock.held(tmp_path / "gone", 0):
        pass
