"""Signed with a key or a certificate, and taken only as its owner's."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from fgdeploy.bundle import Bundle, open_bundle, seal, signing
from fgdeploy.bundle.packing import engine_files, pack, unpack
from fgdeploy.bundle.trust import SIGNED_ENGINES, TRUSTED_KEY
from fgdeploy.core.errors import BundleError, MissingDependency
from fgdeploy.engines import choosing, record
from tests.checks import refused
from tests.fgdeploy.bundle.owners import PASSWORD, Owner, owner, private_pem, public_pem
from tests.fgdeploy.bundle.packs import add_engine, contents, names

BY: dict[str, Callable[[Owner], dict[str, Any]]] = {
    "key": lambda of: {},
    "certificate": lambda of: {"certificate": of.chain},
}


@pytest.fixture
def mine(tmp_path: Path) -> Owner:
    return owner(tmp_path / "mine")


@pytest.fixture
def signed(own_bundle: Path, mine: Owner) -> Path:
    """A bundle in whose folder its owner's signature lies."""
    sign(own_bundle, mine.private)
    return own_bundle


def sign(folder: Path, key: Path, engines: bool = False, **certificate: Any) -> None:
    bundle = open_bundle(folder)
    named = sorted(engine_files(bundle, engines))
    signing.write(bundle, signing.sign(bundle, key, engines=named, **certificate))


def by_the_library(folder: Path, of: Owner, *more: str) -> subprocess.CompletedProcess[str]:
    """Run `model_signing verify` as from a shell."""
    entry = json.loads((folder / "model.sig").read_text())["verificationMaterial"]
    way = (
        ["certificate", "--certificate_chain", str(of.root)]
        if "x509CertificateChain" in entry
        else ["key", "--public_key", str(of.public)]
    )
    command = [sys.executable, "-m", "model_signing", "verify", *way, "--signature"]
    return subprocess.run(
        [*command, str(folder / "model.sig"), *more, str(folder)],
        capture_output=True,
        text=True,
        timeout=60,
    )


# --- signed and taken


@pytest.mark.parametrize("way", BY)
def test_pack_signs_and_unpack_verifies(
    way: str, own_bundle: Path, mine: Owner, tmp_path: Path
) -> None:
    (own_bundle / "notes.txt").write_text("stays at home")
    more = BY[way](mine)
    made = pack(
        own_bundle,
        tmp_path / "a.fgdz",
        signer=lambda bundle, engines: signing.sign(bundle, mine.private, engines=engines, **more),
    )
    assert list(made.files)[-1] == "model.sig" and not (own_bundle / "model.sig").exists()
    trusted = mine.root if more else mine.public
    bundle = unpack(made.path, tmp_path / "a.fgd", verify=trusted)
    assert bundle.owner == trusted
    assert bundle.signed == {"manifest.json", "model.onnx"}
    shell = by_the_library(bundle.path, mine)
    assert shell.returncode == 0, shell.stderr
    assert open_bundle(bundle.path).owner is None  # nobody asked
    again = pack(bundle.path, tmp_path / "b.fgdz")
    assert again.sha256 == made.sha256


def test_the_variable_counts_everywhere(
    own_bundle: Path, mine: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TRUSTED_KEY, str(mine.public))
    with refused(BundleError, "is not signed .* its owner signs it with: fgdeploy sign"):
        open_bundle(own_bundle)
    monkeypatch.setenv(TRUSTED_KEY, "")
    sign(own_bundle, mine.private)
    monkeypatch.setenv(TRUSTED_KEY, str(mine.public))
    bundle = open_bundle(own_bundle)
    assert bundle.owner == mine.public
    assert pickle.loads(pickle.dumps(bundle)) == bundle


def test_an_encrypted_key(
    own_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = owner(tmp_path / "locked", PASSWORD)
    bundle = open_bundle(own_bundle)
    with refused(BundleError, "is encrypted; set FGDEPLOY_KEY_PASSWORD"):
        signing.sign(bundle, locked.private)
    monkeypatch.setenv(signing.PASSWORD, "another")
    with refused(BundleError, "FGDEPLOY_KEY_PASSWORD is not its password"):
        signing.sign(bundle, locked.private)
    monkeypatch.setenv(signing.PASSWORD, PASSWORD)
    with refused(BundleError, "encrypted, which model-signing does not take with a certificate"):
        signing.sign(bundle, locked.private, locked.chain)
    sign(own_bundle, locked.private)
    assert open_bundle(own_bundle, locked.public).owner == locked.public


# --- engines


def test_engines_that_were_built_later_and_those_that_were_signed(
    signed: Path, mine: Owner, tmp_path: Path
) -> None:
    add_engine(signed)  # on the device
    assert not any("engines" in name for name in open_bundle(signed, mine.public).signed)
    sign(signed, mine.private, engines=True)
    bundle = open_bundle(signed, mine.public)
    assert {name for name in bundle.signed if "engines" in name} == engine_files(bundle, True)
    with refused(BundleError, "covers engines/.* would stay behind; take the engines along"):
        pack(signed, tmp_path / "a.fgdz")
    taken = pack(signed, tmp_path / "a.fgdz", engines=True)
    unpack(taken.path, tmp_path / "a.fgd", verify=mine.public)
    (tmp_path / "a.fgd" / "engines" / "openvino-int8-x86_64" / "engine.bin").write_bytes(b"evil")
    with refused(BundleError, "engine.bin is not what was signed"):
        open_bundle(tmp_path / "a.fgd", mine.public)


def owner_of_none(tmp_path: Path) -> Path:
    """Return a bundle without engines."""
    from tests.conftest import toy_manifest

    folder = tmp_path / "none.fgd"
    folder.mkdir()
    source = next(tmp_path.rglob("model.onnx"))
    (folder / "model.onnx").write_bytes(source.read_bytes())
    seal(folder, toy_manifest())
    return folder


def test_only_signed_engines_run_where_that_is_demanded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built = record.Built(Path("a.fgd/engines/openvino-int8-x"), None)
    entry: Any = type("Entry", (), {"file": "model.blob"})()
    theirs = Bundle(Path("a.fgd"), None, Path("pub.pem"))  # type: ignore[arg-type]
    home = "engines/openvino-int8-x"
    ours = dataclasses.replace(
        theirs, signed=frozenset({f"{home}/engine.json", f"{home}/model.blob"})
    )
    assert not choosing._unsigned(theirs, built, entry)
    monkeypatch.setenv(SIGNED_ENGINES, "1")
    assert not choosing._unsigned(ours, built, entry)
    assert choosing._unsigned(theirs, built, entry)
    assert not choosing._unsigned(dataclasses.replace(theirs, owner=None), built, entry)


# --- faults of the bundle


def _edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    entry = json.loads((folder / "model.sig").read_text())
    change(entry)
    (folder / "model.sig").write_text(json.dumps(entry))


def _grow(folder: Path) -> None:
    """List another file in what was signed, and keep the signature."""

    def change(entry: dict[str, Any]) -> None:
        inside = json.loads(base64.b64decode(entry["dsseEnvelope"]["payload"]))
        one = dict(inside["predicate"]["resources"][0], name="notes.txt")
        inside["predicate"]["resources"].append(one)
        entry["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(inside).encode()).decode()

    (folder / "notes.txt").write_bytes((folder / "manifest.json").read_bytes())
    _edit(folder, change)


def _reseal(folder: Path) -> None:
    """Make the manifest agree with a graph that was changed."""
    with open(folder / "model.onnx", "ab") as stream:
        stream.write(b"\x00")
    seal(folder, open_bundle_manifest(folder))


def open_bundle_manifest(folder: Path) -> Any:
    from fgdeploy.bundle.folder import read_manifest

    return read_manifest(folder / "manifest.json")


def _flip(folder: Path) -> None:
    def change(entry: dict[str, Any]) -> None:
        held = bytearray(base64.b64decode(entry["dsseEnvelope"]["signatures"][0]["sig"]))
        held[-1] ^= 1
        entry["dsseEnvelope"]["signatures"][0]["sig"] = base64.b64encode(held).decode()

    _edit(folder, change)


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a changed file": (
        lambda f: (f / "model.onnx").write_bytes(b"x" + (f / "model.onnx").read_bytes()[1:]),
        "model.onnx is not what was signed: it was changed since",
    ),
    "a changed file, sealed again": (_reseal, "model.onnx is not what was signed"),
    "a changed manifest": (
        lambda f: (f / "manifest.json").write_text((f / "manifest.json").read_text() + " "),
        "manifest.json is not what was signed",
    ),
    "an added file": (
        lambda f: (f / "notes.txt").write_text("x"),
        "holds 'notes.txt', which was not signed; do not use this bundle",
    ),
    "an added link": (lambda f: (f / "more").symlink_to("/tmp"), "holds 'more', which was not"),
    "an added file in a folder": (
        lambda f: ((f / ".git").mkdir(), (f / ".git" / "x").touch()),
        "holds '.git/x', which was not signed",
    ),
    "a removed file": (lambda f: (f / "model.onnx").unlink(), "lacks 'model.onnx', which was sig"),
    "no signature": (lambda f: (f / "model.sig").unlink(), "is not signed"),
    "an empty signature": (lambda f: (f / "model.sig").write_bytes(b""), "cut short, damaged or"),
    "half a signature": (
        lambda f: (f / "model.sig").write_bytes((f / "model.sig").read_bytes()[:700]),
        "model.sig is cut short, damaged or no signature .* sign the bundle again with",
    ),
    "a signature of other things": (
        lambda f: (f / "model.sig").write_text('{"verificationMaterial": []}'),
        "is cut short, damaged or no signature",
    ),
    "a flipped bit in the signature": (_flip, "not signed with the key of .*pub.pem; do not use"),
    "a payload with one more file": (_grow, "was not signed with the key of"),
    "a signature as a link": (
        lambda f: ((f / "model.sig").rename(f.parent / "s"), (f / "model.sig").symlink_to("../s")),
        "model.sig is a link, no file, or over",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_bundle_is_one_line(fault: str, signed: Path, mine: Owner) -> None:
    harm, words = FAULTS[fault]
    harm(signed)
    with refused(BundleError, words):
        open_bundle(signed, mine.public)


def test_the_signature_of_another_bundle(signed: Path, mine: Owner, tmp_path: Path) -> None:
    other = owner_of_none(tmp_path)
    manifest = json.loads((other / "manifest.json").read_text())
    assert manifest["files"].keys() == {"model.onnx"}
    seal(other, dataclasses.replace(open_bundle(other).manifest, created_by="another"))
    sign(other, mine.private)
    os.replace(other / "model.sig", signed / "model.sig")
    with refused(BundleError, "manifest.json is not what was signed: .* is another bundle's"):
        open_bundle(signed, mine.public)


def test_another_owner(signed: Path, tmp_path: Path, mine: Owner) -> None:
    other = owner(tmp_path / "other")
    with refused(BundleError, "was not signed with the key of .*other/pub.pem"):
        open_bundle(signed, other.public)
    with refused(BundleError, "signed with a key, .*root.pem is of an authority; give the one"):
        open_bundle(signed, mine.root)
    sign(signed, mine.private, certificate=mine.chain)
    with refused(BundleError, "with a certificate that does not lead to one in .*other/root.pem"):
        open_bundle(signed, other.root)
    with refused(BundleError, "signed with a certificate, .*pub.pem is a public key; give"):
        open_bundle(signed, mine.public)


def test_a_certificate_that_is_not_valid_now(own_bundle: Path, tmp_path: Path) -> None:
    for name, days, words in (
        ("late", (-5, -1), "certificate that expired on .* sign the bundle with a new"),
        ("early", (1, 5), "certificate that is not valid before .* set the clock"),
    ):
        of = owner(tmp_path / name, days=days)
        sign(own_bundle, of.private, certificate=of.chain)
        with refused(BundleError, words):
            open_bundle(own_bundle, of.root)
    shell = by_the_library(own_bundle, of)
    assert shell.returncode == 0  # the library itself asks about the day it began


def test_a_certificate_for_other_uses(own_bundle: Path, tmp_path: Path) -> None:
    of = owner(tmp_path / "web", signs=False)
    sign(own_bundle, of.private, certificate=of.chain)
    with refused(BundleError, "not meant for it; expected the key usage digitalSignature"):
        open_bundle(own_bundle, of.root)


def test_a_fault_leaves_nothing_unpacked(signed: Path, mine: Owner, tmp_path: Path) -> None:
    made = pack(signed, tmp_path / "a.fgdz")
    (tmp_path / "here").mkdir()
    target = tmp_path / "here" / "a.fgd"
    other = owner(tmp_path / "other")
    with refused(BundleError, "a.fgdz was not signed with the key of"):
        unpack(made.path, target, verify=other.public)
    assert names(target.parent) == []
    before = contents(unpack(made.path, target, verify=mine.public).path)
    with refused(BundleError, "was not signed with the key of"):
        unpack(made.path, target, overwrite=True, verify=other.public)
    assert contents(target) == before


def test_a_bundle_that_outgrew_its_signature_is_not_packed(signed: Path, tmp_path: Path) -> None:
    open_bundle(signed).record_parity({"photos": 3})
    with refused(BundleError, "changed since it was signed; sign the bundle again .* or remove"):
        pack(signed, tmp_path / "a.fgdz")
    assert "a.fgdz" not in names(tmp_path)


def test_an_owners_bundle_is_not_changed(signed: Path, mine: Owner) -> None:
    with refused(BundleError, "is signed, and a change would break that"):
        open_bundle(signed, mine.public).record_parity({"photos": 3})
    assert open_bundle(signed, mine.public).manifest.parity is None
    calibrator = pytest.importorskip("fgdeploy.calibration.calibrator")
    with refused(BundleError, "is signed, and a change would break that"):  # before any work
        calibrator.calibrate(open_bundle(signed, mine.public), [], None)


# --- keys that are none


def test_keys_that_do_not_verify(signed: Path, mine: Owner, tmp_path: Path) -> None:
    bad = tmp_path / "bad.pem"
    for text, words in (
        (b"", "bad.pem is no key to check with; expected an elliptic public key"),
        (b"\xff" * 99, "is no key to check with"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "is no key to check"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "is no key to check"),
        (public_pem(rsa.generate_private_key(65537, 2048)), "is no key to check with"),
        (public_pem(ec.generate_private_key(ec.SECP256K1())), "is no key to check with"),
        (mine.private.read_bytes(), "holds a private key, which stays with the owner"),
    ):
        bad.write_bytes(text)
        with refused(BundleError, words):
            open_bundle(signed, bad)
    with refused(BundleError, "none.pem is not there or no file; expected a public key or"):
        open_bundle(signed, tmp_path / "none.pem")


def test_keys_that_do_not_sign(own_bundle: Path, mine: Owner, tmp_path: Path) -> None:
    bad, bundle = tmp_path / "bad.pem", open_bundle(own_bundle)
    secret = mine.private.read_text().splitlines()[1]
    for text, words in (
        (b"", "bad.pem is no private key in PEM; make one with: openssl"),
        (mine.public.read_bytes(), "is no private key in PEM"),
        (mine.private.read_bytes()[:120], "cannot be read as a private key, it is damaged"),
        (private_pem(rsa.generate_private_key(65537, 2048)), "is not an elliptic key of P-256"),
        (private_pem(ec.generate_private_key(ec.SECP256K1())), "is not an elliptic key of P-256"),
    ):
        bad.write_bytes(text)
        with refused(BundleError, f"^(?!.*{re.escape(secret)}).*{words}"):  # and none of the key
            signing.sign(bundle, bad)
    with refused(BundleError, "does not go with .*key.pem .*give the certificate of that key"):
        signing.sign(bundle, mine.private, owner(tmp_path / "other").chain)
    with refused(BundleError, "does not go with"):
        signing.sign(bundle, mine.private, mine.public)


@pytest.mark.parametrize("package", ["model_signing", "OpenSSL"])
def test_without_the_package(
    package: str, signed: Path, mine: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(sys.modules):
        if name.split(".")[0] == "model_signing":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    named = {"OpenSSL": "pyopenssl"}.get(package, "model-signing")
    with refused(MissingDependency, f'needs the package {named}.*pip install "fgdeploy.sign."'):
        open_bundle(signed, mine.public)
    open_bundle(signed)
