"""The limits by precision: where they come from, what few photos do to them, and the reason."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from fgdeploy.core.errors import UsageError
from fgdeploy.core.text import counted
from fgdeploy.proof.limits import (
    FP32_LIMITS,
    LIMITS,
    Limits,
    int8_limits,
    limits_of,
    limits_to_use,
    widened,
)
from tests.checks import colour_bundle, refused
from tests.engines.test_record import a_record
from tests.fgdeploy.proof.conftest import Make

NARROW = Limits(min_bit_agreement=0.9999)


def test_limits_in_words() -> None:
    words = "99.9 % of bits, 99 % of the top 10, 0.1 points of mAP, 0.01 error of further outputs"
    assert FP32_LIMITS.words() == words
    assert Limits().words() == "none"
    assert Limits(max_map_drop=1).words() == "1 point of mAP"
    with refused(UsageError, "limit min_bit_agreement=1.5: expected a number from 0 to 1"):
        Limits(min_bit_agreement=1.5)


@pytest.mark.parametrize("labels", [["a", "a", "b"], ["a", "b", "b", "c"]])
def test_int8_with_labels_that_repeat(labels: list[str | None]) -> None:
    assert int8_limits(labels) == Limits(max_map_drop=0.5, min_bit_agreement=0.985)


@pytest.mark.parametrize(
    "labels", [[], [None], [None, None], ["a", "a", None, "b"], ["a", "a"], ["a", "b", "c"]]
)
def test_int8_without(labels: list[str | None]) -> None:
    """Some unknown, all of one class or none repeated: no mAP, so more bits must agree."""
    assert int8_limits(labels) == Limits(min_bit_agreement=0.99)


@pytest.mark.parametrize(("photos", "factor"), [(1, 2.0), (256, 2.0), (576, 4 / 3), (4096, 1.0)])
def test_few_photos_widen_the_limits(photos: int, factor: float) -> None:
    found = widened(Limits(max_map_drop=0.5, min_bit_agreement=0.98), photos)
    assert found.limits.max_map_drop == pytest.approx(0.5 * factor)
    assert found.limits.min_bit_agreement == pytest.approx(1 - 0.02 * factor)
    if factor == 1:
        assert found.why == "as they are set, for 4,096 photos"
    else:
        assert found.why == (
            "98 % of bits, 0.5 points of mAP, widened for "
            f"{counted(photos, 'photo')} (limits are set for 1,024)"
        )
    assert widened(Limits(min_top10=0.9), photos).limits == Limits(min_top10=0.9)


def test_fp32_has_its_manifests_limits_which_never_widen() -> None:
    bundle = colour_bundle()
    assert limits_of(bundle, "fp32") == FP32_LIMITS
    manifest = dataclasses.replace(bundle.manifest, limits=NARROW.to_json())
    bundle = dataclasses.replace(bundle, manifest=manifest)
    used = limits_to_use(bundle, ["fp32", "fp32"], 10)
    assert used.limits == NARROW
    assert used.words() == "99.99 % of bits: of fp32, whatever the number of photos"


@pytest.mark.parametrize(
    ("precisions", "decides"),
    [(["fp32", "int8"], "int8"), (["bf16", "int8"], "bf16"), (["fp16", "fp32"], "fp16")],
)
def test_the_least_exact_decides(precisions: list[str], decides: str) -> None:
    used = limits_to_use(colour_bundle(), precisions, 2048)
    assert used.limits == LIMITS[decides]
    assert used.why == "as they are set, for 2,048 photos"


def test_the_calibration_brings_the_limits_of_int8(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fgdeploy.calibration import cache

    limits = {"min_bit_agreement": 0.7, "max_map_drop": 2.0}
    held = cache.Calibration("", {"limits": limits}, {}, {}, [], "", {})
    bundle = make()
    assert limits_of(bundle, "int8") == LIMITS["int8"]
    monkeypatch.setattr(cache, "read", lambda bundle: held)
    assert limits_of(bundle, "int8") == Limits(min_bit_agreement=0.7, max_map_drop=2.0)
    assert limits_of(bundle, "fp16") == LIMITS["fp16"]


def test_limits_that_were_named_are_used_as_they_are() -> None:
    used = limits_to_use(colour_bundle(), ["int8"], 10, asked=NARROW)
    assert (used.limits, used.why) == (NARROW, "as asked for")


def test_limits_that_were_named_for_a_build_stay_its_own() -> None:
    proof: dict[str, Any] = {"passed": True, "limits": NARROW.to_json()}
    asked = a_record(parity={**proof, "limits_why": "as asked for"})
    used = limits_to_use(colour_bundle(), ["fp32", "int8"], 10, built=asked)
    assert (used.limits, used.why) == (NARROW, "as asked for when it was built")
    for other in (a_record(), a_record(parity=proof), a_record(parity={**proof, "limits": 3})):
        assert limits_to_use(colour_bundle(), ["int8"], 2000, built=other).limits == LIMITS["int8"]
