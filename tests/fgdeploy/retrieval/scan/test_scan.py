"""Both scans against the sorted list of all distances, at every border that they have."""

from __future__ import annotations

import ast
import inspect
import multiprocessing
import os
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fgdeploy.core.errors import MissingDependency
from fgdeploy.retrieval import search_codes, search_radius
from fgdeploy.retrieval.scan import search
from tests.fgdeploy.retrieval import naive

KERNELS = ["numpy", "numba"] if search.has_numba() else ["numpy"]
needs_numba = pytest.mark.skipif(not search.has_numba(), reason="numba is not installed")
both = pytest.mark.parametrize("kernel", KERNELS)
thorough = settings(derandomize=True, deadline=None, max_examples=100)

CHUNK = 4096  # the smallest that any width allows
MANY = 8, 24  # queries from which on codes of one and of two words are bit-sliced
WIDTHS = [2, 7, 8, 9, 13, 16, 20]  # bytes; one, two and three words
counts = st.one_of(
    st.integers(1, 70),
    st.sampled_from([511, 512, 513, 1023, 1025, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 65]),
)
query_counts = st.sampled_from([1, 2, 7, 8, 9, 23, 24, 25, 63, 64, 65, 70])
some = st.sampled_from([None, 0.0, 0.001, 0.1, 0.5, 0.99, 1.0])  # how many rows are allowed


@pytest.fixture(autouse=True, scope="module")
def small_chunks() -> object:
    """Let threads take few rows at once, so that a small gallery has several chunks."""
    with pytest.MonkeyPatch.context() as patch:
        if search.has_numba():
            from fgdeploy.retrieval.scan import scan_numba

            assert scan_numba.CHUNK % CHUNK == 0
            assert tuple(scan_numba._MANY[words] for words in (1, 2)) == MANY
            patch.setattr(scan_numba, "CHUNK", CHUNK)
            patch.setattr(scan_numba, "_THREAD_WORK", 1)
        yield


def mask(seed: int, count: int, share: float | None) -> npt.NDArray[np.bool_] | None:
    """Return which rows are allowed: a share of them, but one row at least unless it is 0."""
    if share is None:
        return None
    allowed = np.random.default_rng(seed).random(count) < share
    if share:
        allowed[seed % count] = True
    return allowed


@both
@thorough
@given(
    seed=st.integers(0, 2**32 - 1),
    query_count=query_counts,
    count=counts,
    width=st.sampled_from(WIDTHS),
    different=st.sampled_from([1, 2, 5, 40, None, None]),
    k=st.one_of(st.integers(1, 20), st.integers(1, 3 * CHUNK)),
    share=some,
    threads=st.integers(1, 3),
    sliced=st.booleans(),
)
@example(0, 64, 2 * CHUNK + 65, 8, None, 10, None, 2, True)
@example(0, 64, 2 * CHUNK + 65, 8, None, 10, None, 2, False)
@example(1, 64, 2 * CHUNK + 65, 16, None, 10, 0.1, 3, True)
@example(2, 8, 513, 8, 1, 513, None, 1, True)
@example(3, 24, 512, 9, 2, 600, 1.0, 1, False)
def test_nearest_is_the_head_of_the_sorted_list(
    kernel: str,
    seed: int,
    query_count: int,
    count: int,
    width: int,
    different: int | None,
    k: int,
    share: float | None,
    threads: int,
    sliced: bool,
) -> None:
    """Many queries on short codes are bit-sliced or not, whichever is faster: here both."""
    queries, codes = naive.draw(seed, query_count, count, width, different)
    allowed = mask(seed, count, share)
    with pytest.MonkeyPatch.context() as patch:
        if kernel == "numba":
            patch.setattr("fgdeploy.retrieval.scan.scan_numba._slicing.choose", lambda *_: sliced)
        found = search_codes(queries, codes, k, allowed=allowed, threads=threads, kernel=kernel)
    naive.same(found, naive.search(queries, codes, k, allowed))


@both
@thorough
@given(
    seed=st.integers(0, 2**32 - 1),
    count=counts,
    width=st.sampled_from(WIDTHS),
    different=st.sampled_from([1, 3, 40, None]),
    radius=st.one_of(st.integers(0, 90), st.integers(0, 600)),
    share=some,
    threads=st.integers(1, 3),
)
def test_radius_is_the_head_of_the_sorted_list(
    kernel: str,
    seed: int,
    count: int,
    width: int,
    different: int | None,
    radius: int,
    share: float | None,
    threads: int,
) -> None:
    (queries, *_), codes = naive.draw(seed, 1, count, width, different)
    allowed = mask(seed, count, share)
    found = search_radius(queries, codes, radius, allowed=allowed, threads=threads, kernel=kernel)
    naive.same(found, naive.radius(queries, codes, radius, allowed))


@both
@pytest.mark.parametrize("width", range(1, 65))
def test_every_width(kernel: str, width: int) -> None:
    queries, codes = naive.draw(width, 26, 600, width)
    allowed = mask(width, 600, 0.5)
    for some in (queries, queries[:1]):
        naive.same(search_codes(some, codes, 9, kernel=kernel), naive.search(some, codes, 9))
        found = search_codes(some, codes, 9, kernel=kernel, allowed=allowed)
        naive.same(found, naive.search(some, codes, 9, allowed))
    found = search_radius(queries[0], codes, 4 * width, kernel=kernel)
    naive.same(found, naive.radius(queries[0], codes, 4 * width))


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
def test_compiled_functions_take_no_address_of_their_own_arrays() -> None:
    """Numba frees an array after the last line that names it, whatever its address is used for."""
    from fgdeploy.retrieval.scan import multi_index, scan_kernels

    kept, compiled = 0, 0
    for module in (scan_kernels, multi_index):
        for function in ast.parse(inspect.getsource(module)).body:
            if not isinstance(function, ast.FunctionDef):
                continue
            if not any(ast.unparse(each) == "compiled" for each in function.decorator_list):
                continue
            compiled += 1
            given = {argument.arg for argument in function.args.args}
            for node in ast.walk(function):
                if isinstance(node, ast.Attribute) and node.attr == "ctypes":
                    assert ast.unparse(node.value) in given, f"{function.name}: {node.lineno}"
                    kept += 1
    assert compiled >= 12 and kept == 2  # the tables that `scan_many` is given


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
def test_a_second_process_takes_the_compiled_scan_from_the_cache() -> None:
    queries, codes = naive.draw(6, 8, 10, 8)
    search_codes(queries, codes, 3, kernel="numba")
    search_codes(queries[:1], codes, 3, kernel="numba")
    code = (
        "import numpy as np\n"
        "from fgdeploy.retrieval import search_codes\n"
        "from fgdeploy.retrieval.scan import scan_kernels\n"
        "codes = np.zeros((10, 8), np.uint8)\n"
        "for queries in (codes[:8], codes[:1]): search_codes(queries, codes, 3, kernel='numba')\n"
        "for scan in (scan_kernels.scan, scan_kernels.scan_many):\n"
        "    print(sum(scan.stats.cache_hits.values()), sum(scan.stats.cache_misses.values()))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.split() == ["1", "0", "1", "0"]


@needs_numba
def test_the_cache_heeds_the_files_of_the_vector_code() -> None:
    """Numba itself looks at no other file than that of the function."""
    from fgdeploy.retrieval.scan import bitslice, scan_kernels, simd

    digests = [scan_kernels._digest(*some) for some in ((bitslice,), (simd,), (bitslice, simd))]
    assert len(set(digests)) == 3
    kept = os.listdir(scan_kernels.scan.stats.cache_path)
    assert any(f".scan_{digests[2]}-" in name for name in kept)


def test_small_work_does_not_import_numba() -> None:
    code = (
        "import sys, numpy as np\n"
        "from fgdeploy.retrieval import search_codes, search_radius\n"
        "codes = np.zeros((1000, 8), np.uint8)\n"
        "search_codes(codes[:2], codes, 3), search_radius(codes[0], codes, 3)\n"
        "print('numba' in sys.modules, 'llvmlite' in sys.modules)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.split() == ["False", "False"]


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


@needs_numba
def test_large_work_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "fgdeploy.retrieval.scan.scan_numba", raising=False)
    monkeypatch.setattr(search, "_scanned", 0)
    half = search._WORTH_NUMBA // 2
    kernels = [search.chosen("auto", half) for _ in range(3)]
    assert kernels == ["numpy", "numpy", "numba"]  # what was scanned counts together
    monkeypatch.setattr(search, "_scanned", 0)
    assert search.chosen("auto", search._WORTH_NUMBA + 1) == "numba"


def test_without_numba_numpy_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, codes = naive.draw(7, 9, 700, 8, 30)
    monkeypatch.setattr(search, "has_numba", lambda: False)
    monkeypatch.setattr(search, "_WORTH_NUMBA", -1)
    monkeypatch.setitem(
        sys.modules, "fgdeploy.retrieval.scan.scan_numba", None
    )  # importing it fails
    naive.same(search_codes(queries, codes, 9), naive.search(queries, codes, 9))
    naive.same(search_radius(queries[0], codes, 20), naive.radius(queries[0], codes, 20))
    for look in (
        lambda: search_codes(queries, codes, 9, kernel="numba"),
        lambda: search_radius(queries[0], codes, 9, kernel="numba"),
    ):
        with pytest.raises(MissingDependency, match=r'pip install "fgdeploy\[search\]"') as caught:
            look()
        assert (caught.value.package, caught.value.extra) == ("numba", "search")


@needs_numba
def test_where_no_compiled_code_can_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    import numba

    from fgdeploy.retrieval.scan import scan_kernels

    real = numba.njit
    caching: list[bool] = []

    def njit(*function: object, **options: bool) -> object:
        if function:  # numba's own
            return real(*function, **options)
        caching.append(options.get("cache", False))
        if caching[-1]:
            raise RuntimeError("cannot cache function: no locator available")
        return real(**options)

    def double(number: int) -> int:
        return 2 * number

    monkeypatch.setattr(scan_kernels.numba, "njit", njit)
    assert scan_kernels.compiled(double)(21) == 42
    assert caching[:2] == [True, False]
