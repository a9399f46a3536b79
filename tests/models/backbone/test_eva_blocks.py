"""timm's Eva in a plain ViT's pieces: against timm, and pruned against a float64 reference."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import timm.optim
import torch
from torch import Tensor

from fgdeploy.core.errors import UsageError
from fgdeploy.models.backbone import plain, vit
from fgdeploy.models.backbone.rotary import FixedAngles
from fgdeploy.models.backbone.variant import Variant
from fgdeploy.models.encoder import Encoder
from fgdeploy.models.methods import registry
from fgdeploy.models.reduce.stages import Stage
from fgdeploy.models.simplify import declared, simplified
from tests.checks import refused
from tests.models.reference_eva import Angles, Family, forward, table
from tests.models.samples import NORM, images, pruned

DINOV3 = Angles("periods", base=100.0, halves=True)
AXIAL = Angles("axial", base=100.0, across_first=True)
LEARNED = Angles("learned", across_first=True)


def _scaled(reference: int, offset: float = 0.0, across: bool = False) -> Angles:
    return Angles("axial", reference=reference, offset=offset, across_first=across)


@dataclass(frozen=True)
class Kind:
    """A registered model of timm's at a small size, and what the reference must know of it."""

    backbone: str
    family: Family
    sizes: dict[str, int] = field(default_factory=lambda: {"depth": 3, "width": 24, "heads": 3})

    @property
    def image(self) -> int:
        return 4 * self.family.patch

    @property
    def variant(self) -> Variant:
        return Variant(**self.sizes)  # type: ignore[arg-type]


# One for each combination that entries of timm/models/eva.py have.
KINDS = [
    Kind("vit_small_patch16_dinov3", Family(3, 16, DINOV3, eps=1e-5)),
    Kind("vit_tiny_patch16_dinov3_qkvb", Family(3, 16, DINOV3, eps=1e-5)),
    Kind("vit_small_plus_patch16_dinov3", Family(3, 16, DINOV3, eps=1e-5, mlp="apart")),
    Kind("vit_small_plus_patch16_dinov3_qkvb", Family(3, 16, DINOV3, eps=1e-5, mlp="apart")),
    Kind("eva02_tiny_patch14_224", Family(3, 14, _scaled(16), mlp="packed")),
    Kind("eva02_base_patch14_224", Family(3, 14, _scaled(16), mlp="apart")),
    Kind("eva02_base_patch16_clip_224", Family(3, 16, _scaled(16), mlp="apart")),
    Kind("eva02_enormous_patch14_clip_224", Family(3, 14, None, post=True)),
    Kind("eva_giant_patch14_224", Family(3, 14, None)),
    Kind("vit_small_patch16_rope_224", Family(3, 16, AXIAL)),
    Kind("vit_small_patch16_rope_ape_224", Family(3, 16, AXIAL, bare_cls=True)),
    Kind("vit_small_patch16_rope_mixed_224", Family(3, 16, LEARNED)),
    Kind("vit_small_patch16_rope_mixed_ape_224", Family(3, 16, LEARNED, bare_cls=True)),
    Kind(
        "vit_pe_core_tiny_patch16_384",
        Family(3, 16, _scaled(24, 1.0, across=True), eps=1e-5, before=True),
    ),
    Kind(
        "vit_pe_lang_large_patch14_448",
        Family(3, 14, _scaled(32, 1.0, across=True), eps=1e-5, before=True, behind=False),
    ),
    Kind(
        "vit_pe_spatial_tiny_patch16_512",
        Family(3, 16, _scaled(32, 1.0, across=True), eps=1e-5, before=True, behind=False),
    ),
    # Its heads of keys are counted for twelve blocks of twelve heads each.
    Kind(
        "vit_base_patch16_sapiens2",
        Family(12, 16, DINOV3, root=True, mlp="packed"),
        {"width": 96},
    ),
]
BY_NAME = pytest.mark.parametrize("kind", KINDS, ids=[kind.backbone for kind in KINDS])


def _timms(kind: Kind) -> Any:
    """Return timm's own model of a kind, in float64, with every parameter random."""
    model = timm.create_model(
        kind.backbone,
        num_classes=0,
        img_size=kind.image,
        global_pool="token",
        dynamic_img_size=False,
        **kind.variant.arguments(),
    )
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
            parameter.add_(1.0 if parameter.ndim == 1 else 0.0)
    return model.double().eval().requires_grad_(False)


def _ours(kind: Kind, model: Any) -> Any:
    """Return the same in pieces, on equal weights."""
    net = vit.create(kind.backbone, kind.image, variant=kind.variant).double()
    state = pruned(net).state()
    assert state.keys() == model.state_dict().keys()  # timm's names, each once
    for name, value in model.state_dict().items():
        state[name].data.copy_(value)
    return net.requires_grad_(False)


@pytest.fixture(scope="module", params=KINDS, ids=[kind.backbone for kind in KINDS])
def both(request: pytest.FixtureRequest) -> tuple[Kind, Any, Any]:
    kind = request.param
    model = _timms(kind)
    return kind, model, _ours(kind, model)


def _ways(encoder: Any) -> list[frozenset[str]]:
    """Return no simplification, that of this room alone, and all that take normalised pixels."""
    names = frozenset(declared(encoder)) - {"fold-normalisation"}
    return [frozenset(), names & {"join-qkv", "fold-angles"}, names]


def test_without_stages_it_is_timm(both: tuple[Kind, Any, Any]) -> None:
    kind, model, net = both
    photos = images(2, kind.image)
    expected = model.forward_features(photos)[:, 0]
    # timm makes learned frequencies' sines in float32 whatever the weights are.
    near = 1e-6 if kind.family.angles is LEARNED else 1e-12
    encoder = pruned(net)
    for names in _ways(encoder):
        found = simplified(encoder, names)(photos).embedding
        assert (found - expected).abs().max() < near * expected.abs().max(), names


def _exact_angles(kind: Kind, net: Any) -> None:
    """Put the reference's own float64 tables in the place of float32 ones, which must be near."""
    turn = net.blocks[0].attn.turn
    if not isinstance(turn, FixedAngles):
        return
    for held, exact in zip(
        (turn.sin, turn.cos), table(kind.family, 4, turn.sin.shape[2]), strict=True
    ):
        assert (held[:, 0] - torch.from_numpy(exact)).abs().max() < 2e-6
        held[:, 0] = torch.from_numpy(exact)


def test_pruned_it_is_the_reference(both: tuple[Kind, Any, Any]) -> None:
    kind, model, _ = both
    net = _ours(kind, model)
    _exact_angles(kind, net)
    photos = images(1, kind.image)
    encoder = pruned(net, (Stage(1, 9), Stage(2, 4)))
    state = {name: value.numpy() for name, value in encoder.state().items()}
    expected = [forward(state, image, kind.family, {0: 9, 1: 4}) for image in photos.numpy()]
    assert {len(places) for _, places in expected} == {4}
    for names in _ways(encoder):
        found = simplified(encoder, names)(photos).embedding.numpy()
        for row, (one, _) in zip(found, expected, strict=True):
            np.testing.assert_allclose(row, one, rtol=0, atol=1e-11 * np.abs(one).max())


def test_positions_matter(both: tuple[Kind, Any, Any]) -> None:
    """Patches that lie elsewhere give another embedding: the proof above compares something."""
    kind, _, net = both
    photos = images(1, kind.image)
    tokens = pruned(net).embed(photos)
    if tokens.places is None:
        assert kind.family.angles is None
        return
    encoder = pruned(net, (Stage(1, 9), Stage(2, 4)))
    moved = tokens.having(tokens.x, places=tokens.places.flip(0))
    rows = [encoder.walk(net.blocks, one).x for one in (tokens, moved)]
    assert (rows[0] - rows[1]).abs().max() > 1e-3


def test_places_are_those_of_the_patches() -> None:
    net = vit.create("vit_small_patch16_dinov3", 64, variant=Variant(depth=2, width=48, heads=3))
    suffix = torch.nn.Parameter(torch.zeros(1, 2, 48))
    tokens = Encoder(net, NORM, suffix=suffix).embed(torch.zeros(1, 3, 64, 64))
    assert tokens.places is not None
    assert tokens.places.tolist() == [0] * 5 + list(range(1, 17)) + [0] * 2


@pytest.mark.parametrize("method", ["topk", "evit", "ats", "dynamicvit", "cropr"])
@pytest.mark.parametrize(
    "backbone", ["vit_small_patch16_dinov3", "vit_small_patch16_rope_mixed_224"]
)
def test_methods_that_choose_rows_carry_places(method: str, backbone: str) -> None:
    """The deployed network, on few rows, is the published one; rows keep their own places."""
    net = vit.create(backbone, 64, variant=Variant(depth=4, width=48, heads=3))
    found = registry.get(method)
    options = found.options.parse({"keep_rate": "0.7", "blocks": "1,3"})
    encoder = found.build(net, NORM, options.resolved(vit.geometry(net))).double().eval()
    photos = images(2, 64)
    names = frozenset(declared(encoder)) - {"fold-normalisation"}
    seen: list[Tensor] = []

    def see(number: int, tokens: Any) -> None:
        if tokens.count > 1:
            assert tokens.places.shape[-1] == tokens.count
            seen.append(tokens.places)

    see.wants_attention = False  # type: ignore[attr-defined]
    with torch.no_grad():
        published = simplified(encoder, frozenset())(photos, [see]).embedding
        deployed = simplified(encoder, names)(photos).embedding
    assert (published - deployed).abs().max() < 1e-11
    assert len({tuple(row.tolist()) for row in seen[-1]}) == 2  # each photo keeps its own


@pytest.mark.parametrize(
    ("method", "given"),
    [
        ("dva", {"rank": "4", "targets": "q,k,v"}),
        ("dva", {"rank": "4", "own_norm": "true"}),
        ("glsim", {"top": "3"}),
        ("clca", {"reduction": "evit", "blocks": "1,3"}),
    ],
)
@pytest.mark.parametrize("backbone", ["vit_tiny_patch16_dinov3_qkvb", "vit_small_patch16_rope_224"])
def test_other_methods_run_on_them(method: str, given: dict[str, str], backbone: str) -> None:
    net = vit.create(backbone, 64, variant=Variant(depth=4, width=48, heads=3))
    found = registry.get(method)
    options = found.options.parse(given).resolved(vit.geometry(net))
    encoder = found.build(net, NORM, options).double().eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(4)
    for value in filter(torch.is_floating_point, encoder.state().values()):
        value.add_(torch.randn(value.shape, generator=generator, dtype=value.dtype) * 0.05)
    photos = images(2, 64)
    names = frozenset(declared(encoder)) - {"fold-normalisation"}
    published = simplified(encoder, frozenset())(photos).embedding
    deployed = simplified(encoder, names)(photos).embedding
    assert (published - deployed).abs().max() < 1e-10 * published.abs().max()


def test_adapters_on_projections_apart_are_refused() -> None:
    net = vit.create("eva02_base_patch14_224", 56, variant=Variant(depth=1, width=48, heads=3))
    found = registry.get("dva")
    with refused(UsageError, "by matrices that lie apart, where adapters have no place; choose"):
        found.build(net, NORM, found.options().resolved(vit.geometry(net)))


def test_layer_decay_knows_every_tensor() -> None:
    """timm groups by depth: its rates rise from block to block of those in pieces."""
    net = vit.create(
        "vit_small_patch16_rope_mixed_224", 64, variant=Variant(depth=3, width=48, heads=3)
    )
    groups = timm.optim.param_groups_layer_decay(
        net, no_weight_decay_list=net.no_weight_decay(), layer_decay=0.5
    )
    held = [id(one) for group in groups for one in group["params"]]
    assert sorted(held) == sorted(id(one) for one in net.parameters())
    rates = {id(one): group["lr_scale"] for group in groups for one in group["params"]}
    assert rates[id(net.blocks[0].attn.qkv.weight)] < rates[id(net.blocks[2].attn.qkv.weight)]
    assert rates[id(net.cls_token)] < rates[id(net.blocks[0].attn.qkv.weight)]


@pytest.mark.parametrize("method", ["tome", "dpcknn", "mame", "sit", "patchmerger"])
def test_methods_that_mix_rows_are_refused(method: str) -> None:
    net = vit.create("vit_small_patch16_dinov3", 64, variant=Variant(depth=4, width=48, heads=3))
    found = registry.get(method)
    options = found.options().resolved(vit.geometry(net))
    with refused(UsageError, "positions are rotary, and .* several patches, which have no one pos"):
        found.build(net, NORM, options)


def test_overlapping_patches_are_refused() -> None:
    with refused(UsageError, "a stride of 12: patches that overlap have no rotary positions"):
        vit.create("vit_small_patch16_dinov3", 64, variant=Variant(stride=12, depth=1, width=48))


def test_every_registered_eva_is_taken_or_refused_in_our_words() -> None:
    taken = 0
    for name in timm.list_models(module="eva"):
        short = {} if "sapiens2" in name else {"depth": 1}  # shapes only, and few of them
        with torch.device("meta"):
            model = timm.create_model(name, **short)
        reason = plain.why_not(model)
        if reason is None:
            taken += 1
            continue
        bare = model.cls_token is None
        assert reason.startswith("pools its patches" if bare else "has fewer heads of keys"), name
    assert (taken, len(timm.list_models(module="eva"))) == (54, 65)


def test_positions_in_training_are_those_of_evaluation() -> None:
    """timm scales Sapiens2's coordinates at random in training; here nothing is drawn."""
    kind = KINDS[-1]
    net = vit.create(kind.backbone, kind.image, variant=kind.variant).train()
    before = torch.get_rng_state()
    encoder = pruned(net).train()
    one, two = (encoder(images(1, kind.image, torch.float32)).embedding for _ in range(2))
    assert torch.equal(one, two) and torch.equal(before, torch.get_rng_state())
