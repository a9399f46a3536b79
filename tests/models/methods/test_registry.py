"""The methods by name."""

from __future__ import annotations

import dataclasses

import pytest

from fgdeploy.core.errors import UsageError
from fgdeploy.models.backbone.variant import Variant
from fgdeploy.models.methods import eet, registry
from fgdeploy.models.methods.base import FAST
from fgdeploy.models.methods.eet import PAPER
from tests.checks import refused


def test_the_first_is_the_default() -> None:
    assert registry.get(None) is next(iter(registry.METHODS.values())) is eet.METHOD
    assert registry.get("eet") is eet.METHOD
    assert all(method.name == name for name, method in registry.METHODS.items())


def test_a_method_that_there_is_not() -> None:
    with refused(UsageError, "there is no method 'dino'; choose one of eet"):
        registry.get("dino")


def test_a_method_of_your_own_joins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "METHODS", dict(registry.METHODS))
    mine = dataclasses.replace(eet.METHOD, name="mine")
    registry.register(mine)
    registry.register(mine)  # twice does no harm
    assert registry.get("mine") is mine
    assert registry.get(None) is eet.METHOD
    with refused(UsageError, "there is a method 'mine' already; choose another name"):
        registry.register(dataclasses.replace(mine, variant=Variant(stride=12)))
    with refused(UsageError, "there is a method 'eet' already"):
        registry.register(dataclasses.replace(mine, name="eet"))
    assert registry.get("eet") is eet.METHOD


def test_recipes_by_name() -> None:
    assert registry.get("eet").recipe("paper") is PAPER
    assert registry.get("eet").recipe("fast") is FAST


def test_a_recipe_that_there_is_not() -> None:
    with refused(UsageError, "^eet has no recipe 'slow'; choose fast, paper"):
        registry.get("eet").recipe("slow")
