"""Schedules of every method: stages written as options, and what a network then does."""

from __future__ import annotations

import copy

import pytest
import torch

from fgdeploy.core.errors import UsageError
from fgdeploy.models import plan
from fgdeploy.models.backbone import vit as backbones
from fgdeploy.models.backbone.embedding import normalisation
from fgdeploy.models.heads.base import NoHead
from fgdeploy.models.methods.base import Method
from fgdeploy.models.methods.registry import METHODS
from fgdeploy.models.network import Network
from fgdeploy.models.options import Options
from fgdeploy.models.reduce.stages import Stage
from tests.checks import refused

WITHOUT = {"glsim", "dva", "aftrans"}
PRUNING = [name for name in METHODS if name not in WITHOUT]


def rows(method: Method, options: Options) -> list[int]:
    """Return the rows that each block's MLP works on, and those that enter the last block."""
    with torch.device("meta"):
        vit = backbones.create("test_vit", 160, variant=method.varied(options))
        network = Network(method.build(copy.deepcopy(vit), normalisation(vit), options), NoHead())
        runs = plan.record(network.eval().deployed(), 160).runs
    return [*(run.mlp for run in runs[:-1]), runs[-1].tokens]


@pytest.mark.parametrize("name", PRUNING)
def test_stages_come_back_as_rows(name: str) -> None:
    method = METHODS[name]
    shape = backbones.geometry(backbones.create("test_vit", 160))
    # Without CLCA's cache, whose rows come on top; Cropr's dropped rows come back at the end.
    plain = {"clca": {"cache": "false"}, "cropr": {"fuse": "false"}}.get(name, {})
    asked = method.options.parse(plain)
    texts = method.scheduled(asked, [Stage(2, 61), Stage(4, 37)], shape)
    options = method.options.parse(texts, asked).resolved(shape)
    assert method.options.from_json(options.to_json()) == options
    found = rows(method, options)
    assert found[0] >= 100
    assert 61 <= found[2] <= 65, found
    assert 37 <= found[-1] <= 42, found


@pytest.mark.parametrize("name", PRUNING)
def test_no_stages_are_the_dense_network(name: str) -> None:
    method = METHODS[name]
    shape = backbones.geometry(backbones.create("test_vit", 160))
    asked = method.options.parse({"cache": "false"} if name == "clca" else {})
    options = method.options.parse(method.scheduled(asked, (), shape), asked).resolved(shape)
    assert len(set(rows(method, options))) == 1


@pytest.mark.parametrize("name", sorted(WITHOUT))
def test_methods_without_a_schedule_say_so(name: str) -> None:
    method = METHODS[name]
    shape = backbones.geometry(backbones.create("test_vit", 160))
    with refused(UsageError, f"{name} prunes by no stages, so there is no schedule to tune"):
        method.scheduled(method.options(), (), shape)
