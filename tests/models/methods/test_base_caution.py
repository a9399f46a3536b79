"""What a user is told of options before an export: where a reduction cannot do what is asked."""

from __future__ import annotations

import pytest

from fgdeploy.models.methods import registry

SAYS = [
    ("tome", "0.5", False),
    ("tome", "0.49", True),
    ("tome", "0.7,0.5,0.3", False),
    ("tome", "0.7,0.5,0.2", True),
    ("tome", "1", False),
    ("evit", "0.1", False),
]


@pytest.mark.parametrize(("reduction", "rates", "says"), SAYS)
def test_alone_and_in_clca(reduction: str, rates: str, says: bool) -> None:
    alone, clca = registry.get(reduction), registry.get("clca")
    told = alone.caution(alone.options.parse({"keep_rate": rates}))
    assert told == clca.caution(
        clca.options.parse({"reduction": reduction, "keep_rate": rates, "blocks": "4,7,10"})
    )
    assert (told is not None and "half" in told) is says


def test_a_method_that_says_nothing() -> None:
    eet = registry.get("eet")
    assert eet.caution(eet.options()) is None
