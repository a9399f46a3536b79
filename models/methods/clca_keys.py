"""From the names in CLCA's files to ours (arkel23/CLCA; docs/methods.md, section 5.5).

Theirs are timm's, with `ifa_head` (aggregation and class head in one), `clr` whose positions lie at
the end of `pos_embed`, and the weights of a reduction by stage.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

_HEAD = "ifa_head."
# The head's modules by their places in theirs: with a convolution, and the older one.
_CONVOLVED = {
    "ifa_head.0.0.": "aggregate.norm_in.",
    "ifa_head.0.1.": "aggregate.conv.",
    "ifa_head.0.2.": "aggregate.norm_out.",
    "ifa_head.0.4.": "head.",
}
_WEIGHTED = {
    "ifa_head.0.0.": "aggregate.weigh.",
    "ifa_head.0.3.": "aggregate.norm.",
    "ifa_head.0.4.": "head.",
}
# By stage: `score_predictor.0.in_conv…` is `stages.0.predictor.in_conv…`.
_STAGED = {"score_predictor": "predictor", "cluster_layers": "cluster"}


def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict under our names; one that has them already stays as it is."""
    found = dict(state)
    aggregated = any(name.startswith(_HEAD) for name in state)
    if aggregated:  # then the class head of the backbone is one that nobody trained
        found = {name: value for name, value in found.items() if name.split(".")[0] != "head"}
    heads = _CONVOLVED if "ifa_head.0.2.running_mean" in state else _WEIGHTED
    renamed = {_renamed(name, heads): value for name, value in found.items()}
    if aggregated and renamed.get("head.weight", _NONE).ndim == 3:
        renamed["head.weight"] = renamed["head.weight"].squeeze(-1)  # a convolution over one row
    return _with_positions(renamed)


_NONE = Tensor()


def _renamed(name: str, heads: Mapping[str, str]) -> str:
    for start, ours in heads.items():
        if name.startswith(start):
            return ours + name[len(start) :]
    first, _, rest = name.partition(".")
    if first in _STAGED and "." in rest:
        stage, _, inner = rest.partition(".")
        return f"stages.{stage}.{_STAGED[first]}.{inner}"
    return name


def _with_positions(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give CLR its positions, the last rows of `pos_embed`, where they lie there.

    They do where one row for CLS and a square of patches is left without them; backbones whose
    prefix has no positions have none for CLR either.
    """
    clr, position = state.get("clr"), state.get("pos_embed")
    if clr is None or position is None or clr.ndim != 3 or position.ndim != 3:
        return state
    rows = position.shape[1] - clr.shape[1]
    whole = "head_hash.weight" in state  # ours: CLR has its positions already
    if whole or not _is_square(rows - 1) or clr.shape[2] != position.shape[2]:
        return state
    return {**state, "pos_embed": position[:, :rows], "clr": clr + position[:, rows:]}


def _is_square(number: int) -> bool:
    return number > 0 and round(number**0.5) ** 2 == number
