"""`--rename`: what patterns do to the names in a checkpoint, and what is refused."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from fgdeploy.core.errors import CheckpointError, UsageError
from fgdeploy.models import assembly
from fgdeploy.models.assembly import NetworkSettings
from fgdeploy.models.weights import name_patterns, substitute
from tests.checks import refused
from tests.models.weights.vit_pytorch_layouts import laid_out, timm_weights

ONE = torch.ones(1)


def _names(content: dict[str, Any], *texts: str) -> list[str]:
    return list(name_patterns.applied(content, texts, "c.pth"))


def test_patterns_are_applied_in_turn_to_each_name() -> None:
    content = {"net.layer.0.w": ONE, "net.layer.11.w": ONE, "other": ONE}
    assert _names(content) == list(content)
    assert _names(content, r"^net\.=") == ["layer.0.w", "layer.11.w", "other"]
    assert _names(content, r"layer\.(\d+)=blocks.\1", "^net.=", "w=weight") == [
        "blocks.0.weight",
        "blocks.11.weight",
        "other",
    ]
    assert _names(content, r"(?P<n>\d+)=<\g<n>>")[1] == "net.layer.<11>.w"


def test_the_last_equals_sign_parts_pattern_and_replacement() -> None:
    """So lookahead and lookbehind are possible; names have no such sign."""
    assert _names({"a.w": ONE, "b.w": ONE}, r"(?<=a\.)w=v") == ["a.v", "b.w"]


def test_only_names_of_tensors_are_renamed_wherever_they_lie() -> None:
    content = {"model": {"x.w": ONE, "x.n": 3}, "x": {"y": [ONE]}, "x.w": ONE, 5: ONE}
    found = name_patterns.applied(content, ["x=z"], "c.pth")
    assert list(found["model"]) == ["z.w", "x.n"]
    assert list(found) == ["model", "x", "z.w", 5]
    assert found["x"]["y"] == content["x"]["y"]  # type: ignore[index]
    assert list(content["model"]) == ["x.w", "x.n"]  # type: ignore[call-overload]
    held: dict[str, Any] = {"x.w": ONE}
    held["again"] = held  # a file may hold itself
    assert "z.w" in name_patterns.applied(held, ["x=z"], "c.pth")["again"]


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("blocks", UsageError, "--rename 'blocks': expected PATTERN=REPLACEMENT"),
        ("=x", UsageError, "--rename '=x': expected PATTERN=REPLACEMENT"),
        (
            "(a=b",
            UsageError,
            r"--rename '\(a=b': missing \), unterminated subpattern at position 0",
        ),
        (r"a=\1", UsageError, r"invalid group reference 1 at position 1; expected a regular"),
        (r"a=\g<n>", UsageError, "unknown group name 'n'; expected a regular"),
        ("a{99999999999}=b", UsageError, "the repetition number is too large"),
        ("a" * 500 + "=b", UsageError, "expected 500 characters at most"),
        ("^.*$=", UsageError, "it leaves a name empty or beyond 1000"),
        (".=" + "long" * 100, UsageError, "it leaves a name empty or beyond 1000"),
        ("q=b", CheckpointError, "'q=b': fits no name in c.pth, whose first names are aa.w, ab.w$"),
        ("a[ab]=c", CheckpointError, "--rename: aa.w and ab.w would both be c.w; let the patterns"),
    ],
)
def test_what_is_refused(text: str, kind: type[Exception], words: str) -> None:
    with refused(kind, words):
        name_patterns.applied({"model": {"aa.w": ONE, "ab.w": ONE}}, [text], "c.pth")


def test_what_holds_no_names_is_refused() -> None:
    for content in ({}, {"a": 1}, 5):
        with refused(CheckpointError, "fits no name in c.pth, whose first names are none"):
            name_patterns.applied(content, ["a=b"], "c.pth")
    with refused(CheckpointError, "c.pth holds a name of 1001 characters"):
        name_patterns.applied({"a" * 1001: ONE}, ["a=b"], "c.pth")
    with refused(UsageError, "--rename: given 101 times, expected 100 at most"):
        name_patterns.applied({"a": ONE}, ["a=a"] * 101, "c.pth")


def test_a_pattern_that_needs_ages_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(name_patterns, "LIMIT_S", 1.0)
    with refused(UsageError, r"\(a\+\)\+\$=b.*not done with the names in c.pth after 1 s; use a"):
        name_patterns.applied({"a" * 60 + "!": ONE}, ["(a+)+$=b"], "c.pth")


def test_a_process_that_does_not_start_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with refused(
        UsageError, "--rename runs in a process of its own, which did not start: .*No suc"
    ):
        name_patterns.applied({"a": ONE}, ["a=b"], "c.pth")


def test_a_pattern_with_odd_characters_is_one_line() -> None:
    with refused(CheckpointError, "fits no name"):
        name_patterns.applied({"a": ONE}, ["\ud800\n=b"], "c.pth")


def test_substitution_counts_the_names_that_a_pattern_fits() -> None:
    found = substitute.substituted([["a", "b"], ["b+", "c"]], ["aa", "x", "b"])
    assert found == {"names": ["c", "x", "c"], "fits": [1, 2]}
    assert substitute.substituted([["a", "b"], ["*", "c"]], ["a"])["pattern"] == 1


def _settings(path: Path, *renames: str) -> NetworkSettings:
    return NetworkSettings(
        backbone="test_vit", checkpoint=path, renames=renames, options={"stages": "none"}
    )


@pytest.mark.parametrize("layout", ["timm", "ViT-pytorch"])
def test_renamed_weights_are_the_same_network(layout: str, tmp_path: Path) -> None:
    """Patterns come before wrappers, layouts and the method's own map."""
    state = timm_weights()
    theirs = state if layout == "timm" else laid_out(state, layout)
    odd = {f"my-net/{name.replace('.', '/')}": value for name, value in theirs.items()}
    torch.save({"weights": odd}, tmp_path / "odd.pth")
    torch.save(state, tmp_path / "plain.pth")
    texts = ("^my-net/=module.", "/=.")
    found = assembly.choose(_settings(tmp_path / "odd.pth", *texts)).encoder().state()
    plain = assembly.choose(_settings(tmp_path / "plain.pth")).encoder().state()
    assert found.keys() == plain.keys()
    assert all(torch.equal(found[name], value) for name, value in plain.items())
    with refused(CheckpointError, "odd.pth holds no tensors by name"):
        assembly.choose(_settings(tmp_path / "odd.pth")).encoder()


def test_there_is_something_to_rename(tmp_path: Path) -> None:
    settings = dataclasses.replace(_settings(tmp_path, "a=b"), checkpoint=None)
    with refused(UsageError, "--rename changes names in a checkpoint, and none was given"):
        assembly.choose(settings)
