"""The methods by name."""

from __future__ import annotations

from fgdeploy.core.errors import UsageError
from fgdeploy.models.methods import clca, eet
from fgdeploy.models.methods.base import Method
from fgdeploy.models.methods.reduced import alone
from fgdeploy.models.reduce.reductions import REDUCTIONS

# The first is the default.
METHODS: dict[str, Method] = {
    method.name: method
    for method in (eet.METHOD, clca.METHOD, *(alone(one) for one in REDUCTIONS.values()))
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
