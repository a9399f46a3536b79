"""The PyTorch model tells what it has: kept patches, maps and boxes, else rollout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fgdeploy.core.errors import UsageError
from fgdeploy.explaining import Opening, open_looker
from fgdeploy.explaining.by_pytorch import TorchLooker
from fgdeploy.models import assembly, tracing
from fgdeploy.models.assembly import NetworkSettings
from fgdeploy.models.backbone import vit as backbones
from fgdeploy.models.encoder import Encoder
from fgdeploy.models.heads.base import Features, NoHead
from fgdeploy.models.methods import eet, registry
from fgdeploy.models.methods.eet import EETOptions
from fgdeploy.models.network import Network
from fgdeploy.models.reduce.stages import Stage
from fgdeploy.models.weights import trained
from fgdeploy.models.weights.trained import TrainedConfig
from fgdeploy.photos import Preprocess
from tests.checks import refused
from tests.models.samples import NORM

PREPROCESS = Preprocess(64, 64, "bilinear", NORM.mean, NORM.std)
STAGES = (Stage(2, 8), Stage(4, 4))


class _Showing(Encoder):
    """A ViT that gives a map, a mask and a box beside its embedding, and CLS rows for a head."""

    def forward(self, pixels: Any, observers: Any = ()) -> Features:
        first = super().forward(pixels, observers)
        brightness = torch.nn.functional.avg_pool2d(pixels.mean(dim=1), 16)
        extras = {
            "similarity": brightness,
            "component": (brightness > 0).float(),
            "box": pixels.new_tensor([[0.0, 8.0, 16.0, 64.0]]).expand(len(pixels), -1),
            "rows": first.embedding,
        }
        if self.explains:
            extras["cost"] = brightness / 2
        return Features(first.embedding, extras)


def _looker(way: str | None, stages: tuple[Stage, ...] = (), showing: bool = False) -> TorchLooker:
    vit = backbones.create("test_vit", 64)
    made = _Showing(vit, NORM) if showing else eet.build(vit, NORM, EETOptions(stages=stages))
    return TorchLooker(Network(made, NoHead()), PREPROCESS, way, "x.fgd")


def _frames() -> Any:
    return np.random.default_rng(1).integers(0, 256, (2, 64, 64, 3), np.uint8)


@pytest.mark.parametrize("way", [None, "tokens"])
def test_kept_patches_of_each_photo(way: str | None) -> None:
    found = _looker(way, STAGES).look(_frames())
    for seen in found:
        assert [(kept.block, int(kept.patches.sum())) for kept in seen.kept] == [(2, 8), (4, 4)]
        assert seen.grid == (4, 4) and not seen.maps and seen.rollout is None
    assert (found[0].kept[0].holders != found[1].kept[0].holders).any()


@pytest.mark.parametrize("way", [None, "maps"])
def test_maps_masks_and_boxes_of_the_encoder(way: str | None) -> None:
    frames = _frames()
    first, second = _looker(way, showing=True).look(frames)
    pixels = (frames / 255.0 - NORM.mean) / NORM.std
    want = pixels.mean(axis=3).reshape(2, 4, 16, 4, 16).mean(axis=(2, 4))
    np.testing.assert_allclose(first.maps["similarity"], want[0], atol=1e-5)
    np.testing.assert_allclose(second.maps["similarity"], want[1], atol=1e-5)
    assert (second.maps["component"] == (want[1] > 0)).all()
    assert second.boxes["box"].tolist() == [0, 8, 16, 64]
    assert set(first.maps) == {"similarity", "component", "cost"} and set(first.boxes) == {"box"}
    assert first.kept == () and first.rollout is None


@pytest.mark.parametrize(
    ("way", "stages", "showing"),
    [(None, (), False), ("rollout", (), False), ("rollout", STAGES, False), ("rollout", (), True)],
)
def test_rollout_where_there_is_nothing_else_or_it_is_asked_for(
    way: str | None, stages: tuple[Stage, ...], showing: bool
) -> None:
    looker = _looker(way, stages, showing)
    found = looker.look(_frames())
    want = tracing.rollout(looker._network, _frames())
    for seen, one in zip(found, want, strict=True):
        assert seen.rollout is not None and not seen.maps and not seen.kept and not seen.boxes
        np.testing.assert_allclose(seen.rollout, one, rtol=1e-6)


LOOKS = {
    "glsim": ({"similarity"}, {"box"}),
    "aftrans": ({"attention", "component"}, {"box"}),
    "dva": (set(), set()),
}


@pytest.mark.parametrize("name", registry.METHODS)
def test_every_method_shows_what_it_has(name: str) -> None:
    """Kept patches where tokens go, maps and boxes where there are some, else rollout."""
    settings = NetworkSettings(
        method=name, backbone="test_vit", image_size=64, weights="random", seed=1
    )
    made = assembly.choose(settings)
    network = Network(made.encoder(), NoHead(), made.options)
    maps, boxes = LOOKS.get(name, (set(), set()))
    for seen in TorchLooker(network, made.preprocess, None, "x.fgd").look(_frames()):
        assert (set(seen.maps), set(seen.boxes)) == (maps, boxes)
        assert bool(seen.kept) == (name not in LOOKS)
        assert (seen.rollout is not None) == (name == "dva")
    for seen in TorchLooker(network, made.preprocess, "rollout", "x.fgd").look(_frames()):
        assert seen.rollout is not None and seen.rollout.shape == made.geometry.grid
        assert 0.1 < seen.rollout.sum() < 1


@pytest.mark.parametrize(
    ("way", "words"),
    [
        ("tokens", "^--as tokens: x.fgd drops or merges no token; take --as rollout$"),
        ("maps", "^--as maps: x.fgd gives no map and no box; take --as rollout$"),
    ],
)
def test_what_a_model_does_not_have_is_refused(way: str, words: str) -> None:
    with refused(UsageError, words):
        _looker(way).look(_frames())


def test_a_training_explains_itself_without_a_bundle(tmp_path: Path) -> None:
    settings = NetworkSettings(backbone="test_vit", image_size=64, weights="random")
    network = assembly.choose(settings).trainable(3, 16)
    config = TrainedConfig(
        "eet", "test_vit", 64, 16, EETOptions(STAGES), PREPROCESS, ("a", "b", "c"), {}
    )
    trained.save(tmp_path / "model.safetensors", network.state(), config)
    with open_looker(tmp_path, Opening()) as looker:
        assert (looker.preprocess.size, looker.preprocess.resize) == (64, 64)
        for seen in looker.look(_frames()):
            assert [int(kept.patches.sum()) for kept in seen.kept] == [8, 4]
