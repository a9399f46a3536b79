"""`fgdeploy pack` and `fgdeploy unpack` as a user types them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.conftest import toy_manifest
from tests.fgdeploy.cli.conftest import Run
from tests.fgdeploy.cli.outcome import fails


@pytest.fixture
def run(tmp_path: Path, toy_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `fgdeploy ARGUMENTS` in a folder that holds toy.fgd, as from a shell."""
    from fgdeploy.cli.app import app

    shutil.copytree(toy_bundle, tmp_path / "toy.fgd")
    monkeypatch.chdir(tmp_path)
    runner = CliRunner()

    def call(*arguments: object) -> Result:
        return runner.invoke(app, [str(argument) for argument in arguments])

    return call


def test_there_and_back(run: Run, tmp_path: Path) -> None:
    packed = run("pack")
    assert packed.exit_code == 0, packed.output
    digest = hashlib.sha256((tmp_path / "toy.fgdz").read_bytes()).hexdigest()
    lines = packed.stdout.splitlines()
    assert lines[0].split() == ["name", "bytes"]
    assert [line.split()[0] for line in lines[1:-1]] == ["manifest.json", "model.onnx", "toy.fgdz"]
    assert lines[-1] == f"sha256  {digest}"
    assert packed.stderr == "wrote toy.fgdz; next, on the device: fgdeploy unpack toy.fgdz\n"
    shutil.rmtree("toy.fgd")
    unpacked = run("unpack", "toy.fgdz")
    assert unpacked.exit_code == 0, unpacked.output
    assert "model.onnx" in unpacked.stdout
    assert unpacked.stderr == "unpacked toy.fgd, every sha256 verified; next: fgdeploy doctor\n"
    assert sorted(os.listdir()) == ["toy.fgd", "toy.fgdz"]


def test_json_and_names(run: Run, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    packed = json.loads(run("pack", "-b", "toy.fgd", "-o", "out/a.fgdz", "--json").stdout)
    assert set(packed) == {"path", "bytes", "sha256", "files"}
    assert packed["path"] == "out/a.fgdz"
    unpacked = json.loads(run("unpack", "out/a.fgdz", "--json").stdout)
    assert unpacked["path"] == "a.fgd"
    assert unpacked["fingerprint"] == toy_manifest().fingerprint
    assert list(unpacked["files"]) == ["model.onnx"]
    assert run("unpack", "out/a.fgdz", "-o", "out/b.fgd").exit_code == 0
    assert sorted(os.listdir("out")) == ["a.fgdz", "b.fgd"]


def test_engines_go_along_on_request(run: Run, tmp_path: Path) -> None:
    fails(run("pack", "--engines"), 1, "toy.fgd holds no engines; leave out --engines")
    home = tmp_path / "toy.fgd" / "engines" / "openvino-int8"
    home.mkdir(parents=True)
    (home / "engine.bin").write_bytes(b"engine")
    assert "engine.bin" not in run("pack").stdout
    assert "engines/openvino-int8/engine.bin" in run("pack", "--engines", "--overwrite").stdout
    assert run("unpack", "toy.fgdz", "-o", "b.fgd").exit_code == 0
    assert (tmp_path / "b.fgd" / "engines" / "openvino-int8" / "engine.bin").is_file()


def test_what_is_there_stays(run: Run) -> None:
    run("pack")
    fails(run("pack"), 1, "toy.fgdz is there already; pass --overwrite, or another -o")
    fails(run("unpack", "toy.fgdz"), 1, "toy.fgd is there already; pass --overwrite")
    assert run("pack", "--overwrite").exit_code == 0
    assert run("unpack", "toy.fgdz", "--overwrite").exit_code == 0


def test_mistakes(run: Run, tmp_path: Path) -> None:
    fails(run("pack", "-o", "a.zip"), 2, "-o a.zip: a packed bundle's name ends in .fgdz")
    fails(run("pack", "-b", "none.fgd"), 1, "none.fgd does not exist")
    fails(run("pack", "-o", "no/a.fgdz"), 1, "no folder no to write a.fgdz into")
    fails(run("unpack", "none.fgdz"), 1, "none.fgdz does not exist; expected a packed bundle")
    (tmp_path / "b.fgdz").write_bytes(b"PK\x03\x04 and no more")
    fails(run("unpack", "b.fgdz"), 1, "b.fgdz is cut short, damaged or no pack")
    fails(run("unpack", "b.fgdz", "-o", "b"), 2, "-o b: a bundle's name ends in .fgd")
    assert run("unpack").exit_code == 2
    assert sorted(os.listdir()) == ["b.fgdz", "toy.fgd"]


@pytest.mark.parametrize("command", ["pack", "unpack"])
def test_help_says_what_every_option_does(run: Run, command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    lines = [line for line in result.stdout.splitlines() if line.startswith("  -")]
    assert lines and all(len(line.split()) > 2 for line in lines)
