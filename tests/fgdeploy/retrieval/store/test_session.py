"""Threads, forks and closing: every search sees one transaction, whoever writes meanwhile."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fgdeploy.core.errors import IndexStoreError
from fgdeploy.retrieval import Index, Item
from fgdeploy.retrieval.store import derived, session, writing
from fgdeploy.retrieval.store.session import Session
from tests.checks import refused
from tests.fgdeploy.retrieval.samples import BITS, MODEL, ZERO, names, photo, raw

BATCH, BATCHES = 20, 30


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let little data fill batches and segments."""
    monkeypatch.setattr(writing, "BATCH", BATCH)
    monkeypatch.setattr(derived, "TAIL_ROWS", 50)


def in_threads(works: list[Callable[[], None]]) -> None:
    """Run all at once, and raise what one of them raised."""
    caught: list[BaseException] = []

    def run(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            caught.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if caught:
        raise caught[0]


@pytest.mark.parametrize("own", [True, False], ids=["one index", "an index each"])
def test_each_search_sees_whole_batches_that_were_acknowledged(
    own: bool, small: None, path: Path
) -> None:
    acknowledged, finished = 0, threading.Event()
    seen: set[int] = set()

    def write() -> None:
        def progress(done: int) -> None:
            nonlocal acknowledged
            acknowledged = done

        try:
            with Index.open(path) as index:
                writer = shared if own else index
                writer.add(
                    (
                        photo(str(n), n % 7, "owl" if n % 2 else None)
                        for n in range(BATCH * BATCHES)
                    ),
                    progress,
                )
        finally:
            finished.set()

    def read() -> None:
        with Index.open(path) as index:
            reader = shared if own else index
            while not finished.is_set():
                before = acknowledged
                found, gaps = reader.search_ids(ZERO, BATCH * BATCHES)
                odd = reader.search_ids(ZERO, 10**6, where="label = 'owl'")[0][0]
                after = acknowledged
                count = found.shape[1]
                assert count % BATCH == 0
                assert before <= count <= after + BATCH
                ids = range(1, count + 1)
                order = sorted(((n - 1) % 7).bit_count() * 10**6 + n for n in ids)
                assert (gaps[0].astype(np.int64) * 10**6 + found[0]).tolist() == order
                assert len(odd) % (BATCH // 2) == 0
                assert count // 2 <= len(odd) <= (after + BATCH) // 2
                seen.add(count)

    with Index.create(path, MODEL, BITS) as shared:
        in_threads([write, *[read] * 5])
        assert len(shared) == BATCH * BATCHES
        assert shared.stats().segments
        assert [problem for problem in shared.verify() if problem.fatal] == []
    assert seen, "nothing was read meanwhile, so this test showed nothing"


def test_threads_that_add_take_turns(small: None, index: Index) -> None:
    def adding(name: str) -> Callable[[], None]:
        def add() -> None:
            for turn in range(4):
                index.add(photo(f"{name}{turn}-{n}") for n in range(30))

        return add

    in_threads([adding(name) for name in "abcd"])
    assert len(index) == 480
    assert len({item.id for item in index.items()}) == 480


def test_threads_that_search_while_one_removes_and_compacts(small: None, index: Index) -> None:
    index.add(photo(str(n), n % 5) for n in range(300))
    finished = threading.Event()

    def change() -> None:
        try:
            for start in range(1, 200, 20):
                index.remove(range(start, start + 20))
                index.compact()
        finally:
            finished.set()

    def read() -> None:
        while not finished.is_set():
            (ids,) = index.search_ids(ZERO, 300)[0].tolist()
            assert len(ids) % 20 == 0
            assert sorted(ids) == list(range(301 - len(ids), 301))
            assert len(index.search(ZERO, 5)[0]) == 5

    in_threads([change, *[read] * 4])
    assert len(index) == 100


def search_once(index: Index) -> None:
    index.search(ZERO, 1)


def test_connections_of_ended_threads_go_away(three: Index) -> None:
    def opened() -> int:
        gc.collect()
        files = [os.path.realpath(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")]
        return sum(name.endswith(session.DATABASE) for name in files)

    before = opened()
    for _ in range(5):
        in_threads([lambda: search_once(three)] * 4)
    assert opened() == before


def test_a_child_that_was_forked_can_search_and_write(three: Index) -> None:
    three.search(ZERO, 1)
    child = os.fork()
    if child == 0:
        try:
            good = len(three.search(ZERO, 9)[0]) == 3 and three.add([photo("d")]).new == 1
            os._exit(0 if good else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert names(three) == ["a", "b", "c", "d"]
    assert len(three.search(ZERO, 9)[0]) == 4


def test_a_child_forked_in_the_middle_of_a_change_does_not_undo_it(
    small: None, three: Index, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child has a copy of the parent's open transaction; it must not roll that back."""
    monkeypatch.setattr(session, "LOCK_WAIT_S", 0.1)
    with three._session.transaction() as connection:
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("PRAGMA cache_spill = 1")
        text = "x" * 3000
        connection.executemany(
            "UPDATE items SET json = ? WHERE id = ?", [(text, number) for number in (1, 2, 3)]
        )
        connection.execute("CREATE TABLE many (text)")  # more pages than the cache holds
        connection.executemany("INSERT INTO many VALUES (?)", [(text,)] * 100)

        def forked() -> None:  # by a thread that has no part in the change
            child = os.fork()
            if child == 0:
                gc.collect()
                os._exit(0)
            os.waitpid(child, 0)

        in_threads([forked])
        assert (path / f"{session.DATABASE}-journal").exists()
        child = os.fork()
        if child == 0:
            try:
                Session(path).close()
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        assert (path / f"{session.DATABASE}-journal").exists()
    with raw(path) as other:
        assert other.execute("SELECT count(*) FROM many").fetchone() == (100,)
        assert other.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_closing_from_another_thread(small: None, index: Index) -> None:
    index.add(photo(str(n)) for n in range(500))
    answers: list[int] = []

    def read() -> None:
        with refused(IndexStoreError, "closed"):
            while True:
                answers.append(len(index.search(ZERO, 400)[0]))

    def close() -> None:
        while not answers:
            time.sleep(0.001)
        index.close()

    in_threads([read, read, close])
    assert set(answers) == {400}


def test_closing_waits_for_what_runs(tmp_path: Path) -> None:
    """A connection closed under another thread's feet ends the process, so this runs in its own."""
    code = (
        "import sys, threading\n"
        "from pathlib import Path\n"
        "from fgdeploy.core.errors import IndexStoreError\n"
        "from fgdeploy.retrieval import Index\n"
        "from tests.fgdeploy.retrieval.samples import BITS, MODEL, ZERO, photo\n"
        "path = Path(sys.argv[1])\n"
        "with Index.create(path, MODEL, BITS) as index:\n"
        "    index.add(photo(str(n), n) for n in range(300))\n"
        "def until_closed(work):\n"
        "    try:\n"
        "        while True:\n"
        "            work()\n"
        "            begun.set()\n"
        "    except IndexStoreError as error:\n"
        "        assert 'is closed; open the index anew' in str(error), error\n"
        "for number in range(100):\n"
        "    index, begun = Index.open(path), threading.Event()\n"
        "    search = lambda: index.search(ZERO, 200)\n"
        "    write = lambda: index.add([photo('new', number)])\n"
        "    works = [search, search, search, write]\n"
        "    threads = [threading.Thread(target=until_closed, args=(work,)) for work in works]\n"
        "    for thread in threads:\n"
        "        thread.start()\n"
        "    begun.wait()\n"
        "    index.close()\n"
        "    for thread in threads:\n"
        "        thread.join()\n"
        "with Index.open(path) as index:\n"
        "    assert len(index) in (300, 301)\n"
        "    assert not [problem for problem in index.verify() if problem.fatal]\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "gallery.fgi")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (run.returncode, run.stderr) == (0, "")


def test_closing_within_a_search_of_the_same_thread(three: Index) -> None:
    with refused(IndexStoreError, "closed"), three._session.reading() as connection:
        three.close()
        connection.execute("SELECT 1")


def test_a_closed_index_tells_so_in_every_thread(three: Index) -> None:
    three.close()

    def use() -> None:
        with refused(IndexStoreError, r"gallery\.fgi is closed; open the index anew$"):
            three.search(ZERO, 1)

    use()
    in_threads([use])


def test_an_error_undoes_all_and_keeps_the_number_of_the_last_change(three: Index) -> None:
    before = three.stats().version
    with pytest.raises(KeyError), three._session.transaction() as connection:
        connection.execute("DELETE FROM items")
        raise KeyError
    assert (len(list(three.items())), three.stats().version) == (3, before)
    three.add([Item("/d", bytes(4))])
    assert three.stats().version == before + 1


def test_every_change_is_synced_to_the_disk(three: Index) -> None:
    def look() -> None:
        connection = three._session.connection
        assert connection.execute("PRAGMA synchronous").fetchone() == (3,)  # EXTRA
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        assert connection.execute("PRAGMA trusted_schema").fetchone() == (0,)

    look()
    in_threads([look])


def test_a_thread_that_ended_leaves_no_file_open(index: Index) -> None:
    """Not even until the garbage collector runs, which rests while the fast search is loaded."""
    index.add_codes(np.zeros((3, index.bits // 8), np.uint8))
    len(index)
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    gc.disable()
    try:
        for _ in range(20):
            in_threads([lambda: None if len(index) == 3 else pytest.fail("not all there")])
        assert len(os.listdir("/proc/self/fd")) == before
    finally:
        gc.enable()


def test_an_index_opened_in_a_thread_that_ended_stays_open(tmp_path: Path) -> None:
    opened: list[Index] = []
    in_threads([lambda: opened.append(Index.create(tmp_path / "g.fgi", "ab" * 32, 16))])
    gc.collect()
    anchor = opened[0]._session._anchor.connection
    assert anchor.execute("SELECT 1").fetchone() == (1,)
    opened[0].close()
