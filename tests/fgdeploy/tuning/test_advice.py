"""Where pruning pays, from made-up stairs."""

from __future__ import annotations

from fgdeploy.models.reduce.stages import Stage
from fgdeploy.tuning import advice
from fgdeploy.tuning.advice import Advised, Setting
from fgdeploy.tuning.staircase import Stair

STAGES = (Stage(4, 98),)
ROWS = (13, 50, 99, 197)
KNOWN = Advised(STAGES, 12, 196, 1, 224, 1, fixed_ms=0.5, step_ms=0.1)
# A device that waits for launches: any number of rows takes 0.1 ms.
FLAT = Stair(ROWS, (0.05,) * 4, (0.05,) * 4)
LINEAR = Stair(ROWS, tuple(0.01 * count for count in ROWS), tuple(0.01 * count for count in ROWS))


def test_it_pays_where_rows_cost_more_than_a_stage() -> None:
    found = advice.settings({1: FLAT, 8: LINEAR}, KNOWN)
    paying = [(one.batch, one.image_size) for one in found if one.pays]
    assert paying == [(8, size) for size in advice.SIZES]
    assert advice.words(found, STAGES) == (
        "pruning (4:98) is predicted to pay here from batch 8 at 224 pixels"
    )


def test_nowhere() -> None:
    found = advice.settings({1: FLAT, 8: FLAT}, KNOWN)
    assert advice.words(found, STAGES) == (
        "pruning (4:98) pays here at no batch of 1, 8 and no size of 224, 384, 448 pixels"
    )


def test_larger_images_pay_earlier() -> None:
    found = [Setting(1, 224, 1, 1), Setting(8, 224, 2, 1), Setting(1, 384, 2, 1)]
    said = advice.words(found, STAGES)
    assert said.endswith("from batch 8 at 224 pixels and from batch 1 at 384 pixels")
    assert not Setting(1, 224, 1.04, 1.0).pays
