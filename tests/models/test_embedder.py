"""Networks on photos as a device sees them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fgdeploy.core.errors import ImageError
from fgdeploy.models.backbone import vit
from fgdeploy.models.embedder import Embedder
from fgdeploy.models.heads.hash import ClassHashHead
from fgdeploy.models.network import Network
from fgdeploy.models.reduce.stages import Stage
from fgdeploy.photos import Photo, Preprocess
from tests.checks import refused
from tests.models.samples import NORM, pruned

PREPROCESS = Preprocess(64, 73, "bilinear", NORM.mean, NORM.std)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Photo]:
    folder = tmp_path_factory.mktemp("photos")
    chooser = np.random.default_rng(0)
    for number in range(5):
        pixels = chooser.integers(0, 256, (80, 100, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return [Photo(folder / f"{number}.png") for number in range(5)]


@pytest.fixture
def net() -> Network:
    encoder = pruned(vit.create("test_vit", 64), (Stage(2, 8),))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Network(encoder, ClassHashHead(64, 5, 20))


def _nothing(done: int, total: int) -> None:
    pass


@pytest.mark.parametrize("batch", [1, 2, 64])
def test_they_are_those_of_the_network_on_each_frame(
    net: Network, photos: list[Photo], batch: int
) -> None:
    told: list[tuple[int, int]] = []
    embedder = Embedder(PREPROCESS, batch=batch)
    rows = embedder.embeddings(net, photos, lambda done, total: told.append((done, total)))
    codes = embedder.codes(net, photos, _nothing)
    assert rows.shape == (5, 64) and rows.dtype == np.float32
    assert codes.shape == (5, 3) and codes.dtype == np.uint8
    assert told[-1] == (5, 5)
    for photo, row, code in zip(photos, rows, codes, strict=True):
        frame = torch.tensor(PREPROCESS.frame(photo.path)).permute(2, 0, 1)[None]
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (NORM.mean, NORM.std))
        with torch.no_grad():
            features = net.eval()((frame / 255 - mean) / std)
            hashes = net.hashes(features)["hash"][0].numpy()
        np.testing.assert_allclose(row, features.embedding[0].numpy(), atol=1e-4)
        bits = np.unpackbits(code)[:20]
        clear = np.abs(hashes) > 1e-3
        assert (bits == (hashes > 0))[clear].all()


@pytest.mark.parametrize("training", [True, False])
def test_a_network_is_left_in_the_mode_it_came_in(
    net: Network, photos: list[Photo], training: bool
) -> None:
    net.train(training)
    modes: list[bool] = []
    net.encoder.register_forward_pre_hook(lambda module, given: modes.append(module.training))
    Embedder(PREPROCESS).embeddings(net, photos, _nothing)
    assert modes == [False]
    assert net.training is training
    with refused(ImageError, "gone.png"):
        Embedder(PREPROCESS).embeddings(net, [Photo(Path("gone.png"))], _nothing)
    assert net.training is training


def test_a_deployed_network_gives_the_same_rows(net: Network, photos: list[Photo]) -> None:
    net.eval().requires_grad_(False)
    plain, folded = (
        Embedder(PREPROCESS).embeddings(one, photos, _nothing)
        for one in (net.published(), net.deployed())
    )
    np.testing.assert_allclose(plain, folded, atol=1e-4)


def test_unreadable_photos_are_left_out_where_that_is_wanted(
    net: Network, photos: list[Photo], tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_bytes(b"no photo")
    given = [photos[0], Photo(tmp_path / "broken.png"), photos[1]]
    skipped: list[str] = []
    rows = Embedder(PREPROCESS, skipped=skipped).embeddings(net, given, _nothing)
    assert len(rows) == 2 and len(skipped) == 1 and "broken.png" in skipped[0]
    with refused(ImageError, r"broken\.png"):
        Embedder(PREPROCESS).embeddings(net, given, _nothing)
    only = [Photo(tmp_path / "broken.png")]
    assert Embedder(PREPROCESS, skipped=[]).embeddings(net, only, _nothing).shape == (0, 0)


def test_half_precision_is_the_caller_s_choice(net: Network, photos: list[Photo]) -> None:
    exact = Embedder(PREPROCESS).embeddings(net, photos, _nothing)
    half = Embedder(PREPROCESS, autocast=lambda: torch.autocast("cpu", torch.bfloat16))
    rows = half.embeddings(net, photos, _nothing)
    assert rows.dtype == np.float32
    assert 0 < np.abs(rows - exact).mean() < 0.1
