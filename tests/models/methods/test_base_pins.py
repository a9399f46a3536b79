"""What a network pins follows from its options: the chosen reduction's, none where nothing goes."""

from __future__ import annotations

import pytest

from fgdeploy.models.methods import registry
from fgdeploy.models.reduce.reductions import REDUCTIONS


@pytest.mark.parametrize("name", REDUCTIONS)
def test_a_reduction_has_the_same_pins_alone_and_in_clca(name: str) -> None:
    alone, clca = registry.get(name), registry.get("clca")
    pins = REDUCTIONS[name].pins
    assert alone.pinned(alone.options.parse({"keep_rate": "0.5"})) == pins
    assert clca.pinned(clca.options.parse({"reduction": name, "keep_rate": "0.5"})) == pins
    assert alone.pinned(alone.options.parse({"keep_rate": "1"})) == ()
    assert clca.pinned(clca.options.parse({"reduction": name, "keep_rate": "1"})) == ()


def test_without_a_reduction_nothing_is_pinned() -> None:
    clca = registry.get("clca")
    assert clca.pinned(clca.options.parse({"reduction": "none"})) == ()


def test_pins_that_do_not_depend_on_options_stay_as_they_are() -> None:
    eet = registry.get("eet")
    assert eet.pinned(eet.options.parse({"stages": "none"})) == eet.pins == ("steps.*.select/*",)
