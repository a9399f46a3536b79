"""What a user gives on top of what a file says of itself."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from fgdeploy.core.errors import CheckpointError, UsageError
from fgdeploy.models import trained_options
from fgdeploy.models.methods import registry
from fgdeploy.models.methods.clca import CLCAOptions
from fgdeploy.models.options import Options
from fgdeploy.models.weights.source import WeightSource
from fgdeploy.models.weights.told import Told
from fgdeploy.models.weights.trained import TrainedConfig
from fgdeploy.photos import Preprocess
from tests.checks import refused

SOURCE = WeightSource("test_vit", 64, "random", {}, "best.pth")
TOLD = Told(
    {"reduction": "evit", "keep_rate": (0.7,), "cla": True, "cache": True, "kernels": 2},
    frozenset({"reduction", "cla", "kernels"}),
)


def _choose(texts: Mapping[str, str], told: Told | None = TOLD) -> tuple[Options, list[str]]:
    said: list[str] = []
    method = registry.get("clca")
    return trained_options.choose(method, texts, SOURCE, None, told, said.append), said


def test_a_file_s_words_are_taken_and_said() -> None:
    options, said = _choose({})
    assert options.to_json()["keep_rate"] == (0.7,)
    assert said == [
        "best.pth was trained with test_vit, reduction=evit, keep_rate=0.7, cla=true, cache=true, "
        "kernels=2"
    ]


def test_what_is_given_wins_where_the_weights_allow_it() -> None:
    options, said = _choose({"keep_rate": "0.5,0.25", "reduction": "evit", "cache": "false"})
    assert options.to_json()["keep_rate"] == (0.5, 0.25)
    assert said[1:] == [
        "best.pth: keep_rate=0.5,0.25 as given, trained with 0.7",
        "best.pth: cache=false as given, trained with true",
    ]


@pytest.mark.parametrize(
    ("name", "text", "before"),
    [("reduction", "sit", "evit"), ("cla", "false", "true"), ("kernels", "3", "2")],
)
def test_what_the_weights_hold_to(name: str, text: str, before: str) -> None:
    given = {name: text} | ({"cache": "false"} if name == "cla" else {})
    words = f"--set {name}={text}: best.pth was trained with {name}={before} and its weights hold"
    with refused(CheckpointError, words):
        _choose(given)


def test_what_is_not_told_is_said_once_it_is_not_given() -> None:
    told = Told({"cla": True}, open=("reduction", "keep_rate", "blocks"))
    _, said = _choose({"reduction": "evit"}, told)
    assert said[-1] == (
        "best.pth does not tell how it was trained in all: keep_rate=0.5, blocks=as published is "
        "taken; pass --set NAME=VALUE where it was otherwise"
    )
    given = {"reduction": "evit", "keep_rate": "0.7", "blocks": "2,3"}
    assert len(_choose(given, told)[1]) == 1
    assert _choose({"keep_rate": "0.7"}, None)[1] == []


def test_a_cache_without_cla_is_a_file_s_right_and_not_a_user_s() -> None:
    file = Told({"cla": False, "cache": True})
    assert _choose({}, file)[0].to_json()["cache"] is True
    assert _choose({"cache": "true", "keep_rate": "0.25"}, file)[0].to_json()["cache"] is True
    words = "the cache feeds the CLA head and needs it"
    with refused(UsageError, words):
        _choose({"cache": "true"}, Told({"cla": False, "cache": False}))
    with refused(UsageError, words):
        _choose({"cla": "false"}, None)


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ({}, []),
        ({"cache": "true", "keep_rate": "0.70"}, []),
        ({"cache": "false"}, ["best.pth: cache=false as given, trained with true"]),
        ({"reduction": "topk"}, ["best.pth: reduction=topk as given, trained with evit"]),
    ],
)
def test_what_differs_from_a_training_is_said(texts: dict[str, str], words: list[str]) -> None:
    method, said = registry.get("clca"), list[str]()
    options = CLCAOptions(keep_rate=(0.7,), blocks=(2, 4, 5))
    frames = Preprocess(64, 73, "bicubic", (0.5,) * 3, (0.5,) * 3, True)
    config = TrainedConfig("clca", "test_vit", 64, 16, options, frames, ("a", "b"), {})
    found = trained_options.choose(method, texts, SOURCE, config, None, said.append)
    assert said == words
    assert found == CLCAOptions.parse(texts, options)
