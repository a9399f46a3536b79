"""What the shell offers after <Tab>."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fgdeploy.cli import completing
from fgdeploy.engines import BACKENDS

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two bundles, one of them deeper, an index and other things."""
    for name in ("eet.fgd", "runs/one.fgd", "runs/deep", "g.fgi", ".hidden", "ein Ordner ä.fgd"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "eet.fgdz").touch()
    (tmp_path / "notes.txt").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_bundles_and_folders_on_the_way_to_one(folder: Path) -> None:
    assert completing.bundles("") == ["eet.fgd", "ein Ordner ä.fgd", "runs/"]
    assert completing.bundles("ee") == ["eet.fgd"]
    assert completing.bundles("runs/") == ["runs/deep/", "runs/one.fgd"]
    assert completing.bundles(f"{folder}/e") == [f"{folder}/eet.fgd", f"{folder}/ein Ordner ä.fgd"]
    assert completing.bundles("none/x") == []
    assert completing.indexes("g") == ["g.fgi"]
    assert completing.packed("eet") == ["eet.fgdz"]


def test_names_of_methods_and_backends() -> None:
    from fgdeploy.models.methods.registry import METHODS

    assert completing.methods("") == sorted(METHODS)
    assert completing.methods("no-such") == []
    assert completing.backends("") == list(BACKENDS)
    assert completing.backends("open") == ["openvino"]


@pytest.mark.parametrize(
    ("words", "answers"),
    [
        ("fgdeploy insp", ["inspect"]),
        ("fgdeploy inspect e", ["eet.fgd", "ein Ordner ä.fgd"]),
        ("fgdeploy hash photos -b ee", ["eet.fgd"]),
        ("fgdeploy index stats ", ["g.fgi", "runs/"]),
        ("fgdeploy search --index g", ["g.fgi"]),
        ("fgdeploy unpack ee", ["eet.fgdz"]),
        ("fgdeploy build-engine --backend openv", ["openvino"]),
        ("fgdeploy train --method ", completing.methods("")),
        ("fgdeploy hash x --thr", ["--threads"]),
    ],
)
def test_bash_is_answered_without_torch_or_engines(
    folder: Path, words: str, answers: list[str]
) -> None:
    code = (
        "import sys; sys.argv = ['fgdeploy']\n"
        "from fgdeploy.cli import main\n"
        "try: main()\n"
        "finally:\n"
        "    heavy = {'torch', 'timm', 'onnx', 'onnxruntime', 'openvino', 'rich'}\n"
        "    assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    asked = {
        "_FGDEPLOY_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **asked}, capture_output=True, text=True
    )
    assert (done.stdout.split("\n")[:-1], done.stderr) == (answers, "")


def test_the_script_for_a_shell_is_shown() -> None:
    asked = {"_FGDEPLOY_COMPLETE": "source_zsh", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", "from fgdeploy.cli import main; main()"]
    done = subprocess.run(command, env={**os.environ, **asked}, capture_output=True, text=True)
    assert done.stdout.lstrip().startswith("#compdef fgdeploy")
