"""Backbones that are no plain ViTs with a class token: refused in our own words, one line."""

from __future__ import annotations

import pytest

from fgdeploy.core.errors import UsageError
from fgdeploy.models.backbone import plain, vit
from tests.checks import refused

CHOOSE = r"; choose another --backbone, a plain ViT with a class token such as vit_\w+ or deit_\w+$"


@pytest.mark.parametrize(
    ("backbone", "reason"),
    [
        (
            "vit_base_patch16_siglip_224",
            r"pools its patches by attention behind the last block and has no class token, whose "
            r"attention .* stay \(CLIP's .* have one, such as vit_base_patch16_clip_224\)",
        ),
        ("vit_base_patch16_siglip_gap_224", "pools its patches and has no class token"),
        ("test_vit2", "pools its patches and has no class token"),
        ("resnet18", "is of the family ResNet, no plain ViT"),
        ("swin_tiny_patch4_window7_224", "is of the family SwinTransformer, no plain ViT"),
        ("convnext_atto", "is of the family ConvNeXt, no plain ViT"),
        ("beit_base_patch16_224", "is of the family Beit, no plain ViT"),
        ("vit_medium_patch16_rope_reg1_gap_256", "pools its patches and has no class token"),
        (
            "vit_large_patch16_sapiens2",
            r"has fewer heads of keys than of queries in some blocks .*",
        ),
        ("vit_small_patch16_18x2_224", "has blocks of the kind ParallelThingsBlock"),
        ("vit_tiny_r_s16_p8_224", "does not cut pixels into patches"),
        ("deit_tiny_distilled_patch16_224", None),
        ("vit_small_patch14_reg4_dinov2", None),  # register tokens pass as a prefix
        ("test_vit", None),
        ("vit_small_patch16_dinov3.lvd1689m", None),  # rotary positions travel with the tokens
        ("eva02_tiny_patch14_224", None),
    ],
)
def test_kinds(backbone: str, reason: str | None) -> None:
    if reason is None:
        plain.check_kind(backbone)
        return
    with refused(UsageError, f"^{backbone} {reason}{CHOOSE}"):
        plain.check_kind(backbone)


@pytest.mark.parametrize("backbone", ["resnet18", "test_vit2", "vit_tiny_r_s16_p8_224"])
def test_making_one_says_the_same(backbone: str) -> None:
    with refused(UsageError, f"^{backbone} .*{CHOOSE}"):
        vit.create(backbone, 224)


@pytest.mark.parametrize(
    ("backbone", "words"),
    [
        ("vit_smal_patch16_224", "one near to it for --backbone, such as vit_small_patch16_224, "),
        ("ViT-Small-Patch16-224", "such as vit_small_patch16_224, "),
        ("deit_tinny", "such as deit_tiny_patch16_224"),
        ("dinov2_vits14", "choose another for --backbone, such as vit_small_patch16_224 or "),
        ("", "timm knows no backbone ''; choose another"),
        ("hf_hub:timm/nothing", "timm knows no backbone 'hf_hub:timm/nothing'; choose "),
    ],
)
def test_names_that_timm_does_not_know(backbone: str, words: str) -> None:
    with refused(UsageError, words):
        plain.check_name(backbone)


def test_a_tag_that_timm_does_not_know() -> None:
    with refused(
        UsageError,
        r"^timm knows no weights 'nope' of vit_tiny_patch16_224; .*, such as vit_tiny",
    ):
        vit.create("vit_tiny_patch16_224.nope", 224)
    plain.check_name("vit_tiny_patch16_224.augreg_in21k")
