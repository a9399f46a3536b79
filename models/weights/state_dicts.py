"""Which network in a checkpoint is meant: averaged weights (EMA) before raw ones, as timm has it,
prefixes of wrappers taken off, and never a guess between two."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fgdeploy.core.errors import CheckpointError
from fgdeploy.core.progress import Notify, silent
from fgdeploy.models.weights import vit_pytorch_keys

StateDict = dict[str, Tensor]
Rename = Callable[[Mapping[str, Tensor]], StateDict]

# First parts of the names of class and hash heads; anything else belongs to the backbone.
HEADS = ("head", "head_hash", "head_dist")
# Every ViT of timm's has it, so what lacks it under a prefix is no whole network.
_ANCHOR = "patch_embed.proj.weight"
# What training scripts put around a network, as an attribute or a wrapper.
_AROUND = (
    *("module", "_orig_mod", "model", "backbone", "encoder", "student", "teacher"),
    *("net", "network", "vit", "state_dict"),
)
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")  # model_ema, modelEMA and EMAModel have "ema"
_AVERAGED = {"ema", "swa", "averaged", "average"}
# timm's order (`load_state_dict`), for files that hold several.
_ORDER = ("state_dict_ema", "model_ema", "state_dict", "model")
# Where scripts put a state dict that is no ViT's, outermost first.
_WRAPPERS = (*_ORDER, "ema", "model_state_dict", "net", "student")
_TOP = "."
_SHOWN = 6  # names in a message


@dataclass(frozen=True)
class _Found:
    """A whole network in a checkpoint: where, its tensors, and names beside it that are of none."""

    place: str
    prefix: str
    tensors: StateDict
    beside: tuple[str, ...]
    anchor: int  # where in memory its patch embedding lies
    memory: frozenset[int]  # where all its tensors lie

    @property
    def averaged(self) -> bool:
        """Return whether its place says that it holds averaged weights."""
        return _says_averaged(self.place)


def _says_averaged(place: str) -> bool:
    return not _AVERAGED.isdisjoint(_words_in(place))


def _words_in(place: str) -> set[str]:
    return {word.lower() for word in _WORD.findall(place)}


def pick(
    content: Any,
    name: str,
    rename: Rename = dict,
    key: str | None = None,
    notify: Notify = silent,
) -> StateDict:
    """Return the tensors by name of the network that is meant in what a file `name` holds.

    rename: a method's key map; what it gives tells whether a network is whole. key: where to look,
    a name or names with dots, `.` for the tensors at the top. notify: told what was chosen where
    there was a choice, and which prefix was taken off. Raises CheckpointError where two networks
    could be meant, nothing lies under `key`, or there are no tensors.
    """
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{name}: expected a state dict, got {type(content).__name__}")
    inside = content if key is None else _under(content, key)
    if inside is None:
        raise CheckpointError(
            f"--weights-key {key}: nothing of that name in {name}; it holds tensors under "
            f"{_listed(_places(content)) or 'no name'}"
        )
    _check_dense(inside, name)
    found = _distinct(one for at, held in _dicts(inside) for one in _networks(at, held, rename))
    if not found:
        return _innermost(inside, name)
    chosen = found[0] if len(found) == 1 else _chosen(found)
    if chosen is None:
        places = _listed([_join(key, one.place) for one in found])
        raise CheckpointError(
            f"{name} holds {len(found)} whole networks ({places}); choose one with --weights-key"
        )
    words = _words(chosen, [_join(key, one.place) for one in found if one is not chosen])
    unread = [] if key is not None or chosen.averaged else _unread(content)
    if unread:
        words.append(
            f"not used, as it is no whole network by name: {_listed(unread)}; to use averaged "
            "weights, save their model's state_dict()"
        )
    if words:
        notify(f"{name}: {'; '.join(words)}")
    return chosen.tensors


def _check_dense(inside: Mapping[Any, Any], name: str) -> None:
    """Raise CheckpointError for tensors that are no arrays of real numbers."""
    for _, held in _dicts(inside):
        for key, tensor in held.items():
            if tensor.layout != torch.strided or tensor.is_complex() or tensor.is_quantized:
                kind = f"{tensor.dtype}, {tensor.layout}".replace("torch.", "")
                raise CheckpointError(
                    f"{name}: {key} is {kind}; expected dense real numbers, so save it as such"
                )


def _under(content: Mapping[Any, Any], key: str) -> Mapping[Any, Any] | None:
    """Return what lies under a key, itself perhaps with dots, or in what lies under its start."""
    if key == _TOP:
        return {k: v for k, v in content.items() if isinstance(v, Tensor) and not _chain(str(k))}
    if isinstance(content.get(key), Mapping):
        return dict(content[key])
    for name, value in content.items():
        if isinstance(name, str) and key.startswith(f"{name}.") and isinstance(value, Mapping):
            found = _under(value, key[len(name) + 1 :])
            if found is not None:
                return found
    start = f"{key}."
    named = {k: v for k, v in content.items() if isinstance(k, str) and k.startswith(start)}
    return {k[len(start) :]: v for k, v in named.items()} or None


def _dicts(content: Mapping[Any, Any], place: str = "") -> Iterator[tuple[str, StateDict]]:
    """Yield the place and the tensors of each mapping that holds some, outermost first."""
    named = {k: v for k, v in content.items() if isinstance(k, str)}
    if tensors := {k: v for k, v in named.items() if isinstance(v, Tensor)}:
        yield place, tensors
    for name, value in named.items():
        if isinstance(value, Mapping) and place.count(".") < _SHOWN:
            yield from _dicts(value, f"{place}.{name}" if place else name)


def _networks(place: str, held: StateDict, rename: Rename) -> Iterator[_Found]:
    """Yield the whole networks among tensors of one mapping: at its top, and under prefixes."""
    chains = {chain[:end] for chain in map(_chain, held) for end in _ends(chain)}
    # Whatever a script called what it put around, the patch embedding tells where it ends.
    for anchor in (_ANCHOR, vit_pytorch_keys.ANCHOR):
        chains |= {name[: -len(anchor)] for name in held if name.endswith(f".{anchor}")}
    for prefix in sorted(chains, key=lambda chain: (len(chain), chain)):
        inside = {k[len(prefix) :]: v for k, v in held.items() if k.startswith(prefix)}
        renamed = rename(inside)
        if _ANCHOR not in renamed:
            continue
        beside = []
        for name, tensor in held.items():
            around = _chain(name)
            rest = name[len(around) :]
            if name.startswith(prefix):
                continue
            if prefix.startswith(around) and rest.split(".")[0] in HEADS and rest not in inside:
                inside[rest] = tensor
            elif tensor.ndim:  # not counters such as an epoch
                beside.append(name)
        where = ".".join(part for part in (place, prefix.rstrip(".")) if part)
        memory = frozenset(tensor.data_ptr() for tensor in inside.values())
        start = renamed[_ANCHOR].data_ptr()
        yield _Found(where or _TOP, prefix, inside, tuple(beside), start, memory)


def _chain(name: str) -> str:
    """Return the start of a tensor's name that wrappers gave it, with its last dot."""
    parts = name.split(".")
    count = 0
    while count < len(parts) - 1 and (parts[count] in _AROUND or _says_averaged(parts[count])):
        count += 1
    return "".join(f"{part}." for part in parts[:count])


def _ends(chain: str) -> Iterator[int]:
    yield 0
    yield from (place + 1 for place, letter in enumerate(chain) if letter == ".")


def _distinct(found: Iterable[_Found]) -> list[_Found]:
    """Leave out networks that are the same tensors under another name.

    Those that share some (a patch embedding that was not trained) are two.
    """
    kept: list[_Found] = []
    for one in found:
        same = (each for each in kept if each.anchor == one.anchor)
        if not any(one.memory <= each.memory or each.memory <= one.memory for each in same):
            kept.append(one)
    return kept


def _chosen(found: Sequence[_Found]) -> _Found | None:
    """Return averaged weights before raw ones, then timm's order; None where nothing decides."""
    group = [one for one in found if one.averaged] or list(found)
    for name in ("", *_ORDER):
        under = [one for one in group if name in ("", one.place.split(".")[0])]
        if len(under) == 1:
            return under[0]
    return None


def _words(chosen: _Found, others: Sequence[str]) -> list[str]:
    words = []
    if chosen.averaged or others:
        averaged = "EMA weights" if "ema" in _words_in(chosen.place) else "averaged weights"
        kind = averaged if chosen.averaged else "weights"
        words.append(f"{kind} of {chosen.place}")
    if others:
        words.append(f"also there: {_listed(others)} (--weights-key chooses)")
    if chosen.prefix:
        words.append(f"prefix {chosen.prefix} taken off")
    alone = [name for name in chosen.beside if not any(map(name.startswith, others))]
    if alone:
        words.append(f"left out: {_listed(alone)}")
    return words


def _unread(content: Mapping[Any, Any], place: str = "") -> list[str]:
    """Return the places that say that they hold averaged weights, where none were found."""
    found = []
    for name, value in content.items():
        where = f"{place}.{name}" if place else str(name)
        if _says_averaged(str(name)) and _has_tensors(value):
            found.append(where)
        elif isinstance(value, Mapping) and place.count(".") < _SHOWN:
            found += _unread(value, where)
    return found


def _has_tensors(value: Any, depth: int = 0) -> bool:
    """Tell whether there are tensors in a value, counters such as an epoch aside."""
    if isinstance(value, Tensor):
        return value.ndim > 0
    inside = value.values() if isinstance(value, Mapping) else value
    if not isinstance(value, (Mapping, list, tuple)) or depth > _SHOWN:
        return False
    return any(_has_tensors(each, depth + 1) for each in inside)


def _innermost(content: Mapping[Any, Any], name: str) -> StateDict:
    """Return the tensors of a checkpoint in which no ViT is told, wrappers taken off."""
    while True:
        held = (content.get(key) for key in _WRAPPERS)
        inner = next((entry for entry in held if isinstance(entry, Mapping) and entry), None)
        if inner is None:
            break
        content = inner
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise CheckpointError(f"{name} holds no tensors by name; save model.state_dict()")
    for prefix in ("module.", "_orig_mod.", "module."):
        inside = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
        others = [v for k, v in tensors.items() if not k.startswith(prefix)]
        if inside and not any(value.ndim for value in others):
            tensors = inside
    return tensors


def _places(content: Mapping[Any, Any]) -> list[str]:
    """Return the names that lead to tensors, those of prefixes too."""
    found: dict[str, None] = {}
    for place, held in _dicts(content):
        for chain in map(_chain, held):
            found[_join(place or None, chain.rstrip(".") or _TOP)] = None
    return list(found)


def _join(key: str | None, place: str) -> str:
    if key is None:
        return place
    return key if place == _TOP else f"{key}.{place}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
