"""Both scans against the sorted list of all distances, and which of them is chosen."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fgdeploy.core.errors import MissingDependency
from fgdeploy.retrieval import search_codes, search_radius
from fgdeploy.retrieval.scan import search
from tests.checks import examples
from tests.fgdeploy.retrieval import naive
from tests.fgdeploy.retrieval.scan.conftest import CHUNK, mask, needs_numba

pytestmark = pytest.mark.usefixtures("small_chunks")


KERNELS = ["numpy", "numba"] if search.has_numba() else ["numpy"]


both = pytest.mark.parametrize("kernel", KERNELS)


thorough = examples(100)


WIDTHS = [2, 7, 8, 9, 13, 16, 20]  # bytes; one, two and three words


counts = st.one_of(
    st.integers(1, 70),
    st.sampled_from([511, 512, 513, 1023, 1025, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 65]),
)


query_counts = st.sampled_from([1, 2, 7, 8, 9, 23, 24, 25, 63, 64, 65, 70])


some = st.sampled_from([None, 0.0, 0.001, 0.1, 0.5, 0.99, 1.0])  # how many rows are allowed


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
def test_large_work_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def ready(words: int) -> bool:
        asked.append(words)
        return len(asked) > 1

    monkeypatch.setattr(search.ahead.ahead, "ready", ready)
    monkeypatch.setattr(search, "_scanned", 0)
    half = search._WORTH_NUMBA // 2
    kernels = [search.chosen("auto", half, 9) for _ in range(4)]
    assert kernels == ["numpy", "numpy", "numpy", "numba"]  # what was scanned counts together
    assert asked == [2, 2]  # and NumPy goes on until the compiled scan is ready


@needs_numba
def test_many_searches_of_little_do_without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search.ahead.ahead, "ready", lambda words: pytest.fail("not worth it"))
    monkeypatch.setattr(search, "_scanned", 0)
    little = search._WORTH_COUNTING - 1
    for _ in range(2 * search._WORTH_NUMBA // little):
        assert search.chosen("auto", little, 8) == "numpy"


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
