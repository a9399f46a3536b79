"""How many rows enter every block: the published tables, and the rules that they came from.

T of a block is counted at its attention, or where a reduction acts before the block, behind it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import timm

from fgdeploy.models import plan
from fgdeploy.models.backbone import vit as backbones
from fgdeploy.models.heads.base import NoHead
from fgdeploy.models.methods import registry
from fgdeploy.models.network import Network
from fgdeploy.models.reduce.reductions import REDUCTIONS
from tests.models.samples import NORM

RATES = (0.1, 0.25, 0.5, 0.7, 0.9)
STAGES = (4, 7, 10)

# CLCA at 224 pixels (`clca`) and 448, T of blocks 4 to 12 as the authors' code ran.
TABLE = {
    ("evit", 224, 0.1): (198, 28, 28, 28, 11, 11, 11, 9, 11),
    ("evit", 224, 0.25): (198, 58, 58, 58, 23, 23, 23, 14, 16),
    ("evit", 224, 0.5): (198, 107, 107, 107, 61, 61, 61, 38, 40),
    ("evit", 224, 0.7): (198, 146, 146, 146, 110, 110, 110, 85, 87),
    ("evit", 224, 0.9): (198, 186, 186, 186, 175, 175, 175, 165, 167),
    ("evit", 448, 0.1): (786, 87, 87, 87, 17, 17, 17, 10, 12),
    ("evit", 448, 0.25): (786, 205, 205, 205, 59, 59, 59, 23, 25),
    ("evit", 448, 0.5): (786, 401, 401, 401, 208, 208, 208, 112, 114),
    ("evit", 448, 0.7): (786, 558, 558, 558, 398, 398, 398, 286, 288),
    ("evit", 448, 0.9): (786, 715, 715, 715, 651, 651, 651, 593, 595),
    ("topk", 224, 0.1): (198, 27, 27, 27, 10, 10, 10, 8, 10),
    ("topk", 224, 0.25): (198, 57, 57, 57, 21, 21, 21, 12, 14),
    ("topk", 224, 0.5): (198, 106, 106, 106, 60, 60, 60, 37, 39),
    ("topk", 224, 0.7): (198, 145, 145, 145, 108, 108, 108, 82, 84),
    ("topk", 224, 0.9): (198, 185, 185, 185, 173, 173, 173, 162, 164),
    ("topk", 448, 0.5): (786, 400, 400, 400, 207, 207, 207, 110, 112),
    ("tome", 224, 0.1): (198, 106, 106, 106, 94, 94, 94, 99, 101),
    ("tome", 224, 0.25): (198, 106, 106, 106, 75, 75, 75, 72, 74),
    ("tome", 224, 0.5): (198, 106, 106, 106, 63, 63, 63, 44, 46),
    ("tome", 224, 0.7): (198, 145, 145, 145, 110, 110, 110, 87, 89),
    ("tome", 224, 0.9): (198, 184, 184, 184, 172, 172, 172, 162, 164),
    ("tome", 448, 0.5): (786, 400, 400, 400, 210, 210, 210, 118, 120),
    ("dynamicvit", 224, 0.1): (20, 26, 26, 3, 9, 9, 1, 7, 9),
    ("dynamicvit", 224, 0.25): (50, 56, 56, 14, 20, 20, 5, 11, 13),
    ("dynamicvit", 224, 0.5): (99, 105, 105, 52, 58, 58, 29, 35, 37),
    ("dynamicvit", 224, 0.7): (138, 144, 144, 100, 106, 106, 73, 79, 81),
    ("dynamicvit", 224, 0.9): (177, 183, 183, 163, 169, 169, 151, 157, 159),
    ("dynamicvit", 448, 0.5): (393, 399, 399, 199, 205, 205, 102, 108, 110),
    ("dpcknn", 224, 0.1): (21, 27, 27, 13, 19, 19, 15, 21, 23),
    ("dpcknn", 224, 0.25): (51, 57, 57, 20, 26, 26, 17, 23, 25),
    ("dpcknn", 224, 0.5): (100, 106, 106, 57, 63, 63, 38, 44, 46),
    ("dpcknn", 224, 0.7): (139, 145, 145, 104, 110, 110, 81, 87, 89),
    ("dpcknn", 224, 0.9): (178, 184, 184, 166, 172, 172, 156, 162, 164),
    ("dpcknn", 448, 0.5): (394, 400, 400, 204, 210, 210, 112, 118, 120),
    ("sit", 224, 0.1): (20, 26, 26, 2, 8, 8, 1, 7, 9),
    ("sit", 224, 0.25): (50, 56, 56, 13, 19, 19, 4, 10, 12),
    ("sit", 224, 0.5): (99, 105, 105, 50, 56, 56, 25, 31, 33),
    ("sit", 224, 0.7): (138, 144, 144, 97, 103, 103, 68, 74, 76),
    ("sit", 224, 0.9): (177, 183, 183, 159, 165, 165, 143, 149, 151),
    ("sit", 448, 0.5): (393, 399, 399, 197, 203, 203, 99, 105, 107),
    ("none", 224, 0.5): (198, 204, 204, 204, 210, 210, 210, 216, 218),
}
TABLE |= {("patchmerger", *key[1:]): rows for key, rows in TABLE.items() if key[0] == "sit"}

# EViT alone: rows behind each stage.
ALONE = {
    (224, 0.1): (22, 5, 3),
    (224, 0.25): (51, 15, 6),
    (224, 0.5): (100, 52, 28),
    (224, 0.7): (140, 100, 72),
    (224, 0.9): (179, 163, 148),
    (448, 0.1): (81, 10, 3),
    (448, 0.25): (198, 52, 15),
    (448, 0.5): (394, 199, 101),
    (448, 0.7): (551, 387, 273),
    (448, 0.9): (708, 639, 577),
}


class Case:
    """What a rule may look at: rate kr, stage s from 1, N patches, T rows that arrive.

    start: rows that entered the first block; behind: CLR and cached rows; aside: rows that come
    back before the last block.
    """

    def __init__(self, rate: float, patches: int, cache: bool) -> None:
        self.rate, self.patches, self.cache = rate, patches, cache
        self.start = self.rows = patches + 1 + cache  # CLS, patches, and CLCA's CLR
        self.stage, self.behind, self.aside = 0, int(cache), 0

    def part(self, stage: int | None = None) -> int:
        """Return floor(N kr^s)."""
        return int(self.patches * self.rate ** (self.stage if stage is None else stage))


def _topk(case: Case) -> int:
    return 1 + math.ceil(case.rate * (case.rows - 1))


def _evit(case: Case) -> int:
    kept = _topk(case)
    return kept if kept == case.rows else kept + 1


def _tome(case: Case) -> int:
    merged = case.part(case.stage - 1) - case.part()
    return case.rows - min(merged, (case.rows - 1) // 2)


def _ats(case: Case) -> int:
    """CLS and a row for each sample point: K - 1 of them, but K for some K."""
    count = case.part() + 1
    return 1 + len(np.arange(1 / (2 * count), (2 * count - 1) / (2 * count), 1 / count))


def _dynamicvit(case: Case) -> int:
    if case.cache:
        return 1 + int((case.rows - 2) * case.rate)
    return 1 + int((case.start - 1) * case.rate**case.stage)


def _dpcknn(case: Case) -> int:
    least = 1 if case.stage == 3 else 5
    return 1 + max(case.part(), least) + case.behind


def _mame(case: Case) -> int:
    return 1 + max(case.part(), 1) + case.behind


def _cropr(case: Case) -> int:
    kept = 1 + min(max(case.part(), 1), case.rows - 1)
    case.aside += case.rows - kept
    return kept


# Rows that a reduction leaves, and where it acts: before its block, within or behind it.
RULES: dict[str, tuple[Callable[[Case], int], str]] = {
    "evit": (_evit, "within"),
    "topk": (_topk, "within"),
    "tome": (_tome, "within"),
    "mame": (_mame, "within"),
    "ats": (_ats, "within"),
    "dynamicvit": (_dynamicvit, "before"),
    "dpcknn": (_dpcknn, "before"),
    "sit": (lambda case: 1 + case.part(), "before"),
    "patchmerger": (lambda case: 1 + case.part(), "before"),
    "cropr": (_cropr, "behind"),
    "none": (lambda case: case.rows, "within"),
}


def by_rule(name: str, size: int, rate: float, cache: bool) -> tuple[list[int], list[int]]:
    """Return the rows at the attention and at the MLP of the 12 blocks."""
    case = Case(rate, (size // 16) ** 2, cache)
    rule, where = RULES[name]
    attention, mlp, held = [], [], 0
    for block in range(1, 13):
        if block == 12:
            case.rows += case.aside
        arrived = case.rows
        if block in STAGES:
            case.stage += 1
            case.rows = rule(case)
        attention.append(case.rows if where == "before" else arrived)
        mlp.append(arrived if where == "behind" else case.rows)
        if cache and block in (*STAGES, 11):
            case.rows, case.behind, held = case.rows + held, case.behind + held, 0
        held += 2 * cache  # GAP and CLR
    return attention, mlp


@functools.cache
def _vit(size: int) -> Any:
    """Return a ViT of 12 blocks that is as narrow as can be."""
    return timm.models.VisionTransformer(
        img_size=size, embed_dim=8, depth=12, num_heads=1, mlp_ratio=1, num_classes=0
    ).eval()


def counted(name: str, size: int, rate: float, cache: bool) -> tuple[list[int], list[int]]:
    """Return the same of a network as it is published, recorded from a run."""
    given = {"keep_rate": str(rate)}
    if cache:
        given["reduction"] = name
    method, net = registry.get("clca" if cache else name), _vit(size)
    options = method.options.parse(given).resolved(backbones.geometry(net))
    encoder = method.build(net, NORM, options).eval()
    runs = plan.record(Network(encoder, NoHead()).published(), size).runs
    return [run.keyval for run in runs], [run.mlp for run in runs]


@pytest.mark.parametrize(("name", "size", "rate"), TABLE)
def test_the_rules_give_the_published_tables(name: str, size: int, rate: float) -> None:
    attention, _ = by_rule(name, size, rate, cache=True)
    assert tuple(attention[3:]) == TABLE[name, size, rate]
    assert attention[:3] == [(size // 16) ** 2 + 2] * 3


@pytest.mark.parametrize(("size", "rate"), ALONE)
def test_the_rules_give_the_published_tables_without_cache(size: int, rate: float) -> None:
    _, mlp = by_rule("evit", size, rate, cache=False)
    assert tuple(mlp[block - 1] for block in STAGES) == ALONE[size, rate]


def test_every_reduction_has_a_rule() -> None:
    assert set(RULES) == {*REDUCTIONS, "none"}


_CASES = [(name, cache) for name in RULES for cache in (True, False)]


@pytest.mark.parametrize("size", [224, 448])
@pytest.mark.parametrize(("name", "cache"), [case for case in _CASES if case != ("none", False)])
def test_networks_keep_to_the_rules(name: str, cache: bool, size: int) -> None:
    for rate in RATES:
        assert counted(name, size, rate, cache) == by_rule(name, size, rate, cache), rate
