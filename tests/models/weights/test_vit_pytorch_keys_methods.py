"""DVA, AFTrans and GLSim on files in the names of ViT-pytorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fgdeploy.models import assembly
from fgdeploy.models.assembly import NetworkSettings
from tests.models.methods import reference_looks
from tests.models.samples import images
from tests.models.weights.vit_pytorch_layouts import laid_out, timm_weights

SIZE, HEADS, WIDTH = 64, 2, 64  # timm's test_vit
_EMBEDDINGS = "transformer.embeddings."


def _assembled(tmp_path: Path, state: dict[str, Tensor], **given: Any) -> Any:
    torch.save({"model": state}, tmp_path / "c.bin")
    settings = NetworkSettings(
        backbone="test_vit", image_size=SIZE, checkpoint=tmp_path / "c.bin", **given
    )
    return assembly.choose(settings).encoder().double()


@pytest.mark.parametrize(("method", "stride"), [("dva", None), ("aftrans", 12)])
def test_a_method_starts_from_the_backbone_in_such_a_file(
    method: str, stride: int | None, tmp_path: Path
) -> None:
    """Adapters that add nothing yet, and the global branch, are the plain ViT."""
    state = timm_weights()
    if stride is not None:  # (64 - 16) / 12 + 1 = 5 patches a side
        generator = torch.Generator().manual_seed(2)
        state["pos_embed"] = torch.randn(1, 26, WIDTH, generator=generator)
    encoder = _assembled(tmp_path, laid_out(state, "TransFG"), method=method)
    pixels, weights = images(1, SIZE), reference_looks.plain(state)
    with torch.no_grad():
        found = encoder(pixels).embedding[0].numpy()
    expected = reference_looks.vit_tokens(weights, pixels[0].numpy(), HEADS, stride=stride)
    assert abs(found - expected.normed[0]).max() <= 1e-11


def test_a_second_set_of_embeddings_comes_by_patterns(tmp_path: Path) -> None:
    state = laid_out(timm_weights(), "TransFG")
    state[f"{_EMBEDDINGS}position_embeddings"] = torch.ones(1, 26, WIDTH)
    state[f"{_EMBEDDINGS}cls_token_l"] = torch.full((1, 1, WIDTH), 3.0)
    state[f"{_EMBEDDINGS}positions_l"] = torch.ones(1, 10, WIDTH)
    state |= {"sacm.fc1.weight": torch.ones(1, 6), "sacm.fc2.weight": torch.ones(6, 1)}
    encoder = _assembled(
        tmp_path,
        state,
        method="aftrans",
        options={"local_size": "48"},
        renames=(
            r".*\.cls_token_l$=local_cls_token",
            r".*\.positions_l$=local_pos_embed",
        ),
    )
    held = encoder.state()
    assert torch.all(held["local_cls_token"] == 3) and held["local_pos_embed"].shape[1] == 10


def test_a_second_look_starts_from_such_a_file(tmp_path: Path) -> None:
    state = timm_weights()
    held = _assembled(tmp_path, laid_out(state, "FFVT"), method="glsim").state()
    for name, value in state.items():
        assert name.startswith("head.") or torch.equal(held[name], value.double())
