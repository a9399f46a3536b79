"""What GLSim's files say of their network, from the arguments beside it (arkel23/GLSim).

docs/methods.md, sections 2.4 and 10. `config.pretrained` is never followed. What the weights show
goes before words; what a bare state dict cannot tell stays open.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import timm
from torch import Tensor

from fgdeploy.core.errors import CheckpointError
from fgdeploy.core.text import shown
from fgdeploy.models.methods import clca_files, glsim_keys
from fgdeploy.models.methods.glsim_options import ONCE, SELECT, TWICE
from fgdeploy.models.reduce.reductions import REDUCTIONS
from fgdeploy.models.weights.told import Channels, Told

# One of these is in the arguments of every version of the script, and of no other script.
_OWN_FIELDS = {"dynamic_top", "sim_metric", "dynamic_anchor", "anchor_class_token"}
_OWN_TENSORS = ("cls_token_crops", "aggregator.", "aggregator_norm.", "anchor_class_token")
_OWN_NAME = re.compile(r"^vit_([tsblh])(\d+)$")
_ADAPTER = re.compile(r"(?:.*\.)?blocks\.\d+\.adapter_(?:attn|pwffn)\.")
# Their ViTs by letter: timm's name, width, heads, depth.
_SIZES = {
    "t": ("tiny", 192, 3, 12),
    "s": ("small", 384, 6, 12),
    "b": ("base", 768, 12, 12),
    "l": ("large", 1024, 16, 24),
    "h": ("huge", 1280, 16, 32),
}
_EPS = 1e-12
_MOST = 8192  # pixels of a side, and all else that they count
_TOP = 8  # the script's default at every size
_LAST_EPS = 1e-5  # of path B's aggregator
_POOLS = {"pool": "mean", "cls_pool": "both", "avg_cls": "mean"}
_IMAGENET: tuple[Channels, Channels] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_HALVES: tuple[Channels, Channels] = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
# `custom_mean_std` by data set; halves for any other.
_COLOURS: dict[str, tuple[Channels, Channels]] = {
    "cub": (
        (0.3659524, 0.42010019, 0.41562049),
        (0.07625843, 0.04599726, 0.06182727),
    ),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5070, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "svhn": ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
    "tinyin": ((0.4802, 0.4481, 0.3975), (0.2770, 0.2691, 0.2821)),
    "imagenet": _IMAGENET,
}
# Options that the weights hold to.
_BY_WEIGHTS = frozenset({"shared_cls", "norm", "aggregator", "layers", "aggregator_norm"})
_BY_WEIGHTS |= {"adapter", "width", "hidden", "depth", "mlp_ratio", "patch"}


def tell(arguments: Mapping[str, Any], state: Mapping[str, Tensor], name: str) -> Told | None:
    """Return what a file says of itself, None for a plain backbone. Raises CheckpointError."""
    words = _Words(arguments if _OWN_FIELDS & arguments.keys() else {}, name)
    _check_author(words, arguments, state)
    own = any(key.startswith(_OWN_TENSORS) or _ADAPTER.match(key) for key in state)
    if not words.given and (not own or "head_hash.weight" in state):
        return None  # a plain backbone, or weights that were trained here
    crops, model = "cls_token_crops" in state, words.text("model_name", "")
    theirs = bool(_OWN_NAME.match(model)) if model else not crops
    return (_tell_own if theirs else _tell_timm)(words, state)


def claims(arguments: Mapping[str, Any], state: Mapping[str, Tensor]) -> bool:
    """Return whether a file is surely of GLSim, by its arguments or names of tensors."""
    names = [key.rpartition("model.")[2] for key in state]
    marked = glsim_keys.OWN_VIT in names or any(
        key.startswith(_OWN_TENSORS) or _ADAPTER.match(key) for key in names
    )
    return bool(_OWN_FIELDS & arguments.keys()) or marked


@dataclass(frozen=True)
class _Words:
    """The arguments of a file, read by the type that each must have. Raises CheckpointError."""

    given: Mapping[str, Any]
    name: str

    def flag(self, field: str) -> bool:
        """Return a boolean, false where it is not told."""
        value = self.given.get(field)
        return (
            bool(value) if value is None or type(value) is bool else self._odd(field, "a boolean")
        )

    def whole(self, field: str) -> Any:
        """Return a whole number above zero, or None."""
        value = self.given.get(field)
        if value is None or (type(value) is int and 0 < value <= _MOST):
            return value
        return self._odd(field, f"a whole number above 0, up to {_MOST}")

    def real(self, field: str) -> Any:
        """Return a number in 0..1, or None."""
        value = self.given.get(field)
        if value is None or (type(value) in (int, float) and 0 <= value <= 1):
            return None if value is None else float(value)
        return self._odd(field, "a number from 0 to 1")

    def text(self, field: str, default: str) -> str:
        """Return a text, `default` where it is not told."""
        value = self.given.get(field)
        if value is None or isinstance(value, str):
            return default if value is None else value
        found: str = self._odd(field, "a text")
        return found

    def has(self, field: str, start: str, state: Mapping[str, Tensor]) -> None:
        """Raise CheckpointError for a part that the arguments say is there and that is not."""
        if self.given.get(field) is True and not any(key.startswith(start) for key in state):
            raise CheckpointError(
                f"{self.name} lacks {start.rstrip('.')}, though its arguments say {field}; its "
                "network is not whole: copy the file again, or save it whole"
            )

    def odd(self, said: str) -> CheckpointError:
        """Return the error for a network that is not made here."""
        return CheckpointError(
            f"{self.name} was trained with {said}, which is not supported; use a model without"
        )

    def _odd(self, field: str, expected: str) -> Any:
        raise CheckpointError(
            f"{self.name}: its argument {field} is {shown(self.given[field])}, expected "
            f"{expected}; save its state dict alone and give its options with --set"
        )


def _check_author(words: _Words, arguments: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError for a file of another method, or of another family of the script."""
    for own in (None, *REDUCTIONS):
        if not words.given and clca_files.claim(own)(arguments, state):
            method = own or "clca"
            raise CheckpointError(
                f"{words.name} was trained with {method}, not glsim; pass --method {method}"
            )
    if any(key.startswith("head_hash.") for key in state) and not any(
        key.startswith(_OWN_TENSORS) for key in state
    ):
        raise CheckpointError(
            f"{words.name} has a hash head and no aggregator, so it was trained with another "
            "method than glsim; pass its --method"
        )
    model = words.text("model_name", "")
    if model and not _OWN_NAME.match(model) and not model.startswith("gls"):
        raise CheckpointError(
            f"{words.name} says that it is {shown(model)}, which is no ViT of GLSim; use another"
        )


def _shared(words: _Words, state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the options that both paths tell alike."""
    options: dict[str, Any] = {
        "inclusive_box": False,
        "norm": "norm.weight" in state,
        "adapter": _adapter(state),
        "depth": _depth(state, "blocks"),
        "top": words.whole("dynamic_top") or _TOP,
        "metric": words.text("sim_metric", "cos"),
    }
    if "aggregator.norm_in.weight" in state:
        options["aggregator"] = "dwsc" if "aggregator.point.weight" in state else "conv"
    elif layers := _depth(state, "aggregator"):
        options |= {"aggregator": "transformer", "layers": layers}
        options["aggregator_norm"] = "aggregator_norm.weight" in state
    else:
        options["aggregator"] = "none"
    return options


def _tell_own(words: _Words, state: Mapping[str, Tensor]) -> Told:
    """Return what a file of their own ViT tells (path A)."""
    given = words.given
    if words.flag("anchor_random"):
        raise words.odd("random crops (anchor_random)")
    if given.get("num_anchors") not in (None, 1):
        raise words.odd(f"{shown(given['num_anchors'])} anchors")
    classifier = words.text("classifier", "cls")
    if classifier not in ("cls", "avg_cls"):
        raise words.odd(f"the classifier {shown(classifier)}")
    letter, patch = _own_size(words.text("model_name", ""), state)
    timms, width, heads, depth = _SIZES[letter]
    options = _shared(words, state)
    words.has("encoder_norm", "norm.weight", state)
    words.has("aggregator", "aggregator.", state)
    if options["aggregator"] != "none":
        words.has("aggregator_norm", "aggregator_norm.weight", state)
    options |= {
        "look": TWICE if given.get("anchor_size") or not given else ONCE,
        "shared_cls": True,
        "pool": _POOLS.get(classifier, "cls"),
        "flip": words.flag("test_flip"),
        "norm_eps": _EPS if (eps := words.real("layer_norm_eps")) is None else eps,
    }
    aggregated = options["aggregator"] != "none"
    every = bool(given) and given.get("reducer") != "cls"
    options["tokens"] = "all" if every and (aggregated or options["pool"] != "cls") else "cls"
    held, inner = _sides(state)
    reduced = state.get("reducer.weight")
    aggregating = held if reduced is None else int(reduced.shape[0])
    if reduced is not None:
        options["width"] = aggregating
    if aggregated:
        options["aggregator_heads"] = max(1, aggregating // 64)
    usual_heads = heads if held == width else max(1, held // 64)
    told_heads = words.whole("num_attention_heads") or usual_heads
    exact = inner / held if int(held * (inner / held)) == inner else (inner + 0.5) / held
    usual = {"hidden": width, "heads": heads, "depth": depth, "mlp_ratio": 4.0, "patch": patch}
    sizes = {"hidden": held, "heads": told_heads, "depth": options.pop("depth")}
    sizes |= {"mlp_ratio": exact, "patch": _patch(state)}
    name = f"vit_{timms}_patch{patch}_224"
    if not timm.is_model(name):
        name, usual["patch"] = f"vit_{timms}_patch16_224", 16
    options |= {key: value for key, value in sizes.items() if value and value != usual[key]}
    size = words.whole("image_size")
    if size and size // max(size // sizes["patch"], 1) != sizes["patch"]:
        raise words.odd(f"images of {size} pixels and patches of {sizes['patch']}")
    unknown = () if given else ("top", "metric", "tokens", "pool", "heads")
    return _told(words, state, options, name, unknown)


def _tell_timm(words: _Words, state: Mapping[str, Tensor]) -> Told:
    """Return what a file of their timm ViT tells (path B)."""
    given = words.given
    options = {**_shared(words, state), "shared_cls": False}
    words.has("dynamic_anchor", "cls_token_crops", state)
    words.has("dynamic_anchor", "aggregator.", state)
    if options["aggregator"] == "transformer":
        options["last_eps"] = _LAST_EPS
    looks = "cls_token_crops" in state
    select = words.flag("select_top_k")
    options["look"] = (SELECT if select else TWICE) if looks else ONCE
    first = "select_top_k" not in given  # its first version heeds no classifier
    classifier = "cls" if first else words.text("classifier", "cls")
    convolved = options["aggregator"] in ("dwsc", "conv")
    if options["look"] != TWICE and not (convolved and classifier == "pool"):
        options["pool"] = _POOLS.get(classifier, "cls")
    if options["look"] == ONCE and options["pool"] != "cls":
        options["tokens"] = "all"
    unknown = () if given else ("top", "metric", "look")
    return _told(words, state, options, _known(_timms(words.text("model_name", ""))), unknown)


def _told(
    words: _Words,
    state: Mapping[str, Tensor],
    options: dict[str, Any],
    backbone: str | None,
    unknown: tuple[str, ...],
) -> Told:
    size = words.whole("image_size")
    if size and size % _patch(state):
        options["stride"] = _patch(state)  # what fills no patch is not seen
    resize = words.whole("test_resize_size") or words.whole("resize_size")
    square = None
    if words.flag("test_resize_directly"):
        resize = size
    elif words.flag("deit_recipe"):
        resize, square = (int(256 / 224 * size) if size else None), False
    if size and resize and resize < size:
        raise words.odd(f"photos of {resize} pixels in frames of {size}")
    return Told(
        options=options,
        fixed=_BY_WEIGHTS & options.keys(),
        open=unknown,
        backbone=backbone,
        size=size,
        resize=resize,
        colours=_colours(words),
        square=square,
    )


def _colours(words: _Words) -> tuple[Channels, Channels] | None:
    if not words.given:
        return None
    if not words.flag("custom_mean_std"):
        return _IMAGENET
    return _COLOURS.get(words.text("dataset_name", ""), _HALVES)


def _timms(model: str) -> str:
    return model.removeprefix("gls")


def _known(name: str) -> str | None:
    """Return timm's name of a model, with its tag where timm knows it."""
    if not name:
        return None
    try:
        timm.models.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError:
        return name.partition(".")[0]
    return name


def _own_size(model: str, state: Mapping[str, Tensor]) -> tuple[str, int]:
    """Return letter and patch side of one of their ViTs, by its name or by what is nearest."""
    if (found := _OWN_NAME.match(model)) is not None:
        return found[1], int(found[2])
    width = _sides(state)[0]
    return min(_SIZES, key=lambda letter: abs(_SIZES[letter][1] - width)), _patch(state)


def _adapter(state: Mapping[str, Tensor]) -> str:
    if any(_ADAPTER.match(key) for key in state):
        convolved = any(key.endswith(".adapter_conv.weight") for key in state)
        return "convpass" if convolved else "plain"
    return "none"


def _depth(state: Mapping[str, Tensor], first: str) -> int:
    found = (re.match(rf"{first}\.(\d+)\.norm1\.", key) for key in state)
    return 1 + max((int(one[1]) for one in found if one), default=-1)


def _sides(state: Mapping[str, Tensor]) -> tuple[int, int]:
    """Return the width of a token, and of an MLP within."""
    conv, inner = state.get("patch_embed.proj.weight"), state.get("blocks.0.mlp.fc1.weight")
    width = 768 if conv is None or conv.ndim != 4 else max(1, int(conv.shape[0]))
    return width, 4 * width if inner is None or inner.ndim != 2 else max(1, int(inner.shape[0]))


def _patch(state: Mapping[str, Tensor]) -> int:
    conv = state.get("patch_embed.proj.weight")
    return 16 if conv is None or conv.ndim != 4 else max(1, int(conv.shape[-1]))
