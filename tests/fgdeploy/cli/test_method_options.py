"""`--set NAME=VALUE`: read once, each name once, and shown as it was meant."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from fgdeploy.cli import method_options, show
from fgdeploy.core.errors import UsageError
from tests.checks import refused
from tests.fgdeploy.cli.conftest import Run
from tests.models.weights.vit_pytorch_layouts import laid_out, timm_weights

FLAGS = ["--backbone", "test_vit", "--weights", "random", "--image-size", "64", "--head", "lsh"]


def test_names_and_values() -> None:
    assert method_options.parse([]) == {}
    given = ["stages=2:8,4:4", " rate = 0.5", "name=a=b", "empty="]
    assert method_options.parse(given) == {
        "stages": "2:8,4:4",
        "rate": " 0.5",
        "name": "a=b",
        "empty": "",
    }


def test_the_names_that_options_had_before() -> None:
    assert method_options.parse([], "none", True) == {"stages": "none", "transposed_mask": "true"}
    with refused(UsageError, "--set stages and --stages both give the stages; leave one"):
        method_options.parse(["stages=2:8"], "none")


@pytest.mark.parametrize("text", ["", "stages", "=2:8", " =2:8"])
def test_what_is_no_name_and_value(text: str) -> None:
    with refused(UsageError, rf"--set '{text}': expected NAME=VALUE"):
        method_options.parse([text])


def test_a_name_that_comes_twice() -> None:
    with refused(UsageError, "--set stages: given twice"):
        method_options.parse(["stages=2:8", "stages =none"])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([[4, 98], [8, 49]], "4:98, 8:49"),
        ([], "none"),
        ([1, "a"], "1, a"),
        (True, "yes"),
        (False, "no"),
        (None, "as published"),
        (1, "1"),
        (0, "0"),
        (1.0, "1.0"),
        ("mean", "mean"),
        ({"a": 1}, "{'a': 1}"),
    ],
)
def test_values_are_shown_in_one_line(value: object, text: str) -> None:
    assert show.option(value) == text


def test_names_in_a_checkpoint_are_replaced_for_the_reference_too(run: Run, moths: Path) -> None:
    """The bundle keeps the patterns, so that its checkpoint is all that parity asks for."""
    state = laid_out(timm_weights(), "TransFG")
    odd = {f"my-{name.replace('.', '/')}": value for name, value in state.items()}
    torch.save({"model": odd}, "odd.bin")
    flags = ("--backbone", "test_vit", "--head", "lsh", "--bits", "16", "-o", "odd.fgd")
    names = ("--rename", "^my-=", "--rename", "/=.")
    done = run("export", "--no-time", "odd.bin", *flags, *names)
    assert done.exit_code == 0, done.output
    assert "odd.bin: its last block was trained on chosen patches" in done.stderr
    weights = json.loads(Path("odd.fgd/manifest.json").read_text())["weights"]
    assert weights["rename"] == ["^my-=", "/=."]
    against = ("--reference", "pytorch", "--candidate", "onnxruntime", "--checkpoint", "odd.bin")
    same = run("parity", moths, "-b", "odd.fgd", *against)
    assert same.exit_code == 0, same.output
    for pattern, words in (("(=", "missing ), unterminated"), ("zz=", "fits no name in odd.bin")):
        result = run("train", moths, "--weights", "odd.bin", "--rename", pattern)
        assert result.exit_code in (1, 2) and words in result.stderr


def test_options_reach_the_bundle_and_its_description(run: Run, tmp_path: Path) -> None:
    result = run(
        "export", "--no-time", *FLAGS, "--set", "stages=2:9,5:3", "--set", "transposed_mask=true"
    )
    assert result.exit_code == 0, result.output
    manifest = json.loads((tmp_path / "eet.fgd" / "manifest.json").read_text())
    assert manifest["options"] == {"stages": [[2, 9], [5, 3]], "transposed_mask": True}
    shown = run("inspect", "eet.fgd").stdout
    assert "2:9, 5:3" in shown
    assert [line.split() for line in shown.splitlines() if "17" in line.split()][:2] == [
        ["1", "17", "17", "17"],
        ["2", "17", "17", "10"],
    ]
    for flags, words in (
        (["--set", "keep=3"], "--set keep: the method's options are stages, transposed_mask"),
        (["--set", "stages"], "--set 'stages': expected NAME=VALUE"),
        (["--set", "stages=2-8"], "expected BLOCK:TOKENS pairs"),
        (["--set", "stages=2:99"], "keeps 99 patch tokens, but 16 arrive there"),
        (["--method", "nope"], "there is no method 'nope'; choose one of eet"),
        (["--weights-key", "ema"], "--weights-key chooses in a checkpoint"),
        (["--rename", "a=b"], "--rename changes names in a checkpoint, and none was given"),
        (["--set", "stages=2:8", "--stages", "2:8"], "--set stages and --stages both give"),
    ):
        result = run("export", *FLAGS, *flags, "-o", "x.fgd")
        assert result.exit_code == 2
        assert words in result.stderr
        assert not (tmp_path / "x.fgd").exists()
