"""Every token reduction through every engine: exported, held to PyTorch, parsed, built, calibrated.

A few run always, on four narrow blocks; the whole grid of reductions, keep rates, sizes and
parts of CLCA is `slow`.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fgdeploy.demo.moths import write_moths
from fgdeploy.export import verify
from fgdeploy.export.exporter import rebuild
from fgdeploy.models.reduce.reductions import REDUCTIONS
from tests.checks import thorough
from tests.exported import (
    NARROW,
    Case,
    Exports,
    build_for_tensorrt,
    calibrated,
    hold_precisions,
    hold_to_pytorch,
    narrow_backbones,
    tied,
)

RATES = ("0.1", "0.25", "0.5", "0.7", "0.9")
ALL_OF_CLCA = ("cla=true", "cache=true", "clr=1")
PARTS = (
    ("cla=true", "cache=false", "clr=1"),
    ("cla=true", "cache=true", "clr=0"),
    ("cla=false", "cache=false", "clr=0"),
)
backbones = pytest.fixture(scope="module", autouse=True)(narrow_backbones)


def clca(name: str, rate: str = "0.5", parts: tuple[str, ...] = (), **where: Any) -> Case:
    """Return CLCA on a reduction."""
    return Case("clca", (f"reduction={name}", f"keep_rate={rate}", *parts), **where)


USUAL = [
    Case("eet", ("stages=2:8,4:4,5:2",), "test_vit"),
    *(clca(name, parts=("blocks=2,3",)) for name in REDUCTIONS),
]
# Where nothing is chosen: no reduction, and stages that keep all rows that arrive.
STILL = [clca("none"), Case("evit", ("keep_rate=0.99", "blocks=2,3"))]


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Exports:
    torch.set_num_threads(1)
    return Exports(tmp_path_factory.mktemp("exports"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_moths(tmp_path_factory.mktemp("drawn"), 2, 12, size=96)


@pytest.mark.parametrize("case", [*USUAL, *STILL], ids=str)
def test_engines_agree_with_pytorch(exports: Exports, case: Case) -> None:
    bundle = exports.of(case)
    frames = np.concatenate([verify.frames_for(case.size, [], seed=1), tied(case.size)])
    hold_to_pytorch(bundle, rebuild(bundle, None), frames)
    rows = [run.tokens for run in bundle.manifest.blocks]
    assert (min(rows) < rows[0]) is (case in USUAL)


@pytest.mark.parametrize("case", USUAL, ids=str)
def test_tensorrt_parses_and_builds(exports: Exports, case: Case, tmp_path: Path) -> None:
    build_for_tensorrt(exports.of(case), case.size, tmp_path, "fp32")


def test_a_calibrated_one_runs_in_every_precision(
    exports: Exports, photos: Path, tmp_path: Path
) -> None:
    case = clca("dpcknn", parts=("blocks=2,3",))
    bundle = calibrated(exports.of(case), photos)
    hold_precisions(bundle, case.size)
    build_for_tensorrt(bundle, case.size, tmp_path, "fp16", "int8-fp16")


@pytest.mark.slow
@thorough
@pytest.mark.parametrize("name", REDUCTIONS)
def test_all_reductions_run_in_every_precision(
    exports: Exports, photos: Path, tmp_path: Path, name: str
) -> None:
    case = clca(name, parts=("blocks=2,3",))
    bundle = calibrated(exports.of(case), photos)
    hold_precisions(bundle, case.size)
    build_for_tensorrt(bundle, case.size, tmp_path, "fp16", "int8-fp16")


def _grid() -> list[Case]:
    """Return reductions x rates x sizes, alone and in CLCA; its parts at one rate and size."""
    cases = []
    for size in (224, 448):
        where = {"backbone": NARROW, "size": size}
        for name, rate in itertools.product(REDUCTIONS, RATES):
            cases.append(Case(name, (f"keep_rate={rate}",), **where))
            cases.append(clca(name, rate, ALL_OF_CLCA, **where))
        # At a rate of 1 all reductions are one network.
        cases.append(clca("evit", "1.0", ALL_OF_CLCA, **where))
        cases.append(Case("evit", ("keep_rate=1.0",), **where))
    where = {"backbone": NARROW, "size": 224}
    return cases + [clca(name, "0.5", parts, **where) for name in REDUCTIONS for parts in PARTS]


@pytest.mark.slow
@thorough
@pytest.mark.parametrize("case", _grid(), ids=str)
def test_the_whole_grid(case: Case, tmp_path: Path) -> None:
    bundle = Exports(tmp_path).of(case)
    frames = np.concatenate([verify.frames_for(case.size, [], seed=1)[:4], tied(case.size)])
    hold_to_pytorch(bundle, rebuild(bundle, None), frames)
    build_for_tensorrt(bundle, case.size, tmp_path, "fp32")
