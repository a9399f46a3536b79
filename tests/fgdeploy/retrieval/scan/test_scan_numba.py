"""The compiled scan at every border that it has: memory, queries, threads, processes."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from fgdeploy.retrieval import search_codes
from tests.fgdeploy.retrieval import naive
from tests.fgdeploy.retrieval.scan.conftest import CHUNK, mask, needs_numba

pytestmark = pytest.mark.usefixtures("small_chunks")


@needs_numba
@pytest.mark.parametrize("width", [8, 16])
@pytest.mark.parametrize("query_count", [1, 40])
def test_the_farthest_and_the_equal(width: int, query_count: int) -> None:
    """All distances are 0, or all the greatest: the counters' first and last values."""
    codes = np.full((1300, width), 0xA5, np.uint8)
    for queries in (codes[:query_count], ~codes[:query_count]):
        naive.same(search_codes(queries, codes, 7, kernel="numba"), naive.search(queries, codes, 7))


@needs_numba
@pytest.mark.parametrize("query_count", [1, 64])
@pytest.mark.parametrize("offset", range(8))
def test_codes_that_begin_at_any_byte(query_count: int, offset: int) -> None:
    """A view into a file can begin anywhere, and no byte outside of it may count."""
    queries, drawn = naive.draw(offset, query_count, 1100, 8)
    memory = np.full(drawn.size + 64, 0xFF, np.uint8)
    codes = memory[offset : offset + drawn.size].reshape(drawn.shape)
    codes[:] = drawn
    naive.same(search_codes(queries, codes, 5, kernel="numba"), naive.search(queries, drawn, 5))


@needs_numba
def test_no_byte_around_the_codes_is_touched() -> None:
    """Codes fill their pages; the pages before and behind cannot be read without a crash."""
    code = (
        "import ctypes, mmap\n"
        "import numpy as np\n"
        "from fgdeploy.retrieval import search_codes, search_radius\n"
        "from tests.fgdeploy.retrieval import naive\n"
        "page, libc = mmap.PAGESIZE, ctypes.CDLL(None, use_errno=True)\n"
        "def codes_at(edge, rows, width):\n"
        "    size = -(-rows * width // page) * page\n"
        "    memory = mmap.mmap(-1, size + 2 * page)\n"
        "    whole = np.frombuffer(memory, np.uint8)\n"
        "    begin = page if edge == 'first' else page + size - rows * width\n"
        "    for guard in (0, page + size):\n"
        "        place = ctypes.c_void_p(whole.ctypes.data + guard)\n"
        "        assert libc.mprotect(place, page, 0) == 0\n"
        "    return whole[begin : begin + rows * width].reshape(rows, width)\n"
        "for width in (*range(1, 17), 20, 24, 31, 32, 60, 64):\n"
        "    for rows in (1, 7, 8, 9, 65, 513, 1100):\n"
        "        queries, drawn = naive.draw(width, 24, rows, width)\n"
        "        right = [naive.search(queries[:n], drawn, 3) for n in (1, 24)]\n"
        "        near = naive.radius(queries[0], drawn, 3 * width)\n"
        "        for edge in ('first', 'last'):\n"
        "            codes = codes_at(edge, rows, width)\n"
        "            codes[:] = drawn\n"
        "            for n, each in zip((1, 24), right):\n"
        "                naive.same(search_codes(queries[:n], codes, 3, kernel='numba'), each)\n"
        "            found = search_radius(queries[0], codes, 3 * width, kernel='numba')\n"
        "            naive.same(found, near)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")


@needs_numba
@pytest.mark.parametrize("order", ["nearest first", "nearest last"])
def test_codes_in_order_of_distance(order: str) -> None:
    """Nothing is accepted after the first rows, or every single row is."""
    steps = np.arange(6000) * 64 // 6000
    bits = np.arange(64) < steps[:: 1 if order == "nearest first" else -1, None]
    codes, queries = np.packbits(bits, axis=1), np.zeros((9, 8), np.uint8)
    for k in (1, 90, 1000):
        for some in (queries, queries[:1]):
            naive.same(search_codes(some, codes, k, kernel="numba"), naive.search(some, codes, k))


@needs_numba
def test_many_queries_that_do_not_fit_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from fgdeploy.retrieval.scan import scan_numba

    queries, codes = naive.draw(4, 61, 700, 8)
    monkeypatch.setattr(scan_numba, "_MOST_QUERIES", 20)  # the last tile has one query
    naive.same(search_codes(queries, codes, 9, kernel="numba"), naive.search(queries, codes, 9))
    monkeypatch.setattr(scan_numba, "_KEY_BYTES", 1)
    naive.same(search_codes(queries, codes, 9, kernel="numba"), naive.search(queries, codes, 9))


@needs_numba
def test_searches_at_the_same_time() -> None:
    """Threads of the caller share the helpers of the search, but none of its memory."""
    queries, codes = naive.draw(5, 40, 3 * CHUNK, 8)

    def look(number: int) -> None:
        part = queries[number : number + 1 + number % 20]
        allowed = mask(number, len(codes), None if number % 2 else 0.3)
        found = search_codes(part, codes, 9, allowed=allowed, threads=3, kernel="numba")
        naive.same(found, naive.search(part, codes, 9, allowed))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(look, range(40)))


@needs_numba
def test_many_more_threads_than_cores() -> None:
    """Memory that a scan uses must be its own: where it is not, this crashes or answers wrongly.

    In a process of its own, which a crash would end. Scans that freed their scratch memory too
    early failed here each time.
    """
    code = (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from fgdeploy.retrieval import search_codes, search_radius\n"
        "from fgdeploy.retrieval.scan import scan_numba\n"
        "from tests.fgdeploy.retrieval import naive\n"
        f"scan_numba.CHUNK, scan_numba._THREAD_WORK = {CHUNK}, 1\n"
        f"queries, codes = naive.draw(5, 40, {3 * CHUNK}, 8)\n"
        "right = [naive.search(queries[n : 2 * n + 1], codes, 9) for n in range(20)]\n"
        "near = naive.radius(queries[0], codes, 24)\n"
        "how = {'threads': 3, 'kernel': 'numba'}\n"
        "def look(number):\n"
        "    n = number % 20\n"
        "    naive.same(search_codes(queries[n : 2 * n + 1], codes, 9, **how), right[n])\n"
        "    naive.same(search_radius(queries[0], codes, 24, **how), near)\n"
        "with ThreadPoolExecutor(16) as pool:\n"
        "    list(pool.map(look, range(1500)))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")


@needs_numba
def test_nothing_runs_any_more_when_a_search_is_broken_off() -> None:
    """Ctrl-C lets go of the codes, so no helper may still read them."""
    from fgdeploy.retrieval.scan import scan_numba

    begun, ended = threading.Event(), threading.Event()

    def work(worker: int) -> None:
        if worker == 0:
            begun.wait()
            raise KeyboardInterrupt
        begun.set()
        time.sleep(0.2)
        ended.set()

    with pytest.raises(KeyboardInterrupt):
        scan_numba.together(work, 2)
    assert ended.is_set()


def _search_in_child(seed: int) -> None:
    queries, codes = naive.draw(seed, 3, 3 * CHUNK, 8)
    found = search_codes(queries, codes, 9, threads=3, kernel="numba")
    naive.same(found, naive.search(queries, codes, 9))


@needs_numba
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_has_helpers_of_its_own() -> None:
    _search_in_child(0)  # the parent has its threads, which a fork does not copy
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of this very case
        child = multiprocessing.get_context("fork").Process(target=_search_in_child, args=(1,))
        child.start()
    child.join(60)
    if child.is_alive():
        child.kill()
    assert child.exitcode == 0
    _search_in_child(2)


@needs_numba
def test_threads_only_where_they_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    from fgdeploy.retrieval.scan import scan_numba

    monkeypatch.setattr(scan_numba, "_THREAD_WORK", 3 * CHUNK)
    assert scan_numba._workers(8, 2 * CHUNK, 1) == 1
    assert scan_numba._workers(8, 2 * CHUNK, 2) == 1
    assert scan_numba._workers(8, 2 * CHUNK, 3) == 2
    assert scan_numba._workers(8, 2 * CHUNK, 99) == 2  # there are no more chunks
    assert scan_numba._workers(8, 99 * CHUNK, 99) == 8
    assert scan_numba._workers(3, 99 * CHUNK, 99) == 3


@needs_numba
def test_large_batches_are_timed_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    from fgdeploy.retrieval.scan import scan_numba
    from fgdeploy.retrieval.scan.pace import Pace

    monkeypatch.setattr(scan_numba, "_slicing", Pace())
    monkeypatch.setattr(scan_numba, "_TIMED_WORK", 9 * 600)
    ways: list[bool] = []
    real = Pace.note

    def note(self: Pace, kind: object, way: bool, seconds: float) -> None:
        ways.append(way)
        real(self, kind, way, seconds)  # type: ignore[arg-type]

    monkeypatch.setattr(Pace, "note", note)
    queries, codes = naive.draw(9, 9, 600, 8)
    right = naive.search(queries, codes, 3)
    for _ in range(6):
        naive.same(search_codes(queries, codes, 3, kernel="numba"), right)
    assert ways[:4] == [True, True, False, False] and len(ways) == 6
    search_codes(queries, codes[:599], 3, kernel="numba")  # too little
    search_codes(queries, codes, 3, kernel="numba", allowed=mask(1, 600, 0.5))  # filtered
    search_codes(queries[:7], np.tile(codes, (9, 1)), 3, kernel="numba")  # few queries
    assert len(ways) == 6
