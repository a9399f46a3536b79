"""Options as users write them and as files keep them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from fgdeploy.core.errors import UsageError
from fgdeploy.models.backbone.vit import Geometry
from fgdeploy.models.methods.base import FAST, Method, Photometry
from fgdeploy.models.options import Options
from tests.checks import refused

S224 = Geometry(width=384, depth=12, patch_size=16, grid=(14, 14))


@dataclass(frozen=True)
class _Many(Options):
    """One of each kind."""

    count: int = 3
    rate: float = 0.7
    name: str = "mean"
    twice: bool = False
    most: int | None = None


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, _Many()),
        ({"count": "5"}, _Many(count=5)),
        ({"count": "-5"}, _Many(count=-5)),
        ({"rate": "0.25"}, _Many(rate=0.25)),
        ({"rate": "1"}, _Many(rate=1.0)),
        ({"name": "max"}, _Many(name="max")),
        ({"name": "3"}, _Many(name="3")),
        ({"name": "true"}, _Many(name="true")),
        ({"name": ""}, _Many(name="")),
        ({"twice": "true"}, _Many(twice=True)),
        ({"most": "7"}, _Many(most=7)),
        ({"most": "null"}, _Many(most=None)),
        ({"count": "5", "twice": "true"}, _Many(count=5, twice=True)),
    ],
)
def test_options_are_read_as_what_they_are(given: dict[str, str], expected: _Many) -> None:
    found = _Many.parse(given)
    assert found == expected
    for name in ("count", "rate", "name", "twice"):
        assert type(getattr(found, name)) is type(getattr(expected, name))


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("count", "many", "--set count=many: expected a whole number such as 3"),
        ("count", "5.0", "--set count=5.0: expected a whole number such as 3"),
        ("count", "true", "--set count=true: expected a whole number"),
        ("count", "", "--set count=: expected a whole number"),
        ("count", "null", "--set count=null: expected a whole number"),
        ("rate", "half", "--set rate=half: expected a number such as 0.7"),
        ("rate", "false", "--set rate=false: expected a number"),
        ("rate", "NaN", "--set rate=NaN: expected a number such as 0.7"),
        ("rate", "-Infinity", "--set rate=-Infinity: expected a number"),
        ("rate", "1e999", "--set rate=1e999: expected a number"),
        ("most", "NaN", "--set most=NaN: expected a finite number or null$"),
        ("rate", "[1]", r"--set rate=\[1\]: expected a number"),
        ("twice", "1", "--set twice=1: expected true or false such as false"),
        ("twice", "True", "--set twice=True: expected true or false"),
        ("keep", "3", "--set keep: the method's options are count, rate, name, twice, most$"),
    ],
)
def test_values_of_another_kind(name: str, text: str, words: str) -> None:
    with refused(UsageError, words):
        _Many.parse({name: text})


def test_a_method_without_options_says_so() -> None:
    assert Options.parse({}) == Options()
    with refused(UsageError, "--set stages: the method's options are none$"):
        Options.parse({"stages": "none"})


def test_numbers_without_end_or_value() -> None:
    with pytest.raises(UsageError):
        _Many.parse({"count": "9" * 5000})
    with pytest.raises(UsageError):
        _Many.parse({"count": "[" * 100_000})


@pytest.mark.parametrize("options", [_Many(), _Many(5, 1.0, "max", True, 7)])
def test_options_survive_json(options: _Many) -> None:
    assert _Many.from_json(json.loads(json.dumps(options.to_json()))) == options
    assert _Many.from_json({}) == _Many()


@pytest.mark.parametrize(
    ("entry", "kind", "words"),
    [
        ({"keep": 3}, ValueError, "no option 'keep'"),
        ({"count": "3"}, TypeError, 'option count is "3", expected such as'),
        ({"count": True}, TypeError, "option count is true"),
        ({"count": 3.0}, TypeError, "option count is 3.0"),
        ({"twice": 1}, TypeError, "option twice is 1"),
        ({"name": ["mean"]}, TypeError, "option name is a list"),
    ],
)
def test_damaged_options(entry: dict[str, Any], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        _Many.from_json(entry)


def test_plain_options_depend_on_no_backbone() -> None:
    options = _Many(count=5)
    assert options.resolved(S224) is options.resized() is options.dense() is options
    assert options.deciding(S224) == {"options": options.to_json()}


def test_every_method_has_the_fast_recipe() -> None:
    method = Method("mine", "test_vit", build=lambda vit, norm, options: None)  # type: ignore[arg-type, return-value]
    assert method.recipe("fast") is FAST
    with refused(UsageError, "mine has no recipe 'paper'; choose fast$"):
        method.recipe("paper")
    assert method.photometry == Photometry(256 / 224, "bilinear", False)
