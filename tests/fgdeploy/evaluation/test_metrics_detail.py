from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgdeploy.core.codes import UInt8Array, pack
from fgdeploy.core.errors import DataError
from fgdeploy.evaluation import Detail, evaluate, evaluate_in_detail, ranking
from tests.checks import examples, refused
from tests.fgdeploy.evaluation.reference import (
    Names,
    reference,
    reference_classes,
    reference_curve,
)

CUTS = (1, 3, 10)
# The definitions are exact here; float64 sums are not.
TOLERANCE = 1e-12
# Of different lengths, so that the arrays of both sides have different dtypes.
NAMES = ("a", "Ä", "moth", "moth ", "a much longer name of a sub-species", "")

Side = tuple[UInt8Array, Names]


def draw(chooser: np.random.Generator, count: int, bits: int, names: Sequence[str]) -> Side:
    """Return codes near one of three centres, in whatever class."""
    centres = np.random.default_rng(bits).random((3, bits)) < 0.5
    flipped = chooser.random((count, bits)) < chooser.choice([0, 0.02, 0.5])
    codes = pack((centres[chooser.integers(0, 3, count)] ^ flipped).astype(np.float32))
    return codes, np.array([names[n] for n in chooser.integers(0, len(names), count)], np.str_)


def assert_is_the_reference(
    found: Detail, of_queries: Side, of_gallery: Side, same_set: bool, bits: int
) -> None:
    expected = reference(*of_queries, *of_gallery, same_set, CUTS)
    scores = found.scores
    assert (scores.queries, scores.gallery) == (expected.queries, expected.gallery)
    assert scores.without_relevant == expected.without_relevant
    assert scores.map == pytest.approx(expected.map, abs=TOLERANCE)
    assert scores.tie_aware_map == pytest.approx(expected.tie_aware_map, abs=TOLERANCE)
    assert scores.recall == pytest.approx(expected.recall, abs=TOLERANCE)
    assert scores.precision == pytest.approx(expected.precision, abs=TOLERANCE)
    assert found.curve == reference_curve(*of_queries, *of_gallery, same_set, bits)
    rows = reference_classes(*of_queries, *of_gallery, same_set)
    assert [(row.name, row.queries) for row in found.classes] == [
        (row.name, row.queries) for row in rows
    ]
    for row, wanted in zip(found.classes, rows, strict=True):
        assert row.map == pytest.approx(wanted.map, abs=TOLERANCE)
        assert row.tie_aware_map == pytest.approx(wanted.tie_aware_map, abs=TOLERANCE)
        assert row.recall_at_1 == pytest.approx(wanted.recall_at_1, abs=TOLERANCE)


@examples(120)
@given(
    seed=st.integers(0, 2**32 - 1),
    queries=st.integers(1, 7),
    gallery=st.integers(1, 25),
    bits=st.one_of(st.integers(1, 16), st.sampled_from([64, 254, 255, 256, 300])),
    absent=st.integers(0, 5),
    cells=st.sampled_from([1, 50, 1 << 20]),
    threads=st.integers(1, 3),
)
def test_all_of_it_is_as_defined(
    seed: int, queries: int, gallery: int, bits: int, absent: int, cells: int, threads: int
) -> None:
    chooser = np.random.default_rng(seed)
    of_queries = draw(chooser, queries, bits, NAMES)
    of_gallery = draw(chooser, gallery, bits, NAMES[: len(NAMES) - absent])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "_CHUNK_CELLS", cells)
        found = evaluate_in_detail(*of_queries, *of_gallery, False, CUTS, bits, threads)
    assert_is_the_reference(found, of_queries, of_gallery, False, bits)


@examples(120)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(2, 20),
    bits=st.one_of(st.integers(1, 16), st.sampled_from([64, 254, 255, 256, 300])),
    cells=st.sampled_from([1, 50, 1 << 20]),
    threads=st.integers(1, 3),
)
def test_all_of_it_with_each_against_all_others(
    seed: int, count: int, bits: int, cells: int, threads: int
) -> None:
    photos = draw(np.random.default_rng(seed), count, bits, NAMES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "_CHUNK_CELLS", cells)
        found = evaluate_in_detail(*photos, *photos, True, CUTS, bits, threads)
    assert_is_the_reference(found, photos, photos, True, bits)


@pytest.mark.parametrize("bits", [8, 248, 254, 255, 256, 264, 512])
@pytest.mark.parametrize("same_set", [False, True])
def test_opposite_codes_are_as_far_apart_as_a_code_is_long(bits: int, same_set: bool) -> None:
    # The widest distance must neither wrap around nor be taken for the query itself.
    codes = pack(np.array([[-1.0] * bits, [1.0] * bits, [1.0] * bits, [-1.0] * bits]))
    side = (codes, np.array(["a", "a", "b", "b"]))
    found = evaluate_in_detail(*side, *side, same_set, CUTS, bits)
    assert_is_the_reference(found, side, side, same_set, bits)
    assert found.curve.radii[-1] == bits


@pytest.mark.parametrize("same_set", [False, True])
def test_neither_chunks_nor_threads_change_a_digit(
    same_set: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    chooser = np.random.default_rng(7)
    of_gallery = draw(chooser, 90, 64, NAMES)
    of_queries = of_gallery if same_set else draw(chooser, 70, 64, NAMES)
    whole = evaluate_in_detail(*of_queries, *of_gallery, same_set, CUTS, threads=1)
    for cells in (1, 89, 90, 91, 181, 2700, 90 * 69, 1 << 20):
        monkeypatch.setattr(ranking, "_CHUNK_CELLS", cells)
        for threads in (None, 1, 2, 3, 100):
            found = evaluate_in_detail(*of_queries, *of_gallery, same_set, CUTS, threads=threads)
            assert found == whole, (cells, threads)
    assert evaluate(*of_queries, *of_gallery, same_set, CUTS) == whole.scores


def test_many_classes_and_queries_at_once() -> None:
    # More classes than a byte can count, and one item of each.
    count = 700
    codes = np.arange(count, dtype=">u2").view(np.uint8).reshape(count, 2)
    names = np.array([f"class {n}" for n in range(count)])
    found = evaluate_in_detail(codes, names, codes, names)
    assert (found.scores.map, found.scores.recall[1]) == (1.0, 1.0)
    assert len(found.classes) == count
    assert found.curve.precision[0] == found.curve.recall[0] == 1.0
    assert found.curve.precision[-1] == pytest.approx(1 / count, abs=TOLERANCE)


def test_a_curve_by_hand() -> None:
    queries = np.array([[0b0000], [0b0001]], np.uint8)
    gallery = np.array([[0b0011], [0b0111], [0b1111]], np.uint8)
    # Distances 2, 3, 4 and 1, 2, 3; relevant: items 0 and 2 for the first, 1 for the second.
    found = evaluate_in_detail(queries, np.array(["a", "b"]), gallery, np.array(["a", "b", "a"]))
    assert found.curve.radii == tuple(range(1, 9))
    assert found.curve.precision == (0 / 1, 2 / 3, 2 / 5, *[3 / 6] * 5)
    assert found.curve.recall == (0 / 3, 2 / 3, 2 / 3, *[1.0] * 5)


def test_nothing_relevant_has_a_flat_curve() -> None:
    codes = np.array([[1], [2]], np.uint8)
    found = evaluate_in_detail(codes, np.array(["a", "b"]), codes, np.array(["c", "d"]))
    assert set(found.curve.recall) == set(found.curve.precision) == {0.0}
    assert [row.map for row in found.classes] == [0.0, 0.0]


def test_bits_that_do_not_fit_the_bytes() -> None:
    side = (np.array([[1, 0]], np.uint8), np.array(["a"]))
    with refused(DataError, "^8 bits take 1 bytes, the codes have 2; give the bits of the model"):
        evaluate_in_detail(*side, *side, bits=8)


def test_bits_after_the_last() -> None:
    good = (np.array([[1, 0x10]], np.uint8), np.array(["a"]))
    bad = (np.array([[1, 0x01]], np.uint8), np.array(["a"]))
    assert evaluate_in_detail(*good, *good, bits=12).curve.radii[-1] == 12
    for sides in ((good, bad), (bad, good)):
        with refused(DataError, "^codes of 12 bits: expected zeros after the last bit"):
            evaluate_in_detail(*sides[0], *sides[1], bits=12)
