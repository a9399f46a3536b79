"""What CLCA's files say of their network, from the arguments that its script keeps (arkel23/CLCA).

A field that a file lacks has the default of the script's command line; what a bare state dict
cannot tell stays open. Weights go before words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import timm
from torch import Tensor

from fgdeploy.core.errors import CheckpointError
from fgdeploy.core.text import shown
from fgdeploy.models.methods import clca_keys
from fgdeploy.models.reduce import rates
from fgdeploy.models.weights.told import Channels, Claim, Teller, Told

# The start of the model's name says which reduction it has; without one it has none.
_REDUCTIONS = {
    "evit": "evit",
    "topk": "topk",
    "tome": "tome",
    "dyvit": "dynamicvit",
    "ats": "ats",
    "dpcknn": "dpcknn",
    "sit": "sit",
    "patchmerger": "patchmerger",
}
NONE = "none"
# Names of a stage's weights that only one reduction has; the first that fits counts.
_WEIGHTS = {
    "predictor.": "dynamicvit",
    "cluster.queries": "patchmerger",
    "cluster.weight.": "sit",
    "cluster.score.": "dpcknn",
}
_COUNTED_BY_WEIGHTS = ("sit", "patchmerger")  # a stage makes as many tokens as it has weights for
# One of these is in the arguments of every version of the script, and of no other script.
_OWN_FIELDS = {"reduction_loc", "ifa_head", "clc", "num_clr"}
# Whatever the backbone was trained with (`custom_mean_std` is halves).
_IMAGENET: tuple[Channels, Channels] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_HALVES: tuple[Channels, Channels] = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def teller(own: str | None, known: Sequence[str]) -> Teller:
    """Return what tells an assembly of a file.

    own: the reduction of a method that is one by itself, None for CLCA. known: names of the
    method's options.
    """

    def tell(arguments: Mapping[str, Any], state: Mapping[str, Tensor], name: str) -> Told | None:
        words = _words(arguments, name)
        parts = _parts(state)
        reduction = _reduction(words, state)
        if not words.given and not parts["cla"] and not parts["clr"] and reduction is None:
            return None
        told = _told(words, state, parts, reduction)
        if own is not None:
            _check_alone(told, own, name)
        options = {name: value for name, value in told.options.items() if name in known}
        if own is not None and reduction == NONE:  # a plain ViT: how it is reduced is the user's
            options = {}
        fixed, left = told.fixed & set(known), tuple(n for n in told.open if n in known)
        colours, size = told.colours, told.size
        return Told(options, fixed, left, told.backbone, size, told.resize, colours)

    return tell


def claim(own: str | None) -> Claim:
    """Return what says whether a file is of the reduction `own` alone, or of CLCA where None."""

    def claims(arguments: Mapping[str, Any], state: Mapping[str, Tensor]) -> bool:
        words, renamed = _words(arguments, ""), clca_keys.rename(state)
        parts = _parts(renamed)
        more = parts["cla"] or parts["clr"] > 0 or words.given.get("clc") is True
        said = _REDUCTIONS.get(words.split_model[0]) or _held(renamed)
        return bool(more) if own is None else not more and said == own

    return claims


def _words(arguments: Mapping[str, Any], name: str) -> _Words:
    return _Words(arguments if _OWN_FIELDS & arguments.keys() else {}, name)


@dataclass(frozen=True)
class _Words:
    """The arguments of a file, read by the type that each must have. Raises CheckpointError."""

    given: Mapping[str, Any]
    name: str

    def flag(self, field: str, default: bool) -> bool:
        """Return a boolean."""
        value = self.given.get(field, default)
        return value if isinstance(value, bool) else self._odd(field, "true or false")

    def whole(self, field: str, default: int | None) -> Any:
        """Return a whole number, or the default."""
        value = self.given.get(field)
        if value is None:
            return default
        return value if type(value) is int else self._odd(field, "a whole number")

    def numbers(self, field: str) -> list[float]:
        """Return a list of numbers above or at zero; one number is a list of one."""
        value = self.given.get(field)
        values = value if isinstance(value, list) else [] if value is None else [value]
        if not all(type(each) in (int, float) and 0 <= each < 1e6 for each in values):
            self._odd(field, "numbers")
        return values

    def _odd(self, field: str, expected: str) -> Any:
        raise CheckpointError(
            f"{self.name}: its argument {field} is {shown(self.given[field])}, expected "
            f"{expected}; save its state dict alone and give its options with --set"
        )

    @property
    def model(self) -> str:
        """Return the model's name, empty where it is not told."""
        value = self.given.get("model", "")
        return value if isinstance(value, str) else ""

    @property
    def split_model(self) -> tuple[str, str]:
        """Return the reduction's prefix, empty for none, and timm's name behind it."""
        first, _, rest = self.model.partition("_")
        return (first, rest) if first in _REDUCTIONS else ("", self.model)


def _parts(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the options that the weights decide."""
    conv = state.get("aggregate.conv.weight")
    kernels = 0 if conv is None or conv.ndim != 3 else conv.shape[0] // _width(state)
    found: dict[str, Any] = {"clr": 0, "cla": any(n.startswith("aggregate.") for n in state)}
    if "clr" in state and state["clr"].ndim == 3:
        found["clr"] = int(state["clr"].shape[1])
    return {**found, "kernels": int(kernels)} if found["cla"] else found


def _width(state: Mapping[str, Tensor]) -> int:
    return max(int(state["cls_token"].shape[-1]), 1) if "cls_token" in state else 1


def _reduction(words: _Words, state: Mapping[str, Tensor]) -> str | None:
    """Return the reduction that words and weights tell of, None where neither does."""
    held = _held(state)
    if not words.model:
        return held
    prefix = words.split_model[0]
    said = _REDUCTIONS.get(prefix, NONE)
    if held not in (None, said):
        raise CheckpointError(
            f"{words.name} says that it is {words.model}, but it holds the weights of {held}; it "
            "was put together from two, use one as it was saved"
        )
    return said


def _held(state: Mapping[str, Tensor]) -> str | None:
    """Return the reduction that the weights are of, None where they do not tell."""
    staged = [key.split(".", 2)[-1] for key in state if key.startswith("stages.")]
    fits = (name for start, name in _WEIGHTS.items() if any(k.startswith(start) for k in staged))
    return next(fits, None)


def _told(
    words: _Words, state: Mapping[str, Tensor], parts: Mapping[str, Any], reduction: str | None
) -> Told:
    options = dict(parts)
    left: list[str] = []
    size = words.whole("test_input_size", None) or words.whole("input_size", None)
    if reduction is not None:
        options["reduction"] = reduction
    else:
        left.append("reduction")
    if words.given:
        options |= _switches(words)
    elif parts["cla"] or parts["clr"]:
        left.append("cache")
    left += _stages(words, state, options, reduction)
    fixed = set(parts) | ({"reduction"} if reduction not in (None, NONE) else set())
    if reduction in _COUNTED_BY_WEIGHTS:
        fixed.add("keep_rate")
    resize = words.whole("test_resize_size", None) or words.whole("resize_size", None)
    return Told(
        options=options,
        fixed=frozenset(fixed),
        open=tuple(left),
        backbone=_backbone(words.split_model[1]),
        size=size,
        resize=resize or (int(size / 0.875) if size else None),
        colours=_HALVES if words.flag("custom_mean_std", False) else _IMAGENET,
    )


def _switches(words: _Words) -> dict[str, Any]:
    """Return the options of cache and clustering, by the script's defaults."""
    return {
        "cache": words.flag("clc", False),
        "gap": words.flag("clc_include_gap", True),
        "pool_cls": words.flag("clc_pool_cls", False),
        "pool_clr": words.flag("clc_pool_clr", False),
        "at_last": words.flag("clc_recover_at_last", True),
        "neighbours": words.whole("k_neighbors", 5),
        "equal_weight": words.flag("equal_weight", False),
    }


def _stages(
    words: _Words, state: Mapping[str, Tensor], options: dict[str, Any], reduction: str | None
) -> list[str]:
    """Put blocks and rates into the options; return the names of those that are not told."""
    if words.given and reduction == NONE:
        # The plain ViT of the script heeds no argument: it counts these blocks in any case.
        options |= {"blocks": rates.PUBLISHED, "keep_rate": (1.0,)}
        return []
    left = []
    blocks, given = words.numbers("reduction_loc"), words.numbers("keep_rate")
    if blocks:
        options["blocks"] = tuple(int(block) + 1 for block in blocks)  # theirs are from 0
    else:
        left.append("blocks")
    if given:
        options["keep_rate"] = _rates(words, given, state, reduction, options["cache"])
    else:
        left.append("keep_rate")
    return left


def _rates(
    words: _Words,
    given: Sequence[float],
    state: Mapping[str, Tensor],
    reduction: str | None,
    cached: bool,
) -> tuple[float, ...]:
    """Return keep rates as ours are meant."""
    if reduction == "dynamicvit" and cached:
        given = given[:1]  # with the cache the script takes the first at every stage
    if len(given) > 1 and reduction not in ("evit", "topk", "dynamicvit"):
        # Several are counts of tokens; ATS counts CLS too.
        total, more = _patches(words, state), int(reduction == "ats")
        given = [_fraction(int(count) - more, total) for count in given]
    if any(rate >= 1 for rate in given) and any(key.startswith("stages.") for key in state):
        raise CheckpointError(
            f"{words.name}: its keep rate of {shown(given[0])} reduces nothing here, while "
            f"{reduction} still mixes or drops tokens in the script; it cannot be run as it was "
            "trained"
        )
    if not all(0 < rate <= 1 for rate in given):
        raise CheckpointError(
            f"{words.name}: its keep_rate is {shown(list(given))}, expected rates above 0 and up "
            "to 1; give it with --set keep_rate on its state dict alone"
        )
    return tuple(float(rate) for rate in given)


def _fraction(count: int, total: int) -> float:
    """Return the rate of which total tokens give count, cut off."""
    rate = max(count, 0.5) / total
    return rate if int(total * rate) == count else (count + 0.5) / total


def _patches(words: _Words, state: Mapping[str, Tensor]) -> int:
    position = state.get("pos_embed")
    rows = 0 if position is None or position.ndim != 3 else int(position.shape[1])
    side = int(max(rows, 0) ** 0.5)  # the prefix is smaller than another ring of patches
    if side < 1:
        raise CheckpointError(f"{words.name} has no pos_embed to count its patches by")
    return side * side


def _backbone(name: str) -> str | None:
    """Return timm's name of a model, with its tag where timm knows it; None for one unknown."""
    if not name or not timm.is_model(name):
        return None
    try:
        timm.models.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError:
        return name.partition(".")[0]
    return name


def _check_alone(told: Told, own: str, name: str) -> None:
    """Raise CheckpointError unless a file's network is the reduction `own` and no more."""
    options = told.options
    reduction = options.get("reduction", own)
    more = [word for word in ("cla", "cache", "clr") if options.get(word)]
    if reduction not in (own, NONE):
        method = "clca" if more else reduction
        raise CheckpointError(
            f"{name} was trained with {reduction}, not {own}; pass --method {method}"
        )
    if more:
        said = ", ".join(f"{word}={str(options[word]).lower()}" for word in more)
        raise CheckpointError(
            f"{name} was trained with CLCA around {reduction} ({said}); pass --method clca"
        )
