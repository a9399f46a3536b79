"""Exact rewritings of a published forward pass: each declared where it is done, each switchable.

A module that can compute the same in a cheaper way lists its `Simplification`s. All of them act
from the start; `simplified` makes a copy of a network, on the same weights, with those that are
named and no others.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar

from torch import nn


@dataclass(frozen=True)
class Simplification:
    """One exact rewriting: its name (as in `--without`), why it is exact, and what it saves."""

    name: str
    reason: str
    saves: str


class Simplifiable(nn.Module):
    """A module with exact simplifications. `acts` tells in `forward` which of them are on."""

    simplifications: ClassVar[tuple[Simplification, ...]] = ()

    def __init__(self) -> None:
        super().__init__()
        self.active = frozenset(one.name for one in self.simplifications)

    def acts(self, simplification: Simplification) -> bool:
        """Return whether this simplification is on."""
        return simplification.name in self.active

    def folded(self) -> nn.Module:
        """Return the module to run in a deployed network: itself, or one with folded weights.

        Called on a copy whose `active` is set.
        """
        return self


def declared(network: nn.Module) -> dict[str, Simplification]:
    """Return all simplifications of a network's modules by name, in the order of the modules."""
    found: dict[str, Simplification] = {}
    for module in network.modules():
        if isinstance(module, Simplifiable):
            for one in module.simplifications:
                if found.setdefault(one.name, one) is not one:
                    raise ValueError(f"two simplifications are called {one.name}")
    return found


def simplified(network: nn.Module, active: frozenset[str]) -> nn.Module:
    """Return a copy of a network that shares its weights and has exactly these simplifications."""
    return _copied(network, active, {})


def _copied(module: nn.Module, active: frozenset[str], made: dict[int, nn.Module]) -> nn.Module:
    if id(module) in made:  # a module that is used in two places stays one
        return made[id(module)]
    twin = copy.copy(module)
    twin._modules = {
        name: None if child is None else _copied(child, active, made)
        for name, child in module._modules.items()
    }
    if isinstance(twin, Simplifiable):
        twin.active = active & {one.name for one in twin.simplifications}
        twin = twin.folded()
    made[id(module)] = twin
    return twin
