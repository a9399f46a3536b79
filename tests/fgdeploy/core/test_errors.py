from __future__ import annotations

import pickle

import pytest

from fgdeploy.core import errors
from fgdeploy.core.errors import FgdeployError, MissingDependency

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, FgdeployError) and kind is not MissingDependency
]


@pytest.mark.parametrize(
    "error",
    [*(kind("a.jpg: no such file") for kind in KINDS), MissingDependency("numba", "search", "it")],
    ids=lambda error: type(error).__name__,
)
def test_every_error_comes_back_from_another_process(error: FgdeployError) -> None:
    """One that cannot be read hangs a multiprocessing.Pool."""
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (str(again), vars(again)) == (str(error), vars(error))
