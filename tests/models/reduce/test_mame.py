"""Merging by products alone, against a plain float64 reference."""

from __future__ import annotations

import pytest
import torch

from fgdeploy.core.errors import UsageError
from fgdeploy.models.reduce.mame import MaMe, Share
from tests.checks import refused
from tests.models.reduce import proof, reference

PATCHES = 16


def _mame(rate: float, threshold: float, patches: int = PATCHES) -> proof.Make:
    def make(stage: int, start: int) -> reference.Reduce:
        return reference.MaMe(max(1, int(patches * rate**stage)), threshold, stage == 1)

    return make


@pytest.mark.parametrize("clca", [None, {}, {"clr": 2}])
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.7, 0.9])
def test_it_equals_the_reference(rate: float, clca: dict[str, object] | None) -> None:
    proof.check("mame", _mame(rate, 0.8), {"keep_rate": str(rate)}, clca=clca)


@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.95, 1.0])
def test_every_threshold_equals_the_reference(threshold: float) -> None:
    proof.check("mame", _mame(0.5, threshold), {"threshold": str(threshold)})
    proof.check("mame", _mame(0.5, threshold), {"threshold": str(threshold)}, clca={})


def test_registers_and_cached_rows_stay() -> None:
    proof.check("mame", _mame(0.5, 0.8, 25), {}, "vit_small_patch14_reg4_dinov2", clca={})


@pytest.mark.parametrize("threshold", [0.0, 0.6, 1.0])
def test_every_source_is_given_away_whole(threshold: float) -> None:
    key = torch.randn(3, 9, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    parts = Share(threshold)(key, torch.arange(1, 4), torch.arange(4, 9))
    assert parts.shape == (3, 3, 5) and bool((parts >= 0).all())
    torch.testing.assert_close(parts.sum(1), torch.ones(3, 5, dtype=torch.float64))


@pytest.mark.parametrize("threshold", [0.5, 1.0])
def test_equal_targets_share_alike(threshold: float) -> None:
    parts = Share(threshold)(torch.ones(1, 5, 4), torch.tensor([1, 3]), torch.tensor([2, 4]))
    assert parts.tolist() == [[[0.5, 0.5], [0.5, 0.5]]]


def test_the_first_targets_are_the_fields_of_a_chessboard() -> None:
    step = MaMe(8, 16, 0.8, first=True)
    assert sorted(step.targets.tolist()) == [0, 2, 5, 7, 8, 10, 13, 15]
    assert sorted([*step.targets.tolist(), *step.sources.tolist()]) == list(range(16))


@pytest.mark.parametrize("method", ["mame", "clca"])
def test_a_threshold_that_is_no_cosine_is_refused(method: str) -> None:
    given = {"threshold": "1.5"} | ({"reduction": "mame"} if method == "clca" else {})
    with refused(UsageError, "--set threshold=1.5: expected a cosine from 0 to 1"):
        proof.encoder(method, given)
