"""Every name in timm's files of plain ViTs: taken, and of a kind that is proven, or refused."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import timm
import torch
from timm.models import deit, vision_transformer
from timm.models._registry import _module_to_models

from fgdeploy.core.errors import UsageError
from fgdeploy.models.backbone import plain
from tests.checks import refused
from tests.models.backbone.kinds import KINDS, marks

NAMES = sorted(
    name
    for module in (vision_transformer, deit)
    for name in _module_to_models[module.__name__.rpartition(".")[2]]
)
# Deprecated names, whose weights timm itself no longer finds.
LOST = {"vit_base_patch16_224_sam", "vit_base_patch32_224_sam"}


def _made(name: str) -> Any:
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of deprecated names
        return timm.create_model(name, pretrained=False, depth=1)


def test_every_plain_vit_with_a_class_token_is_taken_and_of_a_proven_kind() -> None:
    kinds = {marks(_made(name)) for name in KINDS}
    assert len(kinds) == len(KINDS)
    taken = refusals = 0
    for name in NAMES:
        if name in LOST:
            continue
        model = _made(name)
        if (reason := plain.why_not(model)) is None:
            assert marks(model) in kinds, f"{name} is of a kind that no test proves"
            taken += 1
            continue
        has_token, blocks = model.cls_token is not None, type(model.blocks[0]).__name__
        assert not has_token or blocks in ("ParallelScalingBlock", "ParallelThingsBlock"), reason
        refusals += 1
    assert taken >= 84 and refusals >= 79 + 5  # timm 1.0.31


@pytest.mark.parametrize("name", sorted(LOST))
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_names_that_timm_lost_are_refused_too(name: str) -> None:
    with refused(UsageError, f"^{name} cannot be made by timm"):
        plain.check_kind(name)
