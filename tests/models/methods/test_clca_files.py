"""Files of CLCA's authors: what they say of themselves, and the logits that follow.

The logits are held to the plain reference, which is given the authors' tensors by a map of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fgdeploy.core.errors import CheckpointError
from fgdeploy.models.assembly import Assembly, NetworkSettings, choose
from fgdeploy.models.heads.class_head import class_head
from fgdeploy.models.methods import clca_files
from fgdeploy.models.methods.clca import CLCAOptions
from fgdeploy.models.weights.told import Told
from tests.checks import refused
from tests.models.methods import authors
from tests.models.reduce import learned, reference
from tests.models.reduce.reference import Cache, Reduce, ToMe, TopK
from tests.models.reduce.test_ats import Sampled
from tests.models.reduce.test_dpcknn import Clustered
from tests.models.samples import images

BLOCKS, DEPTH, RATE = (2, 3, 4), 6, 0.5
# Of 16 patches: what is left behind the stages, for those that count from the start.
LEFT = [int(authors.PATCHES * RATE**stage) for stage in (1, 2, 3)]


def _assembly(path: Path, method: str = "clca", **changed: Any) -> tuple[Assembly, list[str]]:
    said: list[str] = []
    return choose(NetworkSettings(method=method, checkpoint=path, **changed), said.append), said


def _sit(width: int) -> dict[str, Tensor]:
    found = {}
    for stage, count in enumerate(LEFT):
        start, half = f"cluster_layers.{stage}.", width // 2
        found[f"{start}weight.0.weight"] = torch.ones(width)
        found[f"{start}weight.0.bias"] = torch.zeros(width)
        found[f"{start}weight.1.weight"] = torch.zeros(half, width)
        found[f"{start}weight.1.bias"] = torch.zeros(half)
        found[f"{start}weight.3.weight"] = torch.zeros(count, half)
        found[f"{start}weight.3.bias"] = torch.zeros(count)
        found[f"{start}scale"] = torch.ones(1, 1, 1)
    return found


def _merger(width: int) -> dict[str, Tensor]:
    found = {}
    for stage, count in enumerate(LEFT):
        found[f"cluster_layers.{stage}.queries"] = torch.zeros(count, width)
        for part in ("weight", "bias"):
            found[f"cluster_layers.{stage}.norm.{part}"] = torch.zeros(width)
    return found


def _predictors(width: int) -> dict[str, Tensor]:
    found = {}
    layers = {"in_conv.1": (width, width), "out_conv.0": (width // 2, width)}
    layers |= {"out_conv.2": (width // 4, width // 2), "out_conv.4": (2, width // 4)}
    for stage in range(3):
        start = f"score_predictor.{stage}."
        found[f"{start}in_conv.0.weight"], found[f"{start}in_conv.0.bias"] = torch.ones(2, width)
        for name, shape in layers.items():
            found[f"{start}{name}.weight"] = torch.zeros(shape)
            found[f"{start}{name}.bias"] = torch.zeros(shape[0])
    return found


def _scores(width: int) -> dict[str, Tensor]:
    shapes = {"weight": (1, width), "bias": (1,)}
    return {
        f"cluster_layers.{stage}.score.{part}": torch.zeros(shape)
        for stage in range(3)
        for part, shape in shapes.items()
    }


def _predicted(stage: int) -> Reduce:
    return learned.DynamicViT(stage, lambda count: int((count - 2) * RATE))


def _tome(stage: int) -> Reduce:
    return ToMe([authors.PATCHES, *LEFT][stage - 1] - LEFT[stage - 1])


# Of each reduction, by the authors' name: its own weights, and the reference's step by stage.
KINDS: dict[str, tuple[Callable[[int], dict[str, Tensor]], Callable[[int], Reduce]]] = {
    "evit": (lambda _: {}, lambda _: TopK(RATE, True)),
    "topk": (lambda _: {}, lambda _: TopK(RATE)),
    "tome": (lambda _: {}, _tome),
    "dyvit": (_predictors, _predicted),
    "ats": (lambda _: {}, lambda stage: Sampled(LEFT[stage - 1] + 1)),
    "dpcknn": (
        _scores,
        lambda stage: Clustered(stage, max(LEFT[stage - 1], 5 if stage < 3 else 1)),
    ),
    "sit": (_sit, lambda stage: learned.SiT(stage, LEFT[stage - 1])),
    "patchmerger": (_merger, lambda stage: learned.PatchMerger(stage, LEFT[stage - 1])),
}


def _state(kind: str, **form: Any) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(13)
    own = KINDS[kind][0](authors.WIDTH)
    noise = {k: torch.randn(v.shape, generator=generator) * 0.3 for k, v in own.items()}
    return {**authors.clca(**form), **{k: v + noise[k] for k, v in own.items()}}


def _expected(theirs: Mapping[str, Tensor], kind: str, photos: Tensor, cache: Cache) -> Any:
    """Return the reference's logits for tensors under the authors' names."""
    state = {name: value.double().numpy() for name, value in theirs.items()}
    rows = state["clr"].shape[1]
    position = state.pop("pos_embed")
    state["pos_embed"], state["clr"] = position[:, :-rows], state["clr"] + position[:, -rows:]
    for place, name in (("0.0", "norm_in"), ("0.1", "conv"), ("0.2", "norm_out")):
        for key in [key for key in state if key.startswith(f"ifa_head.{place}.")]:
            state[f"aggregate.{name}.{key.split('.')[-1]}"] = state[key]
    for key in [key for key in state if key.startswith("cluster_layers.")]:
        _, stage, rest = key.split(".", 2)
        state[f"stages.{stage}.cluster.{rest}"] = state[key]
    for key in [key for key in state if key.startswith("score_predictor.")]:
        _, stage, rest = key.split(".", 2)
        state[f"stages.{stage}.predictor.{rest}"] = state[key]
    steps = {block: KINDS[kind][1](stage) for stage, block in enumerate(BLOCKS, 1)}
    head, bias = state["ifa_head.0.4.weight"][..., 0], state["ifa_head.0.4.bias"]
    found = []
    for image in photos.double().numpy():
        run = reference.forward(state, image, 2, 16, steps, cache)
        cla = [run.rows[block - 1] for block in (*BLOCKS, DEPTH)]
        found.append(head @ reference.aggregated(state, cla) + bias)
    return np.stack(found)


def _logits(chosen: Assembly, photos: Tensor) -> Any:
    encoder = chosen.encoder()
    head = class_head(chosen.source.state or {}, encoder.width)
    assert head is not None
    with torch.no_grad():
        return head(encoder(photos).embedding).numpy()


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("clr", [1, 2])
def test_logits_are_those_of_the_reference(tmp_path: Path, kind: str, clr: int) -> None:
    theirs = _state(kind, clr=clr)
    path = authors.save(tmp_path / "best.pth", theirs, model=f"{kind}_test_vit", num_clr=clr)
    chosen, said = _assembly(path)
    photos = images(2, authors.SIZE, torch.float32)
    want = _expected(theirs, kind, photos, Cache(clr=clr))
    assert np.abs(_logits(chosen, photos) - want).max() < 1e-4 * max(1, np.abs(want).max())
    assert (
        f"reduction={'dynamicvit' if kind == 'dyvit' else kind}" in said[0]
        and "keep_rate=0.5" in said[0]
    )
    assert said[0].startswith("best.pth was trained with test_vit, ")


SWITCHES = [
    {"clc_include_gap": False},
    {"clc_pool_cls": True},
    {"clc_pool_clr": True},
    {"clc_recover_at_last": False},
]
NAMES = {
    "clc_include_gap": "gap",
    "clc_pool_cls": "pool_cls",
    "clc_pool_clr": "pool_clr",
    "clc_recover_at_last": "at_last",
}


@pytest.mark.parametrize("given", SWITCHES)
def test_every_switch_of_the_cache_is_heeded(tmp_path: Path, given: dict[str, bool]) -> None:
    theirs = _state("evit")
    path = authors.save(tmp_path / "best.pth", theirs, **given)
    photos = images(2, authors.SIZE, torch.float32)
    cache = Cache(**{NAMES[name]: value for name, value in given.items()})
    want = _expected(theirs, "evit", photos, cache)
    assert np.abs(_logits(_assembly(path)[0], photos) - want).max() < 1e-4
    other = _expected(theirs, "evit", photos, Cache())
    assert np.abs(other - want).max() > 1e-3  # the switch matters


def _options(chosen: Assembly) -> CLCAOptions:
    assert isinstance(chosen.options, CLCAOptions)
    return chosen.options


def test_all_that_a_file_says(tmp_path: Path) -> None:
    state = _state("evit", clr=2, groups=3, stages=2)
    said = {"reduction_loc": [1, 3], "keep_rate": [0.75, 0.5], "custom_mean_std": True}
    path = authors.save(tmp_path / "c.pth", state, **said, num_clr=2)
    chosen, _ = _assembly(path)
    options = _options(chosen)
    assert options == CLCAOptions((0.75, 0.5), (2, 4), "evit", kernels=3, clr=2)
    assert chosen.source.backbone == "test_vit" and chosen.source.size == authors.SIZE
    assert chosen.norm.mean == chosen.preprocess.std == (0.5, 0.5, 0.5)
    assert (chosen.preprocess.resize, chosen.preprocess.square) == (73, True)
    assert chosen.preprocess.interpolation == "bicubic"


def test_a_missing_field_has_the_default_of_the_script(tmp_path: Path) -> None:
    left = ("clc_include_gap", "clc_pool_cls", "clc_pool_clr", "clc_recover_at_last")
    missing = dict.fromkeys((*left, "custom_mean_std", "test_resize_size", "input_size"))
    chosen, _ = _assembly(authors.save(tmp_path / "c.pth", _state("evit"), **missing))
    options = _options(chosen)
    assert options.gap and options.at_last and not options.pool_cls and not options.pool_clr
    assert chosen.norm.mean == (0.485, 0.456, 0.406)
    assert (chosen.source.size, chosen.preprocess.resize) == (64, round(64 / 0.875))
    none = dict.fromkeys(("clc", "num_clr", "ifa_head"))
    options = _options(_assembly(authors.save(tmp_path / "c.pth", authors.backbone(5), **none))[0])
    assert not options.cache and not options.cla and options.clr == 0


def _tell(state: Mapping[str, Tensor], own: str | None = None, **given: Any) -> Told | None:
    names = ("keep_rate", "blocks", "reduction", "cla", "cache", "clr", "kernels", "equal_weight")
    return clca_files.teller(own, names)(given, state, "c.pth")


POSITIONS = {"pos_embed": torch.zeros(1, 197, 4)}


@pytest.mark.parametrize(
    ("model", "reduction", "backbone"),
    [
        ("evit_deit_tiny_patch16_224.fb_in1k", "evit", "deit_tiny_patch16_224.fb_in1k"),
        ("dyvit_vit_base_patch16_224.in1k_mocov3", "dynamicvit", "vit_base_patch16_224"),
        ("topk_vit_base_patch16_224_miil.in21k", "topk", "vit_base_patch16_224_miil.in21k"),
        ("ats_deit3_base_patch16_224", "ats", "deit3_base_patch16_224"),
        ("sit_vit_small_patch14_reg4_dinov2.lvd142m", "sit",
         "vit_small_patch14_reg4_dinov2.lvd142m"),
        ("vit_base_patch16_clip_224.laion2b", "none", "vit_base_patch16_clip_224.laion2b"),
        ("dpcknn_somebodys_own", "dpcknn", None),
    ],
)  # fmt: skip
def test_names_of_models(model: str, reduction: str, backbone: str | None) -> None:
    told = _tell(POSITIONS, model=model, clc=True, reduction_loc=[3], keep_rate=[0.5])
    assert told is not None
    assert (told.options["reduction"], told.backbone) == (reduction, backbone)
    if reduction == "none":  # their plain ViT heeds no argument
        assert told.options["blocks"] == (4, 7, 10) and told.options["keep_rate"] == (1.0,)
    else:
        assert told.options["blocks"] == (4,) and told.options["keep_rate"] == (0.5,)
    assert ("keep_rate" in told.fixed) == (reduction == "sit")


@pytest.mark.parametrize(
    ("model", "given", "rates"),
    [
        ("evit_x", [0.7, 0.5, 0.3], (0.7, 0.5, 0.3)),
        ("evit_x", 0.7, (0.7,)),
        ("dyvit_x", [0.7, 0.5, 0.3], (0.7,)),
        ("evit_x", [1.0], (1.0,)),
    ],
)
def test_keep_rates(model: str, given: Any, rates: tuple[float, ...]) -> None:
    told = _tell(POSITIONS, model=model, clc=True, reduction_loc=[3, 6, 9], keep_rate=given)
    assert told is not None and told.options["keep_rate"] == rates


@pytest.mark.parametrize("kind", ["tome", "dpcknn", "sit", "patchmerger", "ats"])
def test_counts_of_tokens_become_rates_that_give_them(kind: str) -> None:
    more = kind == "ats"
    for count in range(1, 196):
        given = {"reduction_loc": [3, 6], "keep_rate": [count + more, 1 + more]}
        told = _tell(POSITIONS, model=f"{kind}_x", clc=True, **given)
        assert told is not None
        assert [int(196 * rate) for rate in told.options["keep_rate"]] == [count, 1]


def test_a_bare_state_dict_tells_what_it_can(tmp_path: Path) -> None:
    torch.save(_state("sit"), tmp_path / "bare.pth")
    chosen, said = _assembly(
        tmp_path / "bare.pth", backbone="test_vit", options={"blocks": "2,3,4"}
    )
    options = _options(chosen)
    assert (options.reduction, options.clr, options.kernels, options.cla) == ("sit", 1, 2, True)
    assert said[-1] == (
        "bare.pth does not tell how it was trained in all: cache=true, keep_rate=0.5 is taken; "
        "pass --set NAME=VALUE where it was otherwise"
    )
    theirs, photos = _state("sit"), images(1, authors.SIZE, torch.float32)
    want = _expected(theirs, "sit", photos, Cache())
    assert np.abs(_logits(chosen, photos) - want).max() < 1e-4 * max(1, np.abs(want).max())


def test_files_of_others_tell_nothing() -> None:
    assert _tell(authors.backbone(5)) is None
    timm = {"model": "vit_small_patch16_224", "img_size": 224, "lr": 1e-3}
    assert _tell(authors.backbone(5), **timm) is None


EVIT = {"model": "evit_test_vit", "reduction_loc": [1, 2, 4], "keep_rate": [0.5]}


@pytest.mark.parametrize(
    ("state", "own", "given", "words"),
    [
        (POSITIONS, "sit", EVIT, "c.pth was trained with evit, not sit; pass --method evit"),
        (POSITIONS, "sit", {**EVIT, "clc": True}, "with evit, not sit; pass --method clca"),
        (POSITIONS, "evit", {**EVIT, "clc": True}, r"around evit \(cache=true\); pass --method cl"),
        (
            {"clr": torch.zeros(1, 2, 4), "aggregate.weigh.weight": torch.zeros(1, 4)},
            "evit",
            EVIT,
            r"CLCA around evit \(cla=true, clr=2\); pass --method clca",
        ),
        (
            {"stages.0.cluster.queries": torch.zeros(3, 4)},
            None,
            EVIT,
            "says that it is evit_test_vit, but it holds the weights of patchmerger",
        ),
        (POSITIONS, None, {**EVIT, "clc": "yes"}, "its argument clc is yes, expected true or fal"),
        (POSITIONS, None, {**EVIT, "reduction_loc": "3 6"}, "reduction_loc is 3 6, expected numb"),
        (POSITIONS, None, {**EVIT, "keep_rate": ["a"]}, r"keep_rate is \['a'\], expected numbers"),
        (POSITIONS, None, {**EVIT, "keep_rate": [0.0]}, r"its keep_rate is \[0.0\], expected rat"),
        (POSITIONS, None, {**EVIT, "input_size": 2.5}, "input_size is 2.5, expected a whole numb"),
        (
            {"stages.0.cluster.queries": torch.zeros(3, 4)},
            None,
            {**EVIT, "model": "patchmerger_x", "keep_rate": [1.0]},
            "its keep rate of 1.0 reduces nothing here, while patchmerger still mixes",
        ),
    ],
)
def test_what_does_not_go_together(
    state: dict[str, Tensor], own: str | None, given: dict[str, Any], words: str
) -> None:
    with refused(CheckpointError, words):
        _tell(state, own, **given)


def test_a_reduction_on_a_plain_model_of_theirs(tmp_path: Path) -> None:
    none = {"clc": False, "num_clr": 0, "ifa_head": False}
    given = {"model": "test_vit", "keep_rate": [], "reduction_loc": []}
    path = authors.save(tmp_path / "c.pth", authors.backbone(5), **given, **none)
    chosen, _ = _assembly(path, "evit", options={"keep_rate": "0.25"})
    assert chosen.options.to_json()["keep_rate"] == (0.25,)
    assert chosen.source.backbone == "test_vit"


@pytest.mark.parametrize("place", ["model_ema", "ema", "state_dict_ema"])
def test_averaged_weights_come_first(tmp_path: Path, place: str) -> None:
    theirs = _state("evit")
    averaged = {name: value * 0.5 for name, value in theirs.items()}
    path = authors.save(tmp_path / "checkpoint.pth", theirs, {place: averaged})
    chosen, said = _assembly(path)
    state = chosen.source.state or {}
    assert torch.equal(state["blocks.0.attn.qkv.weight"], averaged["blocks.0.attn.qkv.weight"])
    assert f"EMA weights of {place}" in said[0]
    raw, _ = _assembly(path, weights_key="model")
    state = raw.source.state or {}
    assert torch.equal(state["blocks.0.attn.qkv.weight"], theirs["blocks.0.attn.qkv.weight"])
