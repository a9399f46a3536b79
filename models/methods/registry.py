"""The methods by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fgdeploy.core.errors import CheckpointError, UsageError
from fgdeploy.models.methods import aftrans, clca, dva, eet, glsim
from fgdeploy.models.methods.base import Method
from fgdeploy.models.methods.reduced import alone
from fgdeploy.models.reduce.reductions import REDUCTIONS
from fgdeploy.models.weights.told import Teller, Told

# The first is the default.
METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        eet.METHOD,
        clca.METHOD,
        glsim.METHOD,
        dva.METHOD,
        aftrans.METHOD,
        *(alone(one) for one in REDUCTIONS.values()),
    )
}


def register(method: Method) -> None:
    """Add a method of your own, which every command then knows. Raises UsageError if the name is
    taken by another."""
    if METHODS.setdefault(method.name, method) is not method:
        raise UsageError(f"there is a method {method.name!r} already; choose another name")


def get(name: str | None) -> Method:
    """Return a method by name, the default one for None. Raises UsageError."""
    if name is None:
        return next(iter(METHODS.values()))
    if name not in METHODS:
        raise UsageError(f"there is no method {name!r}; choose one of {', '.join(METHODS)}")
    return METHODS[name]


def teller(name: str | None) -> Teller:
    """Return what reads a checkpoint of the method `name`.

    It refuses with CheckpointError a file that is not of the method and that another one claims:
    by its tensors, and for None, the default one, by the arguments beside them too. Such a file is
    not taken as what it is not.
    """
    method = get(name)

    def tell(arguments: Mapping[str, Any], state: Mapping[str, Tensor], file: str) -> Told | None:
        told = None if method.told is None else method.told(arguments, state, file)
        if told is None and not method.claims(arguments, state):
            _refuse_others(method, {} if name else arguments, state, file)
        return told

    return tell


def _refuse_others(
    asked: Method, arguments: Mapping[str, Any], state: Mapping[str, Tensor], file: str
) -> None:
    for method in METHODS.values():
        if method is not asked and method.claims(arguments, state):
            raise CheckpointError(
                f"{file} was trained with {method.name}, not {asked.name}; pass --method "
                f"{method.name}"
            )
