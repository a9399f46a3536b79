"""Outputs beside code and hash: compared by name, each by its relative error."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from fgdeploy.core.codes import pack
from fgdeploy.core.errors import ParityError
from fgdeploy.proof.parity import FP32_LIMITS, Limits, Parity, compare, further
from tests.checks import refused

Arrays = dict[str, npt.NDArray[np.float32]]


def _outputs(**changes: npt.NDArray[np.float32]) -> Arrays:
    chooser = np.random.default_rng(0)
    shapes = {"code": (6, 2), "hash": (6, 16), "embedding": (6, 8), "box": (6, 2, 4)}
    drawn = {name: chooser.random(shape, np.float32) + 1 for name, shape in shapes.items()}
    return {**drawn, **changes}


def _compared(reference: Arrays, candidate: Arrays) -> Parity:
    hashes = np.random.default_rng(1).standard_normal((6, 16))
    code = pack(hashes)
    others = further(reference, candidate)
    return compare(hashes, code, hashes, code, others=others)


def test_all_but_code_and_hash_are_compared() -> None:
    one, two = _outputs(), _outputs()
    pairs = further(one, two)
    assert list(pairs) == ["embedding", "box"]
    assert pairs["box"][0] is one["box"] and pairs["box"][1] is two["box"]
    assert further({"code": one["code"], "hash": one["hash"]}, {"code": one["code"]}) == {}
    result = _compared(one, two)
    assert result.output_errors == {"embedding": 0.0, "box": 0.0}
    assert result.breaches(FP32_LIMITS) == []


@pytest.mark.parametrize("lacking", ["embedding", "box"])
@pytest.mark.parametrize("which", [0, 1])
def test_an_output_that_only_one_gives(lacking: str, which: int) -> None:
    both = [_outputs(), _outputs()]
    del both[which][lacking]
    with refused(ParityError, f"only one of the engines gives {lacking}; build both from one bund"):
        further(both[0], both[1])


def test_the_error_is_relative_and_a_mean_over_photos() -> None:
    one = _outputs()
    box = one["box"].copy()
    box[0] *= 1.5  # an error of one half on one photo of six
    found = _compared(one, _outputs(box=box)).output_errors
    assert found["box"] == pytest.approx(0.5 / 6, rel=1e-5)
    assert found["embedding"] == 0
    scaled = {name: 1000 * value for name, value in one.items()}
    again = _compared(scaled, {**scaled, "box": 1000 * box}).output_errors
    assert again["box"] == pytest.approx(found["box"], rel=1e-4)


def test_errors_are_held_against_their_limit_by_name() -> None:
    one = _outputs()
    result = _compared(one, _outputs(box=1.02 * one["box"], embedding=1.005 * one["embedding"]))
    assert [line.partition(" is ")[0] for line in result.breaches(FP32_LIMITS)] == ["error of box"]
    strict = result.breaches(Limits(max_output_error=1e-3))
    assert [line.partition(" is ")[0] for line in strict] == ["error of embedding", "error of box"]
    assert all(line.endswith("limit <= 0.001") for line in strict)
    assert result.breaches(Limits(min_bit_agreement=1.0)) == []
    assert result.unmeasured(FP32_LIMITS) == ["top-10 overlap", "mAP drop (points)"]


def test_rows_of_zeros_have_an_error_too() -> None:
    nothing = np.zeros((6, 8), np.float32)
    same = _compared(_outputs(embedding=nothing), _outputs(embedding=nothing))
    assert same.output_errors["embedding"] == 0
    assert _compared(_outputs(embedding=nothing), _outputs()).output_errors["embedding"] > 1


def test_outputs_of_other_shapes_or_without_numbers() -> None:
    with refused(ParityError, r"expected box \(6, 2, 4\), got \(6, 4\); export again"):
        _compared(_outputs(), _outputs(box=np.ones((6, 4), np.float32)))
    broken = _outputs()["embedding"].copy()
    broken[3, 2] = np.nan
    spoilt = _outputs(embedding=broken)
    for pair in ((_outputs(), spoilt), (spoilt, _outputs())):
        with refused(ParityError, "an engine gave NaN or infinite embedding; its precision"):
            _compared(*pair)


def test_how_often_the_best_class_is_the_same() -> None:
    assert _compared(_outputs(), _outputs()).top1_agreement is None
    logits = np.zeros((6, 4), np.float32)
    logits[:, 2] = 1
    other = logits.copy()
    other[0, 3] = 1  # a tie, in which the lower number is the best
    other[1, 1] = 1
    other[2, 0] = 2
    result = _compared(_outputs(logits=logits), _outputs(logits=other))
    assert result.top1_agreement == pytest.approx(4 / 6, rel=1e-12)
    assert result.output_errors["logits"] > 0
