"""The references of the methods that look twice, against cases by hand, timm and torch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F

from tests.models.methods import reference_aftrans, reference_dva, reference_glsim
from tests.models.methods import reference_looks as looks
from tests.models.methods.reference_looks import Array

SIZE, WIDTH, HEADS = 64, 64, 2  # timm's test_vit


def _random(module: Any, seed: int = 5) -> dict[str, Array]:
    """Make every value of a module matter; return them by name."""
    generator = torch.Generator().manual_seed(seed)
    module.double().eval()
    with torch.no_grad():
        for value in module.parameters():
            noise = torch.randn(value.shape, generator=generator, dtype=torch.float64)
            value.copy_(noise * 0.2 + (1.0 if value.ndim == 1 else 0.0))
    return looks.plain(module.state_dict())


def _pixels(*shape: int) -> Array:
    return np.random.default_rng(3).standard_normal(shape)


@pytest.mark.parametrize("name", ["test_vit", "vit_little_patch16_reg1_gap_256"])
def test_a_look_is_timm_s(name: str) -> None:
    options = {"global_pool": "token"} if name == "test_vit" else {"class_token": True}
    vit = timm.create_model(name, img_size=SIZE, num_classes=0, depth=2, **options)
    vit.norm = vit.norm if hasattr(vit.norm, "weight") else torch.nn.LayerNorm(vit.embed_dim, 1e-6)
    state, pixels = _random(vit), _pixels(3, SIZE, SIZE)
    with torch.no_grad():
        expected = vit.forward_features(torch.from_numpy(pixels)[None])[0].numpy()
    heads = vit.blocks[0].attn.num_heads
    found = looks.vit_tokens(state, pixels, heads)
    assert np.abs(found.normed - expected).max() <= 1e-11
    assert found.grid == (4, 4) and found.prefix == vit.num_prefix_tokens
    assert found.attention.shape == (2, heads, len(expected), len(expected))
    assert np.allclose(found.attention.sum(-1), 1)
    bare = {key: value for key, value in state.items() if key.split(".")[0] != "norm"}
    assert np.array_equal(looks.vit_tokens(bare, pixels, heads).normed, found.tokens)


def test_patches_that_overlap_start_every_stride_pixels_and_the_rest_is_left_out() -> None:
    """The one weight of the patch embedding picks the first red pixel of a patch."""
    kernel = np.zeros((1, 3, 4, 4))
    kernel[0, 0, 0, 0] = 1
    state = {
        "patch_embed.proj.weight": kernel,
        "cls_token": np.zeros((1, 1, 1)),
        "pos_embed": np.zeros((1, 10, 1)),
        "blocks.0.norm1.weight": np.zeros(1),
        "blocks.0.norm1.bias": np.zeros(1),
        "blocks.0.norm2.weight": np.zeros(1),
        "blocks.0.norm2.bias": np.zeros(1),
        "blocks.0.attn.qkv.weight": np.zeros((3, 1)),
        "blocks.0.attn.proj.weight": np.zeros((1, 1)),
        "blocks.0.mlp.fc1.weight": np.zeros((4, 1)),
        "blocks.0.mlp.fc2.weight": np.zeros((1, 4)),
    }
    pixels = np.arange(3 * 11 * 11, dtype=float).reshape(3, 11, 11)
    found = looks.vit_tokens(state, pixels, 1, stride=3)
    assert found.grid == (3, 3)
    assert found.tokens[1:, 0].tolist() == [0, 3, 6, 33, 36, 39, 66, 69, 72]


def test_adapters_lie_beside_attention_and_mlp_on_the_same_norm() -> None:
    """Nothing but the two adapters acts: each adds gelu of the normed row."""
    zero = {"attn.qkv": (6, 2), "attn.proj": (2, 2), "mlp.fc1": (8, 2), "mlp.fc2": (2, 8)}
    p: dict[str, Array] = {f"{name}.weight": np.zeros(shape) for name, shape in zero.items()}
    for norm, scale in (("norm1", 1.0), ("norm2", 2.0)):
        p |= {f"{norm}.weight": np.full(2, scale), f"{norm}.bias": np.zeros(2)}
    for name in ("adapter_attn", "adapter_pwffn"):
        p[f"{name}.adapter_down.weight"] = np.array([[1.0, 0.0]])
        p[f"{name}.adapter_up.weight"] = np.array([[1.0], [0.0]])
    found, _ = looks.run_block(p, np.array([[3.0, 1.0]]), 1, 0.0)

    def act(x: float) -> float:
        return x * 0.5 * (1 + math.erf(x / math.sqrt(2)))

    assert found[0] == pytest.approx([3 + act(1.0) + act(2.0), 1.0], abs=1e-14)


@pytest.mark.parametrize(
    "box", [(0, 0, 16, 16), (0, 0, 4, 16), (3, 5, 10, 6), (0, 2, 1, 16), (15, 15, 16, 16)]
)
def test_a_crop_is_torch_s_slice_and_resize(box: tuple[int, int, int, int]) -> None:
    pixels = _pixels(3, 16, 16)
    top, left, bottom, right = box
    part = torch.from_numpy(pixels)[None, :, top:bottom, left:right]
    expected = F.interpolate(part, (16, 16), mode="bilinear", align_corners=True)[0].numpy()
    found = looks.cut_and_resized(pixels, box, 16)
    assert np.abs(found - expected).max() <= 1e-12


def test_corners_stay_and_the_middle_is_the_mean() -> None:
    part = np.array([[[0.0, 2.0], [4.0, 10.0]]])
    assert looks.cut_and_resized(part, (0, 0, 2, 2), 3).tolist() == [
        [[0.0, 1.0, 2.0], [2.0, 4.0, 6.0], [4.0, 7.0, 10.0]]
    ]


def test_equal_scores_are_ordered_by_position() -> None:
    assert looks.first_best(np.array([1.0, 3.0, 3.0, 0.0, 3.0]), 4) == [1, 2, 4, 0]


@pytest.mark.parametrize(
    ("metric", "values", "best"),
    [
        ("cos", [1.0, 0.0, -1.0, 0.6], [0, 3]),
        ("l1", [1.0, 4.0, 4.0, 2.5], [0, 3]),
        ("l2", [2.0, 17.0, 20.0, 8.5], [0, 3]),
    ],
)
def test_similarity_to_cls(metric: str, values: list[float], best: list[int]) -> None:
    """CLS is (2, 0), a register follows, then (4, 0), (0, 6) twice shortened, (-4, ...)."""
    rows = {
        "cos": [[4.0, 0.0], [0.0, 6.0], [-4.0, 0.0], [3.0, 4.0]],
        "l1": [[4.0, 0.0], [-3.0, 3.0], [-4.0, 2.0], [3.0, 4.0]],
        "l2": [[4.0, 0.0], [-3.0, 3.0], [-4.0, 2.0], [3.0, 4.0]],
    }[metric]
    tokens = np.array([[2.0, 0.0], [9.0, 9.0], *rows])
    found = reference_glsim.similarity(tokens, 2, metric)
    assert found == pytest.approx(values, abs=1e-15)
    assert reference_glsim.most_similar(found, 2, metric) == best


def test_a_row_of_zeros_is_like_nothing() -> None:
    assert reference_glsim.similarity(np.array([[1.0], [0.0]]), 1, "cos").tolist() == [0.0]


@pytest.mark.parametrize(
    ("chosen", "released", "inclusive"),
    [
        ([5, 10], (16, 16, 32, 32), (16, 16, 48, 48)),
        ([0, 15], (0, 0, 48, 48), (0, 0, 64, 64)),
        ([6, 2, 14], (0, 32, 48, 48), (0, 32, 64, 48)),  # one column
        ([15], (48, 48, 64, 64), (48, 48, 64, 64)),
        ([12, 15], (48, 0, 64, 48), (48, 0, 64, 64)),  # the last row
    ],
)
def test_the_box_around_chosen_patches(
    chosen: list[int], released: tuple[int, ...], inclusive: tuple[int, ...]
) -> None:
    assert reference_glsim.box_around(chosen, 4, 16, 64, False) == released
    assert reference_glsim.box_around(chosen, 4, 16, 64, True) == inclusive


@pytest.fixture(scope="module")
def weights() -> dict[str, Array]:
    """Return a backbone of two blocks with all that GLSim adds."""
    vit = timm.create_model("test_vit", img_size=SIZE, num_classes=7, depth=2, global_pool="token")
    block = type(vit.blocks[0])(WIDTH, WIDTH // 64, qkv_bias=True)
    found = {**_random(vit), **{f"aggregator.{k}": v for k, v in _random(block, 6).items()}}
    rng = np.random.default_rng(8)
    found |= {f"aggregator_norm.{k}": rng.standard_normal(WIDTH) for k in ("weight", "bias")}
    return {**found, "cls_token_crops": rng.standard_normal((1, 1, WIDTH))}


def test_the_aggregator_is_timm_s_block_and_a_norm(weights: dict[str, Array]) -> None:
    vit = timm.create_model("test_vit", depth=1)
    block = type(vit.blocks[0])(WIDTH, 1, qkv_bias=True, norm_layer=type(vit.norm)).double()
    block.load_state_dict(
        {k[11:]: torch.from_numpy(v) for k, v in weights.items() if k.startswith("aggregator.")}
    )
    scale, shift = (torch.from_numpy(weights[f"aggregator_norm.{k}"]) for k in ("weight", "bias"))
    rows = _pixels(2, WIDTH)
    with torch.no_grad():
        out = block(torch.from_numpy(rows)[None])[0, 0]
        expected = F.layer_norm(out, (WIDTH,), scale, shift, 1e-5).numpy()
    found = reference_glsim.aggregated(weights, rows, 1e-6, 1e-5)
    assert np.abs(found - expected).max() <= 1e-12


def test_several_aggregating_blocks_come_one_behind_the_other(weights: dict[str, Array]) -> None:
    rows = _pixels(2, WIDTH)
    block = {k[11:]: v for k, v in weights.items() if k.startswith("aggregator.")}
    twice = {f"aggregator.blocks.{j}.{k}": v for j in (0, 1) for k, v in block.items()}
    found, _ = looks.run_block(block, looks.run_block(block, rows, 1, 1e-6)[0], 1, 1e-6)
    assert np.array_equal(reference_glsim.aggregated(twice, rows, 1e-6), found[0])
    assert np.array_equal(reference_glsim.aggregated({}, rows, 1e-6), rows[0])


def test_glsim_looks_at_its_own_box_and_joins_both_cls_rows(weights: dict[str, Array]) -> None:
    pixels = _pixels(3, SIZE, SIZE)
    found = reference_glsim.glsim(weights, pixels, HEADS, 3)
    assert found.box is not None and found.crop is not None and found.logits is not None
    assert (
        found.similarity.reshape(-1)[found.chosen].tolist()
        == sorted(found.similarity.reshape(-1))[:-4:-1]
    )
    crop = looks.cut_and_resized(pixels, found.box, SIZE)
    rows = [looks.vit_tokens(weights, one, HEADS, 1e-12).normed[0] for one in (pixels, crop)]
    joined = reference_glsim.aggregated(weights, np.stack(rows), 1e-12)
    assert np.array_equal(found.embedding, joined)
    assert np.array_equal(found.logits, looks.linear(joined, weights, "head"))


def test_each_path_of_glsim_is_another(weights: dict[str, Array]) -> None:
    bare = {name: value for name, value in weights.items() if name.split(".")[0] != "norm"}
    reduced = {
        **weights,
        "reducer.weight": np.eye(WIDTH) * 2,
        "reducer.bias": np.ones(WIDTH),
    }
    pixels = _pixels(3, SIZE, SIZE)
    every = [
        reference_glsim.glsim(state, pixels, HEADS, 3, **more).embedding
        for state, more in (
            (weights, {}),
            (weights, {"own_cls": True}),
            (bare, {}),
            (reduced, {}),
            (weights, {"select_only": True}),
            (weights, {"metric": "l1"}),
            (weights, {"inclusive": True}),
            (weights, {"eps": 1e-3}),
            (weights, {"aggregator_eps": 1e-3}),
            (weights, {"aggregator_heads": 2}),
            (weights, {"apart": 12}),
        )
    ]
    for number, one in enumerate(every):
        assert all(np.abs(one - other).max() > 1e-9 for other in every[:number])


def test_adapters_add_a_product_of_two_small_matrices(weights: dict[str, Array]) -> None:
    """With the block's own norm it is as if the product were added to the weights."""
    rng, pixels = np.random.default_rng(4), _pixels(3, SIZE, SIZE)
    state, folded = dict(weights), dict(weights)
    for target, start in (("q", 0), ("k", WIDTH)):
        down, up = rng.standard_normal((4, WIDTH)), rng.standard_normal((WIDTH, 4)) * 0.1
        state[f"blocks.1.attn.ic_{target}.down.weight"] = down
        state[f"blocks.1.attn.ic_{target}.up.weight"] = up
        fused = folded["blocks.1.attn.qkv.weight"].copy()
        fused[start : start + WIDTH] += up @ down
        folded["blocks.1.attn.qkv.weight"] = fused
    found = reference_dva.dva(state, pixels, HEADS)
    assert np.abs(found - reference_dva.dva(folded, pixels, HEADS)).max() <= 1e-11
    assert np.abs(found - reference_dva.dva(weights, pixels, HEADS)).max() > 1e-6
    unit = reference_dva.dva(state, pixels, HEADS, unit=True)
    assert float(unit @ unit) == pytest.approx(1, abs=1e-14)
    assert np.abs(unit * np.sqrt(found @ found) - found).max() <= 1e-13


def test_an_adapter_s_own_norm_is_that_of_the_block_s_input() -> None:
    x, y = np.array([[3.0, 1.0]]), np.array([[7.0, 7.0]])
    state = {
        "ic_q.down.weight": np.array([[1.0, 2.0]]),
        "ic_q.up.weight": np.array([[1.0], [10.0]]),
    }
    assert reference_dva.adapted(state, "ic_q", x, y, 0.0) == pytest.approx(
        np.array([[21.0, 210.0]])
    )
    state |= {"ic_q.norm.weight": np.array([3.0, 1.0]), "ic_q.norm.bias": np.array([0.0, 0.5])}
    assert reference_dva.adapted(state, "ic_q", x, y, 0.0) == pytest.approx(np.array([[2.0, 20.0]]))
    assert reference_dva.adapted(state, "ic_k", x, y, 0.0) == 0.0


def _mask(text: str) -> reference_aftrans.Mask:
    return np.array([[cell == "x" for cell in row] for row in text.split()])


@pytest.mark.parametrize(
    ("mask", "largest"),
    [
        ("xx.. .... ..xx ..x.", ".... .... ..xx ..x."),
        ("x... .x.. ...x ...x", "x... .x.. .... ...."),  # corners touch; of equals the first
        ("..x. .x.. x... ..xx", "..x. .x.. x... ...."),
        (".... ..x. .... ....", ".... ..x. .... ...."),
        ("xxxx x..x x.xx x...", "xxxx x..x x.xx x..."),
        ("x..x x..x x..x ...x", "...x ...x ...x ...x"),
    ],
)
def test_the_largest_component(mask: str, largest: str) -> None:
    from scipy import ndimage

    found = reference_aftrans.largest_component(_mask(mask))
    assert np.array_equal(found, _mask(largest))
    labels, _ = ndimage.label(_mask(mask), np.ones((3, 3)))
    assert np.array_equal(found, labels == 1 + np.argmax(np.bincount(labels.reshape(-1))[1:]))


def test_the_pixels_of_a_component() -> None:
    assert reference_aftrans.box_of(_mask("...... ..x... .xx... ......"), 12, 16) == (
        12,
        12,
        40,
        40,
    )
    assert reference_aftrans.box_of(_mask("x"), 12, 16) == (0, 0, 16, 16)


def test_attention_is_fused_by_products_gates_and_shares() -> None:
    """Two layers of two heads over CLS and four patches; the second layer has the wider gate."""
    attention = np.full((2, 2, 5, 5), 0.2)
    attention[0, :, 0] = [[0.1, 0.3, 0.2, 0.2, 0.2], [0.2, 0.4, 0.1, 0.1, 0.2]]
    attention[1, :, 0] = [[0.2, 0.1, 0.1, 0.5, 0.1], [0.6, 0.1, 0.1, 0.1, 0.1]]
    state = {"sacm.fc1.weight": np.zeros((1, 2)), "sacm.fc2.weight": np.array([[0.0], [1.0]])}
    fused = reference_aftrans.sacm(state, attention, (2, 2), 12, 16, rate=0.4)
    assert fused.gates.tolist() == [0.5, 0.5]
    expected = 0.5 * np.array([[0.12, 0.02, 0.02, 0.04], [0.01, 0.01, 0.05, 0.01]])
    assert np.abs(fused.scores.astype(float) - expected).max() <= 1e-17
    assert fused.chosen == [0, 6, 3]  # floor(0.4 * 8)
    assert fused.mask.tolist() == [[True, False], [True, True]]
    assert fused.box == (0, 0, 28, 28)
    state["sacm.fc1.weight"] = np.array([[1.0, 1.0]])
    wide = reference_aftrans.sacm(state, attention, (2, 2), 12, 16, rate=0.13)
    whole = [float(reference_aftrans.pooled(attention, False, False)[i]) for i in (0, 1)]
    assert wide.gates[0] == 0.5 and wide.gates[1] == pytest.approx(1 / (1 + math.exp(-sum(whole))))
    assert wide.chosen == [0] and wide.box == (0, 0, 16, 16)


def test_what_gates_are_made_of() -> None:
    attention = np.full((1, 2, 4, 4), 0.25)
    attention[0, 0, 0] = [0.5, 0.5, 0.0, 0.0]
    found = {
        (literal, whole): float(reference_aftrans.pooled(attention, literal, whole)[0])
        for literal in (True, False)
        for whole in (True, False)
    }
    row = math.sqrt(0.5 * 0.25)
    assert found[True, False] == pytest.approx(2 * 0.125 / 4)
    assert found[True, True] == pytest.approx((2 * 0.125 + 12 * 0.0625) / 16)
    assert found[False, False] == pytest.approx(4 * 2 * row / 4)
    assert found[False, True] == pytest.approx(4 * (2 * row + 12 * 0.25) / 16)


def test_a_product_of_twelve_heads_over_1370_tokens_does_not_vanish() -> None:
    attention = np.full((1, 12, 1, 1370), 1 / 1370)
    product = reference_aftrans.products(attention)[0, 0, 0]
    assert float(np.log(product)) == pytest.approx(-12 * math.log(1370), rel=1e-12)


def test_the_local_branch_of_aftrans_sees_the_crop_with_its_own_cls_and_positions() -> None:
    vit = timm.create_model("test_vit", img_size=SIZE, num_classes=7, depth=2, global_pool="token")
    rng = np.random.default_rng(2)
    state = {
        **_random(vit),
        "pos_embed": rng.standard_normal((1, 26, WIDTH)),
        "local_cls_token": rng.standard_normal((1, 1, WIDTH)),
        "local_pos_embed": rng.standard_normal((1, 10, WIDTH)),
        "sacm.fc1.weight": rng.standard_normal((1, 2)),
        "sacm.fc2.weight": rng.standard_normal((2, 1)),
    }
    pixels = _pixels(3, SIZE, SIZE)
    found = reference_aftrans.aftrans(state, pixels, HEADS, local_size=43, rate=0.1)
    assert found.logits is not None and found.local_logits is not None
    assert len(found.fused.chosen) == 5 and found.crop.shape == (3, 43, 43)
    local = {**state, "cls_token": state["local_cls_token"], "pos_embed": state["local_pos_embed"]}
    seen = looks.vit_tokens(local, found.crop, HEADS, stride=12).normed[0]
    assert np.array_equal(found.local_logits, looks.linear(seen, state, "head"))
    plain = looks.vit_tokens(state, pixels, HEADS, stride=12).normed[0]
    assert np.array_equal(found.logits, looks.linear(plain, state, "head"))
