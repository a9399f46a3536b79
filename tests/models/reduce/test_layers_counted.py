"""Multiply-accumulates of reductions with weights of their own, by the published tables."""

from __future__ import annotations

import pytest
import timm
import torch

from fgdeploy.models import plan
from fgdeploy.models.backbone import vit as backbones
from fgdeploy.models.heads.base import NoHead
from fgdeploy.models.methods import registry
from fgdeploy.models.network import Network
from tests.models.samples import NORM

# CLCA on B/16 at 448 pixels, in units of 1e9, as coded (methods.md, section 6).
TABLE = {
    "dynamicvit": (23.1, 27.0, 37.3, 50.1, 69.0),
    "sit": (22.5, 26.5, 36.7, 49.6, 68.9),
    "patchmerger": (22.3, 26.2, 36.5, 49.4, 68.8),
}


@pytest.mark.parametrize("name", TABLE)
def test_they_are_those_of_the_tables(name: str) -> None:
    clca, counted = registry.get("clca"), []
    for rate in ("0.1", "0.25", "0.5", "0.7", "0.9"):
        with torch.device("meta"):
            vit = timm.models.VisionTransformer(
                img_size=448, num_classes=0, global_pool="token"
            ).eval()
            options = clca.options.parse({"reduction": name, "keep_rate": rate})
            options = options.resolved(backbones.geometry(vit))
            network = Network(clca.build(vit, NORM, options), NoHead()).eval().to("meta")
            counted.append(plan.record(network.published(), 448).macs / 1e9)
    assert tuple(round(one, 1) for one in counted) == TABLE[name]
