"""A network in training and deployed: its tensors by name, and hashes that stay in float32."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fgdeploy.core.errors import CheckpointError
from fgdeploy.models.backbone import vit
from fgdeploy.models.encoder import Encoder
from fgdeploy.models.heads.base import Features
from fgdeploy.models.heads.hash import ClassHashHead
from fgdeploy.models.methods import eet
from fgdeploy.models.methods.eet import EETOptions
from fgdeploy.models.network import Network
from fgdeploy.models.reduce.stages import Stage
from tests.checks import refused
from tests.models.samples import BACKBONES, NORM, randomised, size_of

SIZE, CLASSES, BITS = 64, 5, 16
OPTIONS = EETOptions((Stage(2, 8), Stage(4, 4)))


def _net(seed: int = 0, backbone: str = "test_vit", classes_of_backbone: int = 0) -> Network:
    encoder = eet.build(vit.create(backbone, SIZE, classes_of_backbone, seed), NORM, OPTIONS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = ClassHashHead.fresh(int(encoder.vit.embed_dim), CLASSES, BITS)
    return Network(encoder, head, OPTIONS)


def _images(count: int = 2) -> Tensor:
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(3))


# Its tensors


@pytest.mark.parametrize("classes_of_backbone", [0, 7])
@pytest.mark.parametrize("backbone", ["test_vit", "deit_tiny_distilled_patch16_224"])
def test_tensors_have_the_names_of_timm_and_of_the_heads(
    backbone: str, classes_of_backbone: int
) -> None:
    net = _net(backbone=backbone, classes_of_backbone=classes_of_backbone)
    expected = set(vit.create(backbone, SIZE).state_dict())
    assert "blocks.5.attn.qkv.weight" in expected and "head.weight" not in expected
    expected |= {"head.weight", "head.bias", "head_hash.weight", "head_hash.bias"}
    tensors = net.state()
    assert set(tensors) == expected
    # The heads are the trained ones, not a class head that the backbone came with.
    assert tensors["head.weight"].shape == (CLASSES, int(net.encoder.vit.embed_dim))
    assert tensors["head.bias"].shape == (CLASSES,)
    assert tensors["head_hash.weight"].shape == (BITS, CLASSES)
    assert tensors["head_hash.bias"].shape == (BITS,)
    # Saved as they are: each weight once, and in no other's memory.
    assert len({value.data_ptr() for value in tensors.values()}) == len(tensors)
    assert sum(value.numel() for value in tensors.values()) == sum(
        parameter.numel() for parameter in net.parameters()
    )
    assert net.encoder.own() == set()


def test_tensors_follow_the_weights() -> None:
    net = _net()
    with torch.no_grad():
        net.head.head_hash.bias.fill_(3.0)
        net.encoder.vit.cls_token.fill_(2.0)
    tensors = net.state()
    assert (tensors["head_hash.bias"] == 3).all()
    assert (tensors["cls_token"] == 2).all()


class _Own(Encoder):
    """An encoder with parameters of its own, in itself, a suffix, and a step."""

    def __init__(self) -> None:
        suffix = torch.nn.Parameter(torch.zeros(1, 2, 64))
        super().__init__(vit.create("test_vit", SIZE), NORM, suffix=suffix)
        self.router = torch.nn.Linear(64, 3)
        self.walk.steps["2"].gate = torch.nn.Parameter(torch.ones(1))


def test_a_method_s_own_tensors_are_the_network_s_and_told_apart() -> None:
    net = Network(_Own(), ClassHashHead(64, CLASSES, BITS))
    own = {"router.weight", "router.bias", "suffix", "steps.2.gate"}
    assert net.encoder.own() == own
    assert set(net.state()) == own | set(_net().state())
    assert sum(value.numel() for value in net.state().values()) == sum(
        parameter.numel() for parameter in net.parameters()
    )
    before = net.fingerprint()
    with torch.no_grad():
        net.encoder.walk.steps["2"].gate.fill_(2.0)
    assert net.fingerprint() != before


def test_tensors_of_one_name_are_refused() -> None:
    encoder = _Own()
    encoder.head = torch.nn.Linear(64, 3)
    with pytest.raises(ValueError, match="encoder and head have tensors of one name"):
        Network(encoder, ClassHashHead(64, CLASSES, BITS)).state()
    encoder = _Own()
    encoder.norm = torch.nn.LayerNorm(64)
    with pytest.raises(ValueError, match=r"two tensors of the network are called norm\."):
        encoder.state()


def test_weights_are_loaded_whole_or_not_at_all() -> None:
    one, two = _net(1), _net(2)
    assert one.fingerprint() != two.fingerprint()
    given = {name: value.detach().clone() for name, value in one.state().items()}
    lacking = {name: value for name, value in given.items() if name != "head_hash.bias"}
    before = two.fingerprint()
    with refused(CheckpointError, "c.pth lacks head_hash.bias"):
        two.load(lacking, "c.pth")
    assert two.fingerprint() == before
    two.load(given, "c.pth")
    assert two.fingerprint() == one.fingerprint()
    assert torch.equal(two(_images()).embedding, one(_images()).embedding)


# Its hashes


def test_the_hash_is_taken_of_the_logits_of_the_embedding() -> None:
    net, images = _net(), _images()
    with torch.no_grad():
        for linear in (net.head.head, net.head.head_hash):
            linear.bias.normal_(generator=torch.Generator().manual_seed(4))
        features = net(images)
        found = net.hashes(features)
        embedding = net.encoder(images).embedding.double().numpy()
    assert torch.equal(features.embedding, net.encoder(images).embedding)
    w = {name: value.detach().double().numpy() for name, value in net.head.state_dict().items()}
    expected = embedding @ w["head.weight"].T + w["head.bias"]
    assert found["logits"].numpy() == pytest.approx(expected, abs=1e-5)
    expected = expected @ w["head_hash.weight"].T + w["head_hash.bias"]
    assert found["hash"].numpy() == pytest.approx(expected, abs=1e-5)
    assert found["hash"].shape == (2, BITS)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_hashes_are_float32_under_autocast(dtype: torch.dtype) -> None:
    net, images = _net(), _images()
    with torch.no_grad(), torch.autocast("cpu", dtype):
        # or the test would prove nothing
        assert net.head(Features(torch.ones(1, 64)))["hash"].dtype == dtype
        features = net(images)
        found = net.hashes(features)
        embedding = net.encoder(images).embedding
        halves = net.hashes(Features(embedding.to(dtype)))["hash"]
    assert found["hash"].dtype == found["logits"].dtype == halves.dtype == torch.float32
    with torch.no_grad():
        expected = net.head(Features(embedding.float()))
    assert torch.equal(found["hash"], expected["hash"])
    assert torch.equal(found["logits"], expected["logits"])


def test_a_head_gets_extras_in_float32_and_float64_as_it_is() -> None:
    seen: list[Features] = []

    class Spy(ClassHashHead):
        def forward(self, features: Features) -> dict[str, Tensor]:
            seen.append(features)
            return {}

    net = Network(_net().encoder, Spy(64, CLASSES, BITS))
    rows = torch.ones(1, 2, 64, dtype=torch.bfloat16)
    net.hashes(Features(torch.ones(1, 64, dtype=torch.float16), {"rows": rows}))
    net.hashes(Features(torch.ones(1, 64, dtype=torch.float64)))
    assert [one.embedding.dtype for one in seen] == [torch.float32, torch.float64]
    assert seen[0].extras["rows"].dtype == torch.float32


# Deployed


@pytest.mark.parametrize("backbone", BACKBONES)
def test_each_simplification_is_exact_from_frames_to_hash(backbone: str) -> None:
    size = size_of(backbone)
    encoder = eet.build(randomised(backbone, size), NORM, OPTIONS)
    head = ClassHashHead(int(encoder.vit.embed_dim), CLASSES, BITS).double()
    net = Network(encoder, head.requires_grad_(False)).double().eval()
    frames = torch.randint(
        0, 256, (2, 3, size, size), generator=torch.Generator().manual_seed(1), dtype=torch.uint8
    )

    def hashes(net: Network) -> Tensor:
        return net.head(net(net.pixels(frames)))["hash"]  # type: ignore[no-any-return]

    names = set(net.simplifications())
    assert names == {
        "early-gather",
        "cls-last",
        "cls-row",
        "fold-normalisation",
        "fold-hash-head",
    }
    expected = hashes(net.published())
    for left in (names, *(names - {name} for name in names), set()):
        found = hashes(net.deployed(frozenset(left)))
        assert (found - expected).abs().max() < 1e-10 * expected.abs().max(), left


def test_a_deployed_network_keeps_its_bits_and_logits_only_where_wanted() -> None:
    net = _net().eval().requires_grad_(False)
    features = Features(torch.ones(1, 64))
    assert set(net.deployed().head(features)) == {"hash"}
    assert set(net.deployed(logits=True).head(features)) == {"hash", "logits"}
    assert set(net.published().head(features)) == {"hash", "logits"}
    assert net.deployed().head_bits == net.published().head_bits == BITS
    assert net.deployed().options is OPTIONS
    assert set(net.published().state()) == set(net.state())
    assert net.published().fingerprint() == net.fingerprint()
