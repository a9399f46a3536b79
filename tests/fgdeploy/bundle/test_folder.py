from __future__ import annotations

import dataclasses
import errno
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from fgdeploy import bundle
from fgdeploy.bundle import BlockRows, open_bundle, seal
from fgdeploy.core.errors import BundleError
from tests.checks import refused
from tests.conftest import toy_manifest
from tests.fgdeploy.bundle.edits import list_file, put, relist

AGAIN = r"; (copy or )?export the bundle again$"
DO_NOT_USE = r"which leaves the bundle; do not use this bundle$"


# --- whole bundles


def test_toy_bundle_opens(toy_bundle: Path) -> None:
    opened = open_bundle(toy_bundle)
    assert opened.path == toy_bundle
    assert opened.manifest.blocks == (BlockRows(1, 5, 5, 5, 3, 3), BlockRows(2, 3, 1, 3, 1, 1))
    assert (opened.manifest.bits, opened.manifest.code_bytes, opened.manifest.patches) == (12, 2, 4)
    assert opened.graph() == opened.graph("fp32") == toy_bundle / "model.onnx"
    assert open_bundle(str(toy_bundle)) == opened


def test_what_is_sealed_is_what_opens(own_bundle: Path) -> None:
    (own_bundle / "head.npz").write_bytes(b"head")
    (own_bundle / "extra").mkdir()
    (own_bundle / "extra" / "notes.txt").write_text("x")
    manifest = dataclasses.replace(open_bundle(own_bundle).manifest, parity={"photos": 3})
    sealed = seal(own_bundle, manifest)
    assert sorted(sealed.manifest.files) == ["extra/notes.txt", "head.npz", "model.onnx"]
    assert open_bundle(own_bundle) == sealed


def test_bundle_may_be_reached_over_a_link(toy_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "link.fgd").symlink_to(toy_bundle)
    assert open_bundle(tmp_path / "link.fgd").manifest.fingerprint == toy_manifest().fingerprint


def test_precision_that_the_bundle_has_not(toy_bundle: Path) -> None:
    opened = open_bundle(toy_bundle)
    for precision in ("int8", "bf16", ""):
        with refused(BundleError, rf"toy\.fgd holds no {precision} ?graph, only fp32"):
            opened.graph(precision)


def test_every_listed_precision_is_found(own_bundle: Path) -> None:
    shutil.copy(own_bundle / "model.onnx", own_bundle / "model.int8.onnx")
    sealed = seal(own_bundle, open_bundle(own_bundle).manifest)
    assert sealed.graph("int8").name == "model.int8.onnx"


def test_record_parity_keeps_the_bundle_whole(own_bundle: Path) -> None:
    opened = open_bundle(own_bundle)
    opened.record_parity({"candidate": "openvino:fp32", "photos": 24, "map_drop": None})
    opened.record_parity({"candidate": "openvino:fp32", "photos": 25})
    again = open_bundle(own_bundle)
    assert again.manifest.parity == {"candidate": "openvino:fp32", "photos": 25}
    assert dataclasses.replace(again.manifest, parity=None) == opened.manifest


def test_record_parity_that_fails_leaves_the_bundle(
    own_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_bundle(own_bundle)
    with pytest.raises(TypeError, match="not JSON serializable"):
        opened.record_parity({"photos": np.float32(1)})

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with refused(OSError, "No space left on device"):
            opened.record_parity({"photos": 1})
    assert open_bundle(own_bundle) == opened
    assert sorted(os.listdir(own_bundle)) == ["manifest.json", "model.onnx"]


def test_seal_lists_files_without_a_suffix(own_bundle: Path) -> None:
    (own_bundle / "LICENSE").write_text("Apache-2.0")
    assert "LICENSE" in seal(own_bundle, open_bundle(own_bundle).manifest).manifest.files


def test_sha256_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert bundle.sha256(tmp_path / "a").startswith("ba7816bf8f01cfea414140de5dae2223")


# --- the folder


def test_missing_folder(tmp_path: Path) -> None:
    with refused(BundleError, r"no\.fgd does not exist; make one with: fgdeploy export .*no\.fgd$"):
        open_bundle(tmp_path / "no.fgd")


def test_file_instead_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.fgd").touch()
    with refused(BundleError, r"a\.fgd is not a bundle folder; make one with: fgdeploy export"):
        open_bundle(tmp_path / "a.fgd")


def test_folder_without_a_manifest(tmp_path: Path) -> None:
    with refused(BundleError, rf" lacks manifest\.json{AGAIN}"):
        open_bundle(tmp_path)


def test_missing_file(own_bundle: Path) -> None:
    (own_bundle / "model.onnx").unlink()
    with refused(BundleError, rf"own\.fgd lacks model\.onnx{AGAIN}"):
        open_bundle(own_bundle)


def test_folder_instead_of_a_file(own_bundle: Path) -> None:
    (own_bundle / "model.onnx").unlink()
    (own_bundle / "model.onnx").mkdir()
    with refused(BundleError, rf"model\.onnx is not a regular file{AGAIN}"):
        open_bundle(own_bundle)


def test_pipe_instead_of_a_file(own_bundle: Path) -> None:
    (own_bundle / "model.onnx").unlink()
    os.mkfifo(own_bundle / "model.onnx")  # reading it would wait for ever
    with refused(BundleError, rf"model\.onnx is not a regular file{AGAIN}"):
        open_bundle(own_bundle)


def test_manifest_that_is_a_folder(own_bundle: Path) -> None:
    (own_bundle / "manifest.json").unlink()
    (own_bundle / "manifest.json").mkdir()
    with refused(BundleError, rf"manifest\.json is not a regular file{AGAIN}"):
        open_bundle(own_bundle)


@pytest.mark.parametrize("name", ["manifest.json", "model.onnx"])
def test_linked_file(own_bundle: Path, tmp_path: Path, name: str) -> None:
    shutil.move(own_bundle / name, tmp_path / name)
    (own_bundle / name).symlink_to(tmp_path / name)
    with refused(BundleError, rf"{name} is a symbolic link, which .* must not hold; copy the file"):
        open_bundle(own_bundle)


def test_link_to_nowhere(own_bundle: Path) -> None:
    (own_bundle / "model.onnx").unlink()
    (own_bundle / "model.onnx").symlink_to("nowhere")
    with refused(BundleError, r"model\.onnx is a symbolic link, .* must not hold; copy the file"):
        open_bundle(own_bundle)


def test_linked_subfolder(own_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "away").mkdir()
    (tmp_path / "away" / "a.bin").write_bytes(b"x")
    (own_bundle / "sub").symlink_to(tmp_path / "away")
    relist(own_bundle, "sub/a.bin")
    with refused(BundleError, r"/sub is a symbolic link, .* must not hold; copy the file$"):
        open_bundle(own_bundle)


# --- names in the manifest


@pytest.mark.parametrize(
    "name",
    [
        "../secret.txt",
        "sub/../../secret.txt",
        "sub/..",
        "..",
        "/etc/passwd",
        "//etc/passwd",
        "..\\secret.txt",
        "sub\\a.bin",
        "C:\\secret.txt",
        "C:secret.txt",
        "",
        ".",
    ],
)
def test_name_that_leaves_the_bundle(own_bundle: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.txt").write_text("x")
    list_file(own_bundle, name, {"bytes": 1, "sha256": bundle.sha256(tmp_path / "secret.txt")})
    with refused(BundleError, rf"manifest\.json lists '.*', {DO_NOT_USE}"):
        open_bundle(own_bundle)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("model.onnx/a", id="below a file"),
        pytest.param("a" * 300, id="too long"),
        pytest.param("a\0b", id="zero byte"),
        pytest.param("\ud800.bin", id="lone surrogate"),
    ],
)
def test_name_that_no_file_can_have(own_bundle: Path, name: str) -> None:
    list_file(own_bundle, name, {"bytes": 1, "sha256": "00" * 32})
    with refused(BundleError, rf"(lists|lacks|a name in files) .*({AGAIN}|{DO_NOT_USE})"):
        open_bundle(own_bundle)


@pytest.mark.parametrize("name", ["a\nall is well", "a\x1b[2Jb"])
def test_name_that_paints_on_the_terminal(own_bundle: Path, name: str) -> None:
    list_file(own_bundle, name, {"bytes": 1, "sha256": "00" * 32})
    with refused(BundleError, r"^[^\x00-\x1f]*(lacks|lists) [^\x00-\x1f]*$"):
        open_bundle(own_bundle)


def test_bundle_without_a_graph(own_bundle: Path) -> None:
    put(own_bundle, "files", {})
    with refused(BundleError, rf"own\.fgd: manifest\.json lists no model\.onnx{AGAIN}"):
        open_bundle(own_bundle)


def test_manifest_that_lists_itself(own_bundle: Path) -> None:
    list_file(own_bundle, "manifest.json", {"bytes": 1, "sha256": "00" * 32})
    with refused(BundleError, rf"manifest\.json: expected 1 bytes, got \d+{AGAIN}"):
        open_bundle(own_bundle)


# --- sizes and sums


def test_wrong_size(own_bundle: Path) -> None:
    size = (own_bundle / "model.onnx").stat().st_size
    with (own_bundle / "model.onnx").open("ab") as stream:
        stream.write(b"\0")
    with refused(BundleError, rf"model\.onnx: expected {size} bytes, got {size + 1}{AGAIN}"):
        open_bundle(own_bundle)


def test_wrong_sum(own_bundle: Path) -> None:
    content = bytearray((own_bundle / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (own_bundle / "model.onnx").write_bytes(content)
    with refused(BundleError, rf"model\.onnx: its sha256 is not the one in manifest\.json{AGAIN}"):
        open_bundle(own_bundle)


def test_empty_graph(own_bundle: Path) -> None:
    (own_bundle / "model.onnx").write_bytes(b"")
    with refused(BundleError, rf"model\.onnx: expected \d+ bytes, got 0{AGAIN}"):
        open_bundle(own_bundle)
    relist(own_bundle, "model.onnx")
    with refused(BundleError, rf"model\.onnx is empty \(0 bytes\){AGAIN}"):
        open_bundle(own_bundle)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_graph_cut_short_with_the_sum_made_to_match(own_bundle: Path, share: float) -> None:
    whole = (own_bundle / "model.onnx").read_bytes()
    (own_bundle / "model.onnx").write_bytes(whole[: int(len(whole) * share)])
    relist(own_bundle, "model.onnx")
    with refused(BundleError, rf"model\.onnx is not a whole ONNX graph{AGAIN}"):
        open_bundle(own_bundle)


def test_external_data_with_the_sum_made_to_match(own_bundle: Path) -> None:
    path = own_bundle / "model.onnx"
    onnx.save_model(
        onnx.load(path), path, save_as_external_data=True, location="w.bin", size_threshold=0
    )
    relist(own_bundle, "model.onnx")
    relist(own_bundle, "w.bin")
    with refused(BundleError, r"model\.onnx keeps weights in another file .*; export it again"):
        open_bundle(own_bundle)


def test_second_graph_is_looked_into_too(own_bundle: Path) -> None:
    (own_bundle / "model.int8.onnx").write_bytes(b"hello")
    relist(own_bundle, "model.int8.onnx")
    with refused(BundleError, rf"model\.int8\.onnx is not a whole ONNX graph{AGAIN}"):
        open_bundle(own_bundle)


@pytest.mark.parametrize(
    "facts", [None, [], "x", 3, {}, {"bytes": 3}, {"sha256": "00"}, {"bytes": "x", "sha256": ""}]
)
def test_file_without_size_or_sum(own_bundle: Path, facts: Any) -> None:
    list_file(own_bundle, "model.onnx", facts)
    with refused(BundleError, rf"manifest\.json is damaged: .*files\.model\.onnx.*{AGAIN}"):
        open_bundle(own_bundle)


# --- files that come later


def add_files(folder: Path, **kinds: bytes) -> bundle.Bundle:
    files = {f"{name}.npz": content for name, content in kinds.items()}
    return open_bundle(folder).with_files(files, {"method": "mse"})


def test_files_are_added_and_replaced(own_bundle: Path) -> None:
    before = open_bundle(own_bundle).manifest
    first = add_files(own_bundle, b=b"one", a=b"two")
    assert open_bundle(own_bundle) == first
    assert list(first.manifest.files) == ["a.npz", "b.npz", "model.onnx"]
    second = add_files(own_bundle, b=b"another")
    again = open_bundle(own_bundle)
    assert again == second
    assert list(again.manifest.files) == ["a.npz", "b.npz", "model.onnx"]
    assert (own_bundle / "b.npz").read_bytes() == b"another"
    assert (own_bundle / "a.npz").read_bytes() == b"two"
    assert again.manifest.calibration == {"method": "mse"}
    assert again.manifest.files["model.onnx"] == before.files["model.onnx"]
    assert sorted(os.listdir(own_bundle)) == ["a.npz", "b.npz", "manifest.json", "model.onnx"]


def test_no_files_only_forget_the_calibration(own_bundle: Path) -> None:
    add_files(own_bundle, a=b"one")
    open_bundle(own_bundle).with_files({}, None)
    assert open_bundle(own_bundle).manifest.calibration is None
    assert "a.npz" in open_bundle(own_bundle).manifest.files


class PowerCut(BaseException):
    """Nothing may catch this."""


@pytest.mark.parametrize("step", range(4))
@pytest.mark.parametrize("fault", [PowerCut(), OSError(errno.ENOSPC, "No space left on device")])
def test_a_bundle_opens_whatever_was_written_last(
    own_bundle: Path, step: int, fault: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_files(own_bundle, a=b"old a", b=b"old b")
    old = open_bundle(own_bundle).manifest
    replace, written = os.replace, []

    def stop(source: Path, target: Path) -> None:  # manifest, a, b, manifest
        if len(written) == step:
            raise fault
        written.append(Path(target).name)
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", stop)
        with pytest.raises(type(fault)):
            add_files(own_bundle, a=b"a new one", b=b"b new too")
    assert written == ["manifest.json", "a.npz", "b.npz", "manifest.json"][:step]
    found = open_bundle(own_bundle).manifest
    if step == 0:
        assert found == old
    else:
        assert list(found.files) == ["model.onnx"]
        assert found.calibration is None
    assert sorted(os.listdir(own_bundle)) == ["a.npz", "b.npz", "manifest.json", "model.onnx"]
    add_files(own_bundle, a=b"a new one", b=b"b new too")
    assert "b.npz" in open_bundle(own_bundle).manifest.files


def test_a_file_that_is_half_written_when_the_power_goes(
    own_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(handle: int) -> None:
        raise PowerCut

    old = open_bundle(own_bundle)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", half)
        with pytest.raises(PowerCut):
            add_files(own_bundle, a=b"new")
    assert open_bundle(own_bundle) == old


def test_engines_are_never_listed(own_bundle: Path) -> None:
    engine = own_bundle / "engines" / "openvino-int8-x86_64" / "engine.blob"
    engine.parent.mkdir(parents=True)
    engine.write_bytes(b"engine")
    sealed = seal(own_bundle, open_bundle(own_bundle).manifest)
    added = add_files(own_bundle, a=b"one")
    assert list(sealed.manifest.files) == ["model.onnx"]
    assert list(added.manifest.files) == ["a.npz", "model.onnx"]
    engine.write_bytes(b"another")  # it belongs to the machine, not to the manifest
    assert open_bundle(own_bundle) == added
    (own_bundle / "extra").mkdir()
    (own_bundle / "extra" / "engines").write_text("not that folder")
    assert "extra/engines" in seal(own_bundle, added.manifest).manifest.files
