"""CLCA's names to ours, on random state dicts in the authors' layout."""

from __future__ import annotations

import pytest
import torch

from fgdeploy.models.methods.clca_keys import rename
from tests.models.methods import authors


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_the_head_is_split_into_aggregation_and_classes(groups: int) -> None:
    theirs = authors.clca(groups=groups)
    ours = rename(theirs)
    assert not any(name.startswith("ifa_head") for name in ours)
    for place, name in ((0, "norm_in"), (2, "norm_out")):
        for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            assert torch.equal(
                ours[f"aggregate.{name}.{part}"], theirs[f"ifa_head.0.{place}.{part}"]
            )
    assert torch.equal(ours["aggregate.conv.weight"], theirs["ifa_head.0.1.weight"])
    assert ours["head.weight"].shape == (authors.CLASSES, groups * authors.WIDTH)
    assert torch.equal(ours["head.weight"].unsqueeze(2), theirs["ifa_head.0.4.weight"])
    assert torch.equal(ours["head.bias"], theirs["ifa_head.0.4.bias"])


def test_the_older_head() -> None:
    theirs = authors.clca(groups=0)
    ours = rename(theirs)
    for place, name in (("0", "weigh"), ("3", "norm")):
        for part in ("weight", "bias"):
            assert torch.equal(
                ours[f"aggregate.{name}.{part}"], theirs[f"ifa_head.0.{place}.{part}"]
            )
    assert torch.equal(ours["head.weight"], theirs["ifa_head.0.4.weight"])
    assert torch.equal(ours["head.bias"], theirs["ifa_head.0.4.bias"])


@pytest.mark.parametrize("clr", [1, 2, 3])
def test_clr_gets_its_positions(clr: int) -> None:
    theirs = authors.clca(clr=clr)
    ours = rename(theirs)
    assert torch.equal(ours["pos_embed"], theirs["pos_embed"][:, : 1 + authors.PATCHES])
    whole = theirs["clr"] + theirs["pos_embed"][:, 1 + authors.PATCHES :]
    assert torch.equal(ours["clr"], whole)


@pytest.mark.parametrize("name", ["deit3_small_patch16_224", "vit_small_patch14_reg4_dinov2"])
def test_a_clr_without_a_position_stays(name: str) -> None:
    size = 96 if "16" in name else 84
    theirs = authors.clca(name=name, size=size)
    ours = rename(theirs)
    assert torch.equal(ours["pos_embed"], theirs["pos_embed"])
    assert torch.equal(ours["clr"], theirs["clr"])


def test_weights_of_stages() -> None:
    theirs = {
        "score_predictor.0.in_conv.0.weight": torch.ones(1),
        "score_predictor.2.out_conv.4.bias": torch.ones(2),
        "cluster_layers.1.score.weight": torch.ones(3),
        "cluster_layers.0.scale": torch.ones(4),
        "cluster_layers.0.weight.3.bias": torch.ones(5),
        "cluster_layers": torch.ones(6),
    }
    assert {name: len(value) for name, value in rename(theirs).items()} == {
        "stages.0.predictor.in_conv.0.weight": 1,
        "stages.2.predictor.out_conv.4.bias": 2,
        "stages.1.cluster.score.weight": 3,
        "stages.0.cluster.scale": 4,
        "stages.0.cluster.weight.3.bias": 5,
        "cluster_layers": 6,
    }


def test_what_has_our_names_stays() -> None:
    ours = rename(authors.clca())
    again = rename(ours)
    assert again.keys() == ours.keys()
    assert all(torch.equal(again[name], ours[name]) for name in ours)
    plain = authors.backbone(5)
    assert rename(plain) == plain
    trained = {
        "clr": torch.ones(1, 7, 4),  # 16 positions and CLS less 7 would look like a square and CLS
        "pos_embed": torch.ones(1, 17, 4),
        "head_hash.weight": torch.ones(2, 2),
    }
    assert rename(trained) == trained
