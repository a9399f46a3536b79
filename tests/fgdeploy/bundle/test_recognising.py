"""What is given in place of a bundle: said by what it is, with the next step."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import fgdeploy
from fgdeploy.bundle import open_bundle
from fgdeploy.bundle.packing import pack
from fgdeploy.core.errors import BundleError, UsageError
from tests.checks import refused


def make(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def test_a_pack(toy_bundle: Path, tmp_path: Path) -> None:
    path = pack(toy_bundle, tmp_path / "toy.fgdz").path
    words = r"toy\.fgdz is a packed bundle; unpack it first: fgdeploy unpack .*toy\.fgdz$"
    for opening in (open_bundle, fgdeploy.load):
        with refused(BundleError, words):
            opening(path)
    renamed = Path(shutil.copy(path, tmp_path / "toy.fgd"))
    with refused(BundleError, r"toy\.fgd is a packed bundle; unpack it first: fgdeploy unpack"):
        open_bundle(renamed)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.csv", r"a\.csv is a list of photos, not a bundle; .*fgdeploy hash .*a\.csv"),
        ("a.JPG", r"a\.JPG is a photo, not a bundle; .*fgdeploy hash .*a\.JPG"),
        ("a.onnx", r"a\.onnx is a graph alone; give the bundle"),
        ("a.npz", r"a\.npz is a file of codes, not a bundle; .*fgdeploy index import"),
        ("a.pth", r"a\.pth is a file of weights, not a bundle; .*fgdeploy export .*a\.pth"),
        ("a.safetensors", r"is a file of weights"),
        ("a{0}.png", r"a\{0\}\.png is a photo"),
        ("a.xyz", r"a\.xyz is not a bundle folder; make one with: fgdeploy export"),
    ],
)
def test_files(tmp_path: Path, name: str, words: str) -> None:
    with refused(BundleError, words):
        open_bundle(make(tmp_path, name) / name)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["index.sqlite"], "is an index, not a bundle; see it with: fgdeploy index stats .*thing"),
        (["engine.json", "e.onnx"], "is a compiled engine; give the bundle that it lies in: "),
        (["model.safetensors"], "is a training, not a bundle; .*: fgdeploy export .*thing$"),
        (["state.pt"], "is a training that is not finished; .*-o .*thing --resume"),
        (["a.fgd/manifest.json"], r"is a folder with the bundle a\.fgd in it; name the bundle"),
        (
            ["{0}.fgd/manifest.json", "b.fgd/manifest.json"],
            r"with the bundle (\{0\}|b)\.fgd and 1 more in it",
        ),
        (["1.jpg"], "is a folder of photos, not a bundle; hash them with: fgdeploy hash .*thing"),
        (["owl/1.jpg"], "is a folder of photos"),
        (["readme"], r"lacks manifest\.json; copy or export the bundle again"),
    ],
)
def test_folders(tmp_path: Path, names: list[str], words: str) -> None:
    with refused(BundleError, words):
        open_bundle(make(tmp_path / "thing", *names))


def test_pipes_and_links_to_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p.fgdz")
    (tmp_path / "gone.fgd").symlink_to(tmp_path / "nowhere")
    with refused(BundleError, r"p\.fgdz is not a bundle folder"):
        open_bundle(tmp_path / "p.fgdz")
    with refused(BundleError, r"gone\.fgd does not exist"):
        open_bundle(tmp_path / "gone.fgd")


@pytest.mark.parametrize("path", [None, 123, "", b"eet.fgd", ["eet.fgd"], True, 1.5])
def test_what_is_no_path(path: Any) -> None:
    words = "^expected the path of a bundle such as 'eet.fgd', got .*; name one$"
    for opening in (open_bundle, fgdeploy.load):
        with refused(UsageError, words):
            opening(path)
