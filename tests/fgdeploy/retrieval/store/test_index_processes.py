"""Several processes, kill -9, rights."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fgdeploy.core.errors import IndexStoreError
from fgdeploy.retrieval import Added, Index
from fgdeploy.retrieval.store import session
from tests.checks import refused
from tests.fgdeploy.retrieval.samples import BITS, MODEL, NOBODY, ZERO, database, names, photo, raw

# Several processes


def test_a_second_writer_is_told(three: Index, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "LOCK_WAIT_S", 0.02)
    words = r"gallery\.fgi: another process is writing to it; wait for it to finish$"
    with raw(path) as writer, Index.open(path) as second:
        writer.execute("BEGIN IMMEDIATE")
        with refused(IndexStoreError, words):
            second.add([photo("d")])
        with refused(IndexStoreError, words):
            second.remove([1])
        assert len(second.search(ZERO, 5)[0]) == 3  # reading goes on
        writer.execute("ROLLBACK")
        assert second.add([photo("d")]) == Added(1)
    assert names(three) == ["a", "b", "c", "d"]


def test_readers_are_told_while_a_writer_holds_the_file_alone(
    three: Index, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "LOCK_WAIT_S", 0.02)
    with raw(path) as writer, Index.open(path) as reader:
        writer.execute("BEGIN EXCLUSIVE")
        for read in (reader.stats, reader.verify, lambda: reader.search(ZERO), reader.__len__):
            with refused(IndexStoreError, "another process is writing to it; wait for it"):
                read()
        with refused(IndexStoreError, "another process is writing to it; wait for it"):
            Index.open(path)
        writer.execute("ROLLBACK")
        assert len(reader.search(ZERO, 5)[0]) == 3


def test_reading_items_does_not_keep_a_writer_out(
    three: Index, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "LOCK_WAIT_S", 0.02)
    three.add(photo(str(number)) for number in range(2000))
    assert next(item.path for item in three.items()) == "/photos/a"  # and no further
    with Index.open(path) as other:
        assert other.add([photo("d")]) == Added(1)


CHILD = """
import sys
from fgdeploy.retrieval import Index, Item

path, width, start = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with Index.open(path) as index:
    # so that pages go to the file before the commit
    index._session.connection.execute("PRAGMA cache_size = 2")
    for turn in range(start, 100_000):
        index.add(Item(f"{turn}/{n}", bytes(4), "x" * 200, f"{turn} {n}") for n in range(width))
        print(turn, flush=True)
"""


def test_a_killed_writer_loses_nothing_that_was_acknowledged(index: Index, path: Path) -> None:
    chooser = random.Random(4)
    width, acknowledged, hot = 200, 0, 0
    for attempt in range(12):
        command = [sys.executable, "-c", CHILD, str(path), str(width), str(acknowledged)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for _ in range(chooser.randrange(1, 6)):
                acknowledged = int(child.stdout.readline()) + 1
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(chooser.random() * 0.01)
            child.send_signal(signal.SIGKILL)
            for line in child.stdout:  # printed before the kill took hold
                acknowledged = int(line) + 1
        assert child.returncode == -signal.SIGKILL
        hot += database(path).with_name(session.DATABASE + "-journal").exists()
        with Index.open(path) as again:
            assert not [problem for problem in again.verify() if problem.fatal]
            turns = {int(item.path.partition("/")[0]) for item in again.items()}
            # One transaction may be whole in the file and not yet told.
            assert turns >= set(range(acknowledged))
            assert turns <= set(range(acknowledged + 1))
            assert len(again) == width * len(turns)
            assert len(again.search(ZERO, 3)[0]) == 3
            assert again.add([]) == Added()
            again.remove([i.id for i in again.items() if i.path.startswith(f"{acknowledged}/")])
        if hot and attempt >= 3:
            break
    assert hot > 0, "no kill fell into a transaction, so this test showed nothing"


def test_twelve_writers_killed_at_work(tmp_path: Path) -> None:
    """The short form of benchmarks/faults/kill.py: adds, removals, segments, compacting."""
    script = Path(__file__).parents[4] / "benchmarks" / "faults" / "kill.py"
    done = subprocess.run(
        [sys.executable, script, "--kills", "12", "--seed", "1", "--folder", tmp_path],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("| all | 12 |")
    assert list(tmp_path.iterdir()) == []


# Rights


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """Give a folder that every user can reach, with an index of one item."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        path = Path(name) / "gallery.fgi"
        with Index.create(path, MODEL, BITS) as index:
            index.add([photo("a")])
        yield path


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """Give up root's rights, which overrule all others, and take them back."""
    if os.getuid() != 0:
        yield
        return
    try:
        os.setresuid(NOBODY, NOBODY, 0)
    except OSError:
        pytest.skip("root here cannot become another user")
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


@contextlib.contextmanager
def rights(path: Path, mode: int) -> Iterator[None]:
    before = path.stat().st_mode
    path.chmod(mode)
    try:
        with unprivileged():
            yield
    finally:
        path.chmod(before)


def test_a_read_only_index_can_be_searched_but_not_changed(open_to_all: Path) -> None:
    words = r"gallery\.fgi: it cannot be written \(read-only or no permission\); check its rights$"
    database(open_to_all).chmod(0o444)
    with rights(open_to_all, 0o555), Index.open(open_to_all) as index:
        assert len(index.search(ZERO, 5)[0]) == len(index) == 1
        with refused(IndexStoreError, words):
            index.add([photo("b")])
        with refused(IndexStoreError, words):
            index.remove([1])
        assert names(index) == ["a"]


def test_a_read_only_file_system(three: Index, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda place, mode: not mode & os.W_OK)
    with Index.open(path) as index:
        assert len(index.search(ZERO, 5)[0]) == 3
        with refused(IndexStoreError, r"it cannot be written .*; check its rights"):
            index.add([photo("b")])


def test_a_database_that_cannot_be_read(open_to_all: Path) -> None:
    with (
        rights(database(open_to_all), 0o000),
        refused(IndexStoreError, r"gallery\.fgi: .*no permission.*; check its rights"),
    ):
        Index.open(open_to_all)


def test_a_folder_that_cannot_be_entered(open_to_all: Path) -> None:
    with (
        rights(open_to_all, 0o600),
        refused(IndexStoreError, r"gallery\.fgi: .*no permission.*; check its rights"),
    ):
        Index.open(open_to_all)


def test_a_full_disk(three: Index, path: Path) -> None:
    three._session.connection.execute("PRAGMA max_page_count = 8")
    words = r"gallery\.fgi: the disk is full; nothing was lost, free some space and try again$"
    with refused(IndexStoreError, words):
        three.add(photo(f"{number}" * 100) for number in range(1000))
    assert names(three) == ["a", "b", "c"]
    assert [problem for problem in three.verify() if problem.fatal] == []
