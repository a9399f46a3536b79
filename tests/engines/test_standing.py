"""Which engine runs by default, by the timings that their records hold."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from fgdeploy.bundle import Bundle, open_bundle
from fgdeploy.engines import find, open_engine
from fgdeploy.engines.choosing import default_engine
from fgdeploy.engines.contest import Contest
from fgdeploy.engines.record import Built, Record
from fgdeploy.engines.standing import Choice, choices
from tests.engines.test_record import a_record

CPUS = ["onnxruntime", "openvino"]


def built(name: str, ms: dict[str, float] | None = None, **changes: Any) -> tuple[Built, Record]:
    """Return an engine that was timed at batch 1, beside others of these milliseconds."""
    backend, _, precision = name.partition(":")
    compared = Contest({key: {"1": took} for key, took in ms.items()}).to_json() if ms else None
    entry = a_record(backend=backend, precision=precision, compared=compared, **changes)
    if ms and name in ms:
        p50 = {"p50_ms": ms[name], "p95_ms": 1.0, "images_per_s": 1.0}
        entry = dataclasses.replace(entry, speed={"1": p50})
    return Built(Path(name.replace(":", "-")), entry), entry


def names(found: list[Choice]) -> list[str]:
    return [one.name for one in found]


def test_int8_that_is_slower_makes_way_for_the_fp32_graph() -> None:
    slow = built("onnxruntime:int8", {"onnxruntime:int8": 52.1, "onnxruntime:fp32": 42.0})
    (only,) = choices([slow], True, CPUS)
    assert (only.name, only.fitting) == ("onnxruntime:fp32", None)
    assert only.reason == "fp32: INT8 built here is slower: 52.1 against 42.0 ms"
    assert names(choices([slow], False, CPUS)) == ["onnxruntime:int8"]  # asked for by name


@pytest.mark.parametrize(("took", "default"), [(39.0, "int8"), (41.0, "fp32"), (43.0, "fp32")])
def test_a_gain_that_pays(took: float, default: str) -> None:
    one = built("openvino:int8", {"openvino:int8": took, "openvino:fp32": 42.0})
    assert choices([one], True, CPUS)[0].precision == default


def test_the_compiled_fp32_engine_comes_before_its_graph() -> None:
    slow = built("openvino:int8", {"openvino:int8": 9.0, "openvino:fp32": 8.0})
    fp32 = built("openvino:fp32")
    first, *rest = choices([slow, fp32], True, CPUS)
    assert (first.name, first.fitting, rest) == ("openvino:fp32", fp32, [])


def test_timings_of_other_days_are_compared_by_their_ratios() -> None:
    """BF16 gained more, though the machine was busy when it was timed."""
    int8 = built("openvino:int8", {"openvino:int8": 5.0, "openvino:fp32": 9.0})
    bf16 = built("openvino:bf16", {"openvino:bf16": 20.0, "openvino:fp32": 60.0})
    fp32 = built("openvino:fp32", {"openvino:fp32": 3.0})
    found = choices([int8, bf16, fp32], True, CPUS)
    assert names(found) == ["openvino:bf16", "openvino:int8", "openvino:fp32"]


def test_one_that_pays_beside_one_that_does_not() -> None:
    int8 = built("openvino:int8", {"openvino:int8": 5.0, "openvino:fp32": 4.0})
    bf16 = built("openvino:bf16", {"openvino:bf16": 2.0, "openvino:fp32": 4.0})
    unknown = built("onnxruntime:int8")
    found = choices([int8, bf16, unknown], True, CPUS)
    assert names(found) == ["openvino:bf16", "openvino:fp32", "onnxruntime:int8"]


def test_only_fp32_that_can_run_here_competes() -> None:
    one = built("openvino:int8", {"openvino:int8": 5.0, "openvino:fp32": 9.0, "tensorrt:fp32": 1.0})
    assert names(choices([one], True, CPUS)) == ["openvino:int8"]
    gone = built("openvino:int8", {"openvino:int8": 5.0, "onnxruntime:fp32": 1.0})
    assert names(choices([gone], True, ["openvino"])) == ["openvino:int8"]
    assert names(choices([gone], True, CPUS)) == ["onnxruntime:fp32"]


def test_what_was_never_timed_beside_fp32() -> None:
    """Records of before, whose milliseconds alone decide among them."""
    quick, slow = built("openvino:int8"), built("onnxruntime:int8")
    p50 = {"p95_ms": 1.0, "images_per_s": 1.0}
    timed = [
        (one[0], dataclasses.replace(one[1], speed={"1": {"p50_ms": took, **p50}}))
        for one, took in ((quick, 5.0), (slow, 7.0))
    ]
    found = choices([timed[1], timed[0], built("openvino:bf16")], True, CPUS)
    assert names(found) == ["openvino:int8", "onnxruntime:int8", "openvino:bf16"]
    assert found[0].reason == "fastest of 3 built for this machine: 5.0 ms"


def test_the_limits_of_the_proof_are_in_the_reason() -> None:
    proof = {"passed": True, "held_to": "97 % of bits: widened for 64 photos"}
    (one,) = choices([built("openvino:int8", parity=proof)], True, CPUS)
    assert one.reason.endswith("not measured yet; held to 97 % of bits: widened for 64 photos")
    odd = {"passed": True, "held_to": "\x1b[2J"}
    (one,) = choices([built("openvino:int8", parity=odd)], True, CPUS)
    assert one.reason.endswith("not measured yet")


@pytest.fixture
def bundle(built_bundle: Path) -> Bundle:
    return open_bundle(built_bundle)


def test_opening_and_the_default_agree(bundle: Bundle) -> None:
    """An engine that calls itself BF16 and was slower: the other's graph runs."""
    for one in find(bundle):
        assert one.record is not None
        if one.record.backend == "onnxruntime":
            ms = {"onnxruntime:bf16": {"1": 6.0}, "openvino:fp32": {"1": 4.0}}
            compared = Contest(ms).to_json()
            dataclasses.replace(one.record, precision="bf16", compared=compared).write(one.folder)
    why = "fp32: BF16 built here is slower: 6.0 against 4.0 ms"
    assert default_engine(bundle) == ("openvino:fp32", why)
    with open_engine(bundle) as engine:
        assert (engine.describe(), engine.reason) == ("openvino fp32 (compiled here)", why)
