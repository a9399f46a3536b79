"""One sentence at most after a training, and which facts bring it out."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from fgdeploy.evaluation.targets import Targets
from fgdeploy.training.advising import Facts, advise, crowded_classes, still_falling
from fgdeploy.training.reached import Reached

_SETTLED = [2.0, 1.0, 0.5, 0.4, 0.35, 0.33, 0.32, 0.32]
_FALLING = [2.0, 1.8, 1.6, 1.4, 1.2, 1.0, 0.8, 0.6]
_GOOD = Facts(
    classes=40,
    bits=64,
    fewest=20,
    queries=400,
    losses=_SETTLED,
    reached=Reached(0.99, 0.9, 0.04),
    to_targets=0.9,
)


def _with(reached: Reached | None = _GOOD.reached, **changes: Any) -> str | None:
    return advise(dataclasses.replace(_GOOD, reached=reached, **changes))


def test_nothing_is_said_of_a_good_training() -> None:
    assert _with() is None
    assert _with(losses=_FALLING) is None  # learned all the same


def test_epochs_are_counted_in_passes_as_the_option_counts_them() -> None:
    said = _with(Reached(0.8, 0.1, 0.5), losses=_FALLING[:8], passes=2)
    assert said is not None and said.endswith("--epochs 32")


@pytest.mark.parametrize("epochs", [1, 3, 8])
def test_codes_that_are_not_learned_yet_want_more_steps(epochs: int) -> None:
    said = _with(Reached(0.8, 0.1, 0.5), losses=_FALLING[:epochs])
    assert said is not None and said.endswith(f"train longer, with --epochs {2 * epochs}")
    assert "(80% of their bits)" in said


def test_classes_with_nearly_one_code_want_more_bits() -> None:
    said = _with(crowded=9)
    assert said is not None and said.startswith("9 classes of 40 have nearly the target code")
    assert "take more --bits" in said
    assert _with(crowded=4) is None


def test_queries_far_from_learned_codes_want_photos_or_fewer_bits() -> None:
    said = _with(to_targets=0.4)
    assert said is not None and said.endswith("add photos, or take fewer --bits")
    assert "asym_targets mAP 0.40" in said
    assert _with(to_targets=0.4, queries=30) != said  # fewer queries than classes say little


def test_a_gap_that_training_does_not_close() -> None:
    said = _with(Reached(0.8, 0.1, 0.5))
    assert said is not None and "rank 50% worse" in said
    assert _with(Reached(0.8, 0.1, 0.15)) is None


def test_few_queries_want_folds() -> None:
    said = _with(queries=25, fewest=3)
    assert said is not None and "25 photos held out say little (about 0.08 of mAP" in said
    assert "--folds 3 " in said
    assert "--folds 5 " in (_with(queries=25, fewest=9) or "")
    assert _with(queries=25, fewest=1) is None  # no class of one photo can be divided
    assert _with(queries=0, to_targets=None) is None
    assert _with(queries=25, fewest=3, folds=True) is None  # they were held out in turn
    assert advise(Facts(classes=3, bits=16, fewest=5, queries=9, losses=[])) is not None


def test_when_a_loss_still_falls() -> None:
    assert still_falling(_FALLING) and not still_falling(_SETTLED)
    assert still_falling([]) and still_falling([1.0, 1.0, 1.0])
    assert not still_falling([1.0, 0.5, 0.4, 0.6])


def test_crowded_classes_by_hand() -> None:
    signs = np.ones((7, 32), np.int8)
    signs[1, :2] = -1  # two bits from a: crowded
    signs[2, 8:11] = -1  # three from a, five from b: not
    signs[3:, 16:] = -1  # d; the majority of four photos, one of which is odd
    signs[6] = signs[0]
    labels = np.array([0, 1, 2, 3, 3, 3, 3])
    names = np.array(["a", "b", "c", "d"])
    found = crowded_classes(Targets(names, labels, np.packbits(signs > 0, axis=1), 32))
    assert found == 2
