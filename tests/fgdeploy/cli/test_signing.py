"""`fgdeploy sign` and `verify`, `pack --sign` and `unpack --verify`, as a user types them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from tests.fgdeploy.bundle.owners import Owner, owner
from tests.fgdeploy.cli.conftest import Run
from tests.fgdeploy.cli.outcome import fails


@pytest.fixture
def here(tmp_path: Path, toy_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Owner:
    """An owner's keys, in a folder with toy.fgd where the commands run."""
    shutil.copytree(toy_bundle, tmp_path / "toy.fgd")
    monkeypatch.chdir(tmp_path)
    owner(tmp_path / "mine")
    return Owner(*(Path("mine") / f"{name}.pem" for name in ("key", "pub", "chain", "root")))


@pytest.fixture
def type_(here: Owner) -> Run:
    from fgdeploy.cli.app import app

    runner = CliRunner()

    def call(*arguments: object) -> Result:
        return runner.invoke(app, [str(argument) for argument in arguments])

    return call


def test_pack_and_unpack(type_: Run, here: Owner) -> None:
    assert "model.sig" in type_("pack", "--sign", here.private).stdout
    done = type_("unpack", "toy.fgdz", "-o", "a.fgd", "--verify", here.public)
    assert (
        done.stderr == "unpacked a.fgd, every sha256 verified and signed with the key of "
        "mine/pub.pem; next: fgdeploy doctor\n"
    )
    shutil.rmtree("a.fgd")
    assert type_("pack", "--sign", here.private, "--overwrite", "--certificate", here.chain).stdout
    fails(
        type_("unpack", "toy.fgdz", "-o", "b.fgd", "--verify", here.public),
        1,
        "toy.fgdz was signed with a certificate, mine/pub.pem is a public key",
    )
    assert not Path("b.fgd").exists()
    assert type_("unpack", "toy.fgdz", "-o", "b.fgd", "--verify", here.root).exit_code == 0
    fails(
        type_("pack", "toy.fgd", "--certificate", here.chain),
        2,
        "--certificate without a key; name the",
    )


def test_sign_and_verify(type_: Run, here: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    fails(type_("verify", "--key", here.public), 1, "toy.fgd is not signed")
    fails(type_("sign"), 2, "no key to sign with; name the owner's private key with --key")
    fails(type_("verify"), 2, "no key to check with; name one with --key, or in FGDEPLOY_TRUSTED")
    done = type_("sign", "toy.fgd", "--key", here.private)
    assert done.stderr.startswith("wrote toy.fgd/model.sig; next")
    monkeypatch.setenv("FGDEPLOY_TRUSTED_KEY", str(here.public))
    found = type_("verify")
    assert found.exit_code == 0
    assert "toy.fgd is whole and signed with the key of mine/pub.pem: 2 files" in found.stderr
    with open("toy.fgd/model.onnx", "ab") as stream:
        stream.write(b"\x00")
    fails(type_("inspect"), 1, "toy.fgd/model.onnx is not what was signed")


@pytest.mark.parametrize("command", [("camera", "a.png"), ("serve", "--port", "0")])
def test_a_device_takes_only_its_owners(type_: Run, here: Owner, command: Any) -> None:
    Image.new("RGB", (8, 8)).save("a.png")
    fails(
        type_(*command, "--bundle", "toy.fgd", "--verify-key", here.public),
        1,
        "toy.fgd is not signed .* only bundles of a trusted key are taken here",
    )
