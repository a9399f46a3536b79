"""Measures and limits of a parity: by hand, by definition, and what cannot be measured."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgdeploy.core.codes import UInt8Array, hamming, pack
from fgdeploy.core.errors import (
    FgdeployError,
    ParityError,
    UsageError,
)
from fgdeploy.evaluation import mean_average_precision
from fgdeploy.proof.parity import FP32_LIMITS, Limits, Parity, compare
from tests.checks import examples, refused

FloatArray = npt.NDArray[np.float64]
thorough = examples(60)


def hashes(count: int, bits: int = 32, seed: int = 0) -> FloatArray:
    return np.random.default_rng(seed).standard_normal((count, bits))


def of(left: FloatArray, right: FloatArray, labels: list[str | None] | None = None) -> Parity:
    return compare(left, pack(left), right, pack(right), labels)


STRICT = Limits(
    max_hash_diff=0.0, min_bit_agreement=1.0, min_identical=1.0, min_top10=1.0, max_map_drop=0.0
)


# Measuring


def test_an_engine_agrees_with_itself() -> None:
    same = hashes(30)
    result = of(same, same.copy(), [str(n % 4) for n in range(30)])
    assert result.photos == 30
    assert (result.max_hash_diff, result.mean_hash_diff, result.clear_bits_differ) == (0, 0, 0)
    assert (result.bit_agreement, result.identical_codes, result.top10_overlap) == (1, 1, 1)
    assert result.mean_cosine == pytest.approx(1, abs=1e-12)
    assert result.min_cosine == pytest.approx(1, abs=1e-12)
    assert result.map_drop == 0
    assert result.map_reference == result.map_candidate
    assert result.breaches(STRICT) == []


def test_what_is_measured_by_hand() -> None:
    left = np.array([[1.0, -1.0, 2.0, 0.0005, 3.0, 4.0, 5.0, 6.0]] * 4)
    right = left.copy()
    right[0, 3] = -0.0005  # a bit that was too near zero to mean anything
    right[1, 0] = -0.5  # a clear bit, by 1.5
    result = of(left, right)
    assert result.max_hash_diff == 1.5
    assert result.mean_hash_diff == pytest.approx((0.001 + 1.5) / 32)
    assert result.bit_agreement == 30 / 32
    assert result.identical_codes == 2 / 4
    assert result.clear_bits_differ == 1
    length, other = np.linalg.norm(left[1]), np.linalg.norm(right[1])
    cosine = (length**2 - 1 * 1.5) / (length * other)
    assert result.min_cosine == pytest.approx(cosine)
    assert result.map_drop is None


@thorough
@given(seed=st.integers(0, 10_000), count=st.integers(12, 40), noise=st.sampled_from([0.0, 0.3, 5]))
def test_measures_are_those_of_the_definitions(seed: int, count: int, noise: float) -> None:
    left = hashes(count, 16, seed)
    right = left + noise * hashes(count, 16, seed + 1)
    labels: list[str | None] = [str(n % 3) for n in range(count)]
    result = of(left, right, labels)
    equal = (left > 0) == (right > 0)
    assert result.bit_agreement == pytest.approx(equal.mean())
    assert result.identical_codes == pytest.approx(equal.all(axis=1).mean())
    assert result.max_hash_diff == np.abs(left - right).max()
    assert result.top10_overlap == pytest.approx(overlap(pack(left), pack(right)))
    names = np.array(labels, np.str_)
    maps = [
        mean_average_precision(pack(side), names, pack(side), names, True) for side in (left, right)
    ]
    assert (result.map_reference, result.map_candidate) == tuple(maps)
    assert result.map_drop == pytest.approx(100 * (maps[0] - maps[1]))


def overlap(left: UInt8Array, right: UInt8Array) -> float:
    def nearest(codes: UInt8Array, row: int) -> set[int]:
        gaps = hamming(codes[row : row + 1], codes)[0].tolist()
        others = sorted((gap, other) for other, gap in enumerate(gaps) if other != row)
        return {other for _, other in others[:10]}

    shares = [len(nearest(left, row) & nearest(right, row)) / 10 for row in range(len(left))]
    return sum(shares) / len(shares)


def test_a_photo_is_not_among_its_own_nearest() -> None:
    # All codes equal: the ten nearest are the ten first others, for both engines.
    same = np.ones((20, 8))
    assert of(same, 2 * same).top10_overlap == 1


def test_float16_and_float32_hashes() -> None:
    left = hashes(15).astype(np.float32)
    result = compare(left, pack(left), left.astype(np.float16), pack(left.astype(np.float16)))
    assert 0 < result.max_hash_diff < 2e-3
    assert result.min_cosine > 0.999999


@pytest.mark.parametrize("bits", [8, 12, 63])
def test_padding_counts_for_nothing(bits: int) -> None:
    left = hashes(14, bits)
    assert of(left, -left).bit_agreement == 0
    assert of(left, left).bit_agreement == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_values_that_are_not_finite(bad: float, side: int) -> None:
    sides = [hashes(5), hashes(5)]
    sides[side][2, 3] = bad
    with refused(ParityError, "an engine gave NaN or infinite hashes; its precision does not hold"):
        of(sides[0], sides[1])


# Labels


def labelled(count: int, classes: int) -> tuple[FloatArray, list[str | None]]:
    names: list[str | None] = [str(n % classes) for n in range(count)]
    centres = hashes(classes, 32, 7)
    noise = 0.2 * hashes(count, 32, 8)
    return centres[[n % classes for n in range(count)]] + noise, names


def test_a_worse_candidate_loses_map() -> None:
    left, names = labelled(30, 3)
    right = left + 3 * hashes(30, 32, 9)
    result = of(left, right, names)
    assert result.map_reference is not None
    assert result.map_candidate is not None
    assert result.map_drop == pytest.approx(100 * (result.map_reference - result.map_candidate))
    assert result.map_drop > 5
    turned = of(right, left, names)
    assert turned.map_drop == pytest.approx(-result.map_drop)
    assert turned.breaches(Limits(max_map_drop=0.0)) == []  # better is no drop


@pytest.mark.parametrize(
    "labels",
    [
        None,
        [],
        [None] * 6,
        ["a", "b", "a", "b", "a", None],
        ["a"] * 6,
        ["a", "b", "c", "d", "e", "f"],
    ],
    ids=["none", "empty", "unknown", "one unknown", "one class", "no class twice"],
)
def test_labels_that_say_nothing_give_no_map(labels: list[str | None] | None) -> None:
    result = of(hashes(6), hashes(6), labels)
    assert (result.map_reference, result.map_candidate, result.map_drop) == (None, None, None)


# Few photos


@pytest.mark.parametrize("count", [1, 2])
def test_one_and_two_photos_have_no_ranking(count: int) -> None:
    result = of(hashes(count), hashes(count, seed=1))
    assert result.top10_overlap is None
    assert result.photos == count
    assert result.breaches(Limits(min_top10=1.0)) == []


@pytest.mark.parametrize("count", [12, 13, 20])
def test_unlike_engines_overlap_by_chance(count: int) -> None:
    result = of(hashes(count), hashes(count, seed=1))
    assert result.top10_overlap is not None
    assert result.top10_overlap < 0.95


@pytest.mark.parametrize("count", [3, 5, 8, 11])
def test_unlike_engines_never_overlap_by_construction(count: int) -> None:
    result = of(hashes(count), -hashes(count, seed=1))
    assert result.top10_overlap is None or result.top10_overlap < 1


@pytest.mark.parametrize(("left", "right"), [(0, 0), (5, 1), (5, 3)])
def test_sets_that_cannot_be_compared(left: int, right: int) -> None:
    with pytest.raises(FgdeployError):
        of(hashes(left), hashes(right))


def test_codes_that_are_too_short_for_the_hashes() -> None:
    left = hashes(12, 32)
    with pytest.raises(FgdeployError):
        compare(left, pack(left)[:, :1], -left, pack(left)[:, :1])


# Limits

MEASURED = Parity(
    photos=50,
    max_hash_diff=0.25,
    mean_hash_diff=0.01,
    mean_cosine=0.99,
    min_cosine=0.9,
    bit_agreement=0.98,
    identical_codes=0.75,
    clear_bits_differ=3,
    top10_overlap=0.9,
    map_reference=0.8,
    map_candidate=0.75,
    map_drop=5.0,
)


@pytest.mark.parametrize(
    ("name", "kept", "broken", "line"),
    [
        ("max_hash_diff", 0.25, 0.2499, r"max \|hash difference\| is 0\.25, limit <= 0\.2499"),
        ("min_bit_agreement", 0.98, 0.999, r"bit agreement is 0\.98, limit >= 0\.999"),
        ("min_identical", 0.75, 0.76, r"identical codes is 0\.75, limit >= 0\.76"),
        ("min_top10", 0.9, 1.0, r"top-10 overlap is 0\.9, limit >= 1"),
        ("max_map_drop", 5.0, 0.1, r"mAP drop \(points\) is 5, limit <= 0\.1"),
    ],
)
def test_each_limit(name: str, kept: float, broken: float, line: str) -> None:
    good, bad = Limits.from_json({name: kept}), Limits.from_json({name: broken})
    assert MEASURED.breaches(good) == []
    (told,) = MEASURED.breaches(bad)
    assert re.fullmatch(line, told)


def test_all_limits_at_once() -> None:
    assert MEASURED.breaches(Limits()) == []
    told = "; ".join(MEASURED.breaches(STRICT))
    assert re.match(r"max \|hash.*; bit agr.*; identical.*; top-10.*; mAP drop", told)
    assert len(MEASURED.breaches(STRICT)) == 5


@pytest.mark.parametrize("value", [float("nan"), -0.1, 1.5])
def test_a_limit_that_means_nothing_is_refused(value: float) -> None:
    with refused(UsageError, r"limit min_top10=.*: expected a number from 0 to 1"):
        Limits(min_top10=value)


def test_a_limit_on_what_was_not_measured_is_no_breach() -> None:
    # So that the limits of a manifest suit photos without classes; who shows the result has to
    # say that the limit was not looked at.
    result = of(hashes(2), hashes(2))
    assert (result.top10_overlap, result.map_drop) == (None, None)
    assert result.breaches(STRICT) == []


def test_limits_survive_a_manifest() -> None:
    assert Limits.from_json(STRICT.to_json()) == STRICT
    assert Limits.from_json(FP32_LIMITS.to_json()) == FP32_LIMITS
    assert Limits().to_json() == {}
    assert Limits.from_json({}) == Limits()
    assert Limits.from_json({"min_top10": 1, "of_the_future": 3}) == Limits(min_top10=1.0)
    assert FP32_LIMITS.to_json() == {
        "min_bit_agreement": 0.999,
        "min_top10": 0.99,
        "max_map_drop": 0.1,
        "max_output_error": 0.01,
    }


@pytest.mark.parametrize("value", [None, "high", [1]])
def test_limits_of_a_damaged_manifest(value: object) -> None:
    with pytest.raises(FgdeployError, match="min_top10"):
        Limits.from_json({"min_top10": value})  # type: ignore[dict-item]


def test_what_cannot_be_measured_is_said() -> None:
    hashes = np.random.default_rng(0).standard_normal((5, 32)).astype(np.float32)
    codes = np.packbits(hashes > 0, axis=1)
    few = compare(hashes, codes, hashes, codes)
    assert few.top10_overlap is None
    assert few.unmeasured(Limits(min_top10=0.9, max_map_drop=1, min_identical=1)) == [
        "top-10 overlap",
        "mAP drop (points)",
    ]
