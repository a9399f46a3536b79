"""EViT against a plain float64 reference."""

from __future__ import annotations

import pytest

from tests.models.reduce import proof, reference

RATES = [0.1, 0.5, 0.9]


def _evit(rate: float) -> proof.Make:
    return lambda stage, start: reference.TopK(rate, fused=True)


@pytest.mark.parametrize("rate", RATES)
def test_alone_it_equals_the_reference(rate: float) -> None:
    proof.check("evit", _evit(rate), {"keep_rate": str(rate)})


@pytest.mark.parametrize("rate", RATES)
def test_in_clca_it_equals_the_reference(rate: float) -> None:
    proof.check("evit", _evit(rate), {"keep_rate": str(rate)}, clca={})


@pytest.mark.parametrize(
    "options",
    [
        {"clr": 2, "pool_cls": True},
        {"clr": 0},
        {"gap": False, "at_last": False},
        {"pool_clr": True},
        {"cache": False},
        {"cache": False, "clr": 0, "cla": False},
        {"kernels": 3},
    ],
)
def test_every_part_of_clca_equals_the_reference(options: dict[str, object]) -> None:
    proof.check("evit", _evit(0.5), {}, clca=options)


@pytest.mark.parametrize("backbone", ["deit3_small_patch16_224", "vit_small_patch14_reg4_dinov2"])
def test_on_other_backbones_it_equals_the_reference(backbone: str) -> None:
    proof.check("evit", _evit(0.5), {}, backbone, clca={})
