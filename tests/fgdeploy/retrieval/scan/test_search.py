import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fgdeploy.core.codes import UInt8Array
from fgdeploy.core.errors import UsageError
from fgdeploy.retrieval import search_codes, search_radius
from fgdeploy.retrieval.scan import scan_numpy
from tests.checks import examples, refused
from tests.fgdeploy.retrieval import naive

thorough = examples(200)


def distance(one: UInt8Array, other: UInt8Array) -> int:
    left, right = (int.from_bytes(code.tobytes(), "big") for code in (one, other))
    return bin(left ^ right).count("1")


def ranking(query: UInt8Array, codes: UInt8Array) -> list[tuple[int, int]]:
    """Return (distance, row) of every code, in order: the definition, without any cleverness."""
    return sorted((distance(query, code), row) for row, code in enumerate(codes))


def draw_codes(
    seed: int, queries: int, count: int, width: int, different: int
) -> tuple[UInt8Array, UInt8Array]:
    """Return random queries and codes with at most `different` values, so with many ties."""
    chooser = np.random.default_rng(seed)
    palette = chooser.integers(0, 256, (different, width), dtype=np.uint8)
    return (
        palette[chooser.integers(0, different, queries)],
        palette[chooser.integers(0, different, count)],
    )


def assert_same(
    found: tuple[npt.NDArray[np.int64], npt.NDArray[np.uint16]],
    queries: UInt8Array,
    codes: UInt8Array,
    k: int,
) -> None:
    rows, distances = found
    top = min(k, len(codes))
    assert rows.dtype == np.int64
    assert distances.dtype == np.uint16
    assert rows.shape == distances.shape == (len(queries), top)
    for query, row, gap in zip(queries, rows, distances, strict=True):
        answer = list(zip(gap.tolist(), row.tolist(), strict=True))
        assert answer == ranking(query, codes)[:top]


@thorough
@given(
    seed=st.integers(0, 2**32 - 1),
    queries=st.integers(0, 5),
    count=st.integers(0, 50),
    width=st.integers(1, 64),
    different=st.sampled_from([1, 2, 3, 50]),
    k=st.integers(1, 60),
    cells=st.sampled_from([1, 7, 64, 1 << 23]),
)
@example(seed=0, queries=1, count=1, width=64, different=2, k=1, cells=1)
@example(seed=0, queries=5, count=50, width=1, different=1, k=49, cells=50)
@example(seed=0, queries=5, count=50, width=1, different=1, k=50, cells=101)
@example(seed=0, queries=5, count=50, width=8, different=3, k=51, cells=1 << 23)
def test_search_is_the_sorted_list_of_all_distances(
    seed: int, queries: int, count: int, width: int, different: int, k: int, cells: int
) -> None:
    wanted, codes = draw_codes(seed, queries, count, width, different)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan_numpy, "_CELLS", cells)
        found = search_codes(wanted, codes, k)
    assert_same(found, wanted, codes, k)


@thorough
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(0, 50),
    width=st.integers(1, 64),
    different=st.sampled_from([1, 2, 3, 50]),
    radius=st.one_of(st.integers(0, 8), st.integers(0, 600)),
)
def test_radius_is_the_head_of_the_sorted_list(
    seed: int, count: int, width: int, different: int, radius: int
) -> None:
    wanted, codes = draw_codes(seed, 1, count, width, different)
    rows, distances = search_radius(wanted[0], codes, radius)
    expected = [(gap, row) for gap, row in ranking(wanted[0], codes) if gap <= radius]
    assert list(zip(distances.tolist(), rows.tolist(), strict=True)) == expected


@pytest.mark.parametrize("queries", [1, 2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize("cells", [1, 9, 10, 19, 20, 21, 30])
def test_chunk_borders_change_nothing(
    queries: int, cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, codes = draw_codes(7, queries, 10, 4, 3)
    whole = search_codes(wanted, codes, 4)
    monkeypatch.setattr(scan_numpy, "_CELLS", cells)
    parts = search_codes(wanted, codes, 4)
    np.testing.assert_array_equal(parts[0], whole[0])
    np.testing.assert_array_equal(parts[1], whole[1])


def test_equal_codes_come_in_order_of_row() -> None:
    codes = np.zeros((1000, 8), np.uint8)
    rows, distances = search_codes(codes[:2], codes, 17)
    assert rows.tolist() == [list(range(17))] * 2
    assert not distances.any()


def test_a_large_gallery_against_lexsort() -> None:
    chooser = np.random.default_rng(3)
    codes = chooser.integers(0, 256, (20_000, 2), dtype=np.uint8)
    for query in codes[:2]:
        expected = np.unpackbits(query ^ codes, axis=1).sum(axis=1)
        order = np.lexsort((np.arange(len(codes)), expected))
        for k in (*range(1, 300), 19_998, 19_999, 20_000):
            rows, distances = search_codes(query[None], codes, k)
            np.testing.assert_array_equal(rows[0], order[:k])
            np.testing.assert_array_equal(distances[0], expected[order[:k]])


def test_the_farthest_codes_of_the_longest_width() -> None:
    codes = np.full((2, 64), 255, np.uint8)
    rows, distances = search_codes(np.zeros((1, 64), np.uint8), codes, 2)
    assert rows.tolist() == [[0, 1]]
    assert distances.tolist() == [[512, 512]]


def test_views_that_are_not_contiguous_and_read_only_arrays() -> None:
    wanted, codes = draw_codes(5, 4, 40, 16, 10)
    codes.flags.writeable = False
    thin = codes[::3, ::2]
    assert_same(search_codes(wanted[::2, ::2], thin, 5), wanted[::2, ::2], thin, 5)


def test_neither_side_is_changed() -> None:
    wanted, codes = draw_codes(6, 3, 30, 5, 4)
    before = wanted.copy(), codes.copy()
    search_codes(wanted, codes, 3)
    search_radius(wanted[0], codes, 9)
    np.testing.assert_array_equal(wanted, before[0])
    np.testing.assert_array_equal(codes, before[1])


def test_an_empty_gallery_gives_no_answers() -> None:
    wanted, codes = np.zeros((3, 8), np.uint8), np.zeros((0, 8), np.uint8)
    rows, distances = search_codes(wanted, codes, 5)
    assert rows.shape == distances.shape == (3, 0)
    rows, distances = search_radius(wanted[0], codes, 64)
    assert rows.shape == distances.shape == (0,)


def test_no_queries_give_no_rows() -> None:
    rows, distances = search_codes(np.zeros((0, 8), np.uint8), np.zeros((4, 8), np.uint8), 3)
    assert rows.shape == distances.shape == (0, 3)


@pytest.mark.parametrize("kernel", ["numpy", "numba"])
def test_views_read_only_arrays_and_nothing_at_all(kernel: str) -> None:
    if kernel == "numba":
        pytest.importorskip("numba")
    wanted, codes = naive.draw(8, 40, 900, 16, 50)
    wanted.flags.writeable = codes.flags.writeable = False
    for part, whole in (
        (wanted[::2, ::2], codes[::3, ::2]),
        (wanted[::-1], codes[::-1]),
        (np.asfortranarray(wanted), np.asfortranarray(codes)),
        (wanted[:0], codes),
        (wanted, codes[:0]),
        (wanted[:0], codes[:0]),
    ):
        found = search_codes(part, whole, 5, kernel=kernel)
        assert found[0].shape == (len(part), min(5, len(whole)))
        if len(part) and len(whole):
            naive.same(found, naive.search(part, whole, 5))
            near = search_radius(part[0], whole, 60, kernel=kernel)
            naive.same(near, naive.radius(part[0], whole, 60))
    rows, distances = search_radius(wanted[0], codes[:0], 60, kernel=kernel)
    assert rows.shape == distances.shape == (0,)
    allowed = np.zeros(len(codes), bool)
    assert search_codes(wanted, codes, 5, allowed=allowed, kernel=kernel)[0].shape == (40, 0)
    assert len(search_radius(wanted[0], codes, 128, allowed=allowed, kernel=kernel)[0]) == 0


@pytest.mark.parametrize("k", [0, -1, -100, True, 2.0, "3"])
@pytest.mark.parametrize("count", [0, 3])
def test_k_that_is_not_a_number_from_one_on(k: int, count: int) -> None:
    with refused(UsageError, rf"^k is {k}; expected at least one result$"):
        search_codes(np.zeros((1, 8), np.uint8), np.zeros((count, 8), np.uint8), k)


def test_numbers_of_numpy_are_numbers() -> None:
    codes = np.zeros((3, 8), np.uint8)
    assert search_codes(codes, codes, np.int64(2))[0].shape == (3, 2)  # type: ignore[arg-type]
    assert len(search_radius(codes[0], codes, np.uint16(2))[0]) == 3  # type: ignore[arg-type]


@pytest.mark.parametrize("threads", [0, -1, True, 1.5, "2"])
def test_threads_that_are_not_a_number_from_one_on(threads: int) -> None:
    codes = np.zeros((3, 8), np.uint8)
    words = rf"^threads is {threads}; expected 1 or more$"
    with refused(UsageError, words):
        search_codes(codes, codes, 1, threads=threads)
    with refused(UsageError, words):
        search_radius(codes[0], codes, 1, threads=threads)


def test_a_kernel_that_does_not_exist() -> None:
    codes = np.zeros((3, 8), np.uint8)
    words = "^no kernel 'cuda'; choose one of auto, numba, numpy, faiss-gpu$"
    with refused(UsageError, words):
        search_codes(codes, codes, 1, kernel="cuda")
    with refused(UsageError, words):
        search_radius(codes[0], codes, 1, kernel="cuda")


@pytest.mark.parametrize(
    ("allowed", "got"),
    [
        (np.ones(4, bool), r"bool \(4,\)"),
        (np.ones((3, 1), bool), r"bool \(3, 1\)"),
        (np.ones(3, np.uint8), r"uint8 \(3,\)"),
        ([True, True, True], r"list \(\)"),
    ],
)
def test_allowed_rows_are_one_bool_for_each_code(allowed: npt.NDArray[np.bool_], got: str) -> None:
    codes = np.zeros((3, 8), np.uint8)
    words = rf"^allowed: expected bool \(3,\), one for each code, got {got}$"
    with refused(UsageError, words):
        search_codes(codes, codes, 1, allowed=allowed)
    with refused(UsageError, words):
        search_radius(codes[0], codes, 1, allowed=allowed)


@pytest.mark.parametrize("width", [0, 65])
def test_codes_that_no_model_makes(width: int) -> None:
    codes = np.zeros((3, width), np.uint8)
    words = rf"^codes have {width} bytes; expected 1 to 64 \(512 bits\)$"
    with refused(UsageError, words):
        search_codes(codes, codes, 1)
    with refused(UsageError, words):
        search_radius(codes[0], codes, 1)


@pytest.mark.parametrize("radius", [True, 2.0, "2", None])
def test_a_radius_that_is_not_a_number_of_bits(radius: int) -> None:
    with refused(UsageError, rf"^radius is {radius!r}; expected a whole number of bits$"):
        search_radius(np.zeros(8, np.uint8), np.zeros((3, 8), np.uint8), radius)


def test_a_negative_radius() -> None:
    with refused(UsageError, r"^radius is -1; it cannot be negative$"):
        search_radius(np.zeros(8, np.uint8), np.zeros((3, 8), np.uint8), -1)


@pytest.mark.parametrize(
    ("queries", "codes", "name", "got"),
    [
        (np.zeros((1, 8), np.int64), np.zeros((3, 8), np.uint8), "queries", r"int64 \(1, 8\)"),
        (np.zeros((1, 8), np.uint8), np.zeros((3, 8), np.float32), "codes", r"float32 \(3, 8\)"),
        (np.zeros((1, 8), bool), np.zeros((3, 8), np.uint8), "queries", r"bool \(1, 8\)"),
        (np.zeros(8, np.uint8), np.zeros((3, 8), np.uint8), "queries", r"uint8 \(8,\)"),
        (np.zeros((1, 8), np.uint8), np.zeros(8, np.uint8), "codes", r"uint8 \(8,\)"),
    ],
)
def test_arrays_that_are_not_packed_codes(
    queries: npt.NDArray[np.generic], codes: npt.NDArray[np.generic], name: str, got: str
) -> None:
    with refused(UsageError, rf"^{name}: expected packed codes uint8 \(N, bytes\), got {got}"):
        search_codes(queries, codes, 1)  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [0, 3])
def test_codes_of_another_width(count: int) -> None:
    words = "^queries have 8 bytes, codes 4; hash both with the same model$"
    with refused(UsageError, words):
        search_codes(np.zeros((1, 8), np.uint8), np.zeros((count, 4), np.uint8), 1)
    with refused(UsageError, words):
        search_radius(np.zeros(8, np.uint8), np.zeros((count, 4), np.uint8), 1)


def test_radius_takes_one_query() -> None:
    with refused(UsageError, r"^queries: expected packed codes uint8 \(N, bytes\)"):
        search_radius(np.zeros((1, 8), np.uint8), np.zeros((3, 8), np.uint8), 1)
