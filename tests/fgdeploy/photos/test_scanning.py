"""The photos below a folder: in order, and nothing that is meant as a photo lost without a word."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from fgdeploy import photos
from fgdeploy.core.errors import DataError, ImageError
from fgdeploy.photos import formats
from fgdeploy.photos.scanning import scan
from tests.checks import refused


def put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_photos_are_sorted_and_hidden_and_other_files_are_not_meant(tmp_path: Path) -> None:
    wanted = ["a/1.JPG", "a/2.jpeg", "a/b/1.png", "a-b/1.webp", "b.tiff", "c.avif", "z/Z.GiF"]
    other = ["a/notes.txt", "a/.1.jpg", ".cache/1.jpg", "a/.git/1.png", "b.jpg.part", "jpg", "d.py"]
    for name in wanted + other:
        put(tmp_path / name)
    (tmp_path / "folder.jpg").mkdir()
    found = scan(tmp_path)
    assert found.found == sorted(tmp_path / name for name in wanted)
    assert found.skipped == []


def test_an_empty_folder(tmp_path: Path) -> None:
    assert scan(tmp_path).found == scan(tmp_path).skipped == []
    gone = tmp_path / "gone"
    assert scan(gone).skipped == [f"{gone}: the folder cannot be read (No such file or directory)"]


def test_class_folders_may_be_links(tmp_path: Path) -> None:
    put(tmp_path / "pool" / "1.jpg")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "gull").symlink_to(tmp_path / "pool")
    found = scan(tmp_path / "photos")
    assert found.found == [tmp_path / "photos" / "gull" / "1.jpg"]
    assert found.skipped == []


@pytest.mark.parametrize("suffix", [".CR2", ".nef", ".dng", ".arw", ".jxl", ".psd", ".Tga"])
def test_images_of_other_formats_are_named(tmp_path: Path, suffix: str) -> None:
    kept, other = put(tmp_path / "a.jpg"), put(tmp_path / f"b{suffix}")
    found = scan(tmp_path)
    assert found.found == [kept]
    (line,) = found.skipped
    assert line.startswith(f"{other} is ") and "to JPEG or " in line


@pytest.mark.parametrize("suffix", [".heic", ".HEIF", ".hif"])
def test_heic_is_read_where_the_extra_is_there_and_else_named(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = put(tmp_path / f"a{suffix}")
    monkeypatch.setattr(formats, "has_heif", lambda: True)
    assert scan(tmp_path).found == [photo]
    monkeypatch.setattr(formats, "has_heif", lambda: False)
    assert scan(tmp_path).skipped == [
        f'{photo} (HEIC) needs the package pillow-heif; run: pip install "fgdeploy[heif]"'
    ]


def test_links_that_lead_nowhere_are_named(tmp_path: Path) -> None:
    put(tmp_path / "gull" / "a.jpg")
    for name, target in (
        ("gull/b.jpg", "gone.jpg"),
        ("gull/loop.jpg", "loop.jpg"),
        ("tern", "/no/such/disk/tern"),  # a whole class
        ("gull/round", "round"),
    ):
        (tmp_path / name).symlink_to(target)
    found = scan(tmp_path)
    assert found.found == [tmp_path / "gull" / "a.jpg"]
    assert sorted(found.skipped) == [
        f"{tmp_path}/gull/b.jpg: a link to nothing (gone.jpg)",
        f"{tmp_path}/gull/loop.jpg: a link to nothing (loop.jpg)",
        f"{tmp_path}/gull/round: a link to nothing (round)",
        f"{tmp_path}/tern: a link to nothing (/no/such/disk/tern)",
    ]


@pytest.mark.parametrize("link", ["a-copy", "z-copy", "gull/up"])
def test_a_folder_is_listed_once_where_it_lies(tmp_path: Path, link: str) -> None:
    photo = put(tmp_path / "gull" / "a.jpg")
    (tmp_path / link).symlink_to(tmp_path / "gull")
    found = scan(tmp_path)
    assert found.found == [photo]
    assert found.skipped == [
        f"{tmp_path / link}: a link to {tmp_path / 'gull'}, which is listed already"
    ]


def test_names_that_are_not_utf8_are_named(tmp_path: Path) -> None:
    put(tmp_path / "a.jpg")
    odd, text = os.fsencode(tmp_path) + b"/\xff.jpg", os.fsencode(tmp_path) + b"/\xff.txt"
    for name in (odd, text):
        os.close(os.open(name, os.O_CREAT))
    os.mkdir(os.fsencode(tmp_path) + b"/caf\xe9")
    found = scan(tmp_path)
    assert [path.name for path in found.found] == ["a.jpg"]
    assert len(found.skipped) == 2
    for line in found.skipped:
        line.encode()
        assert line.endswith(": the name is not UTF-8, so it cannot be written down; rename it")


def test_folders_that_cannot_be_listed_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "gull" / "a.jpg")
    put(tmp_path / "tern" / "b.jpg")
    whole = os.scandir

    def scandir(folder: Any) -> Any:  # as for a user who is not root
        if Path(folder).name == "tern":
            raise PermissionError(13, "Permission denied")
        return whole(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    found = scan(tmp_path)
    assert found.found == [tmp_path / "gull" / "a.jpg"]
    assert found.skipped == [f"{tmp_path}/tern: the folder cannot be read (Permission denied)"]


def test_a_pipe_named_like_a_photo_is_named_and_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    assert scan(tmp_path).skipped == [f"{tmp_path}/a.jpg: neither a file nor a folder"]


# --- what a list makes of it


def test_a_list_holds_what_was_left_out(tmp_path: Path) -> None:
    put(tmp_path / "gull" / "a.jpg")
    put(tmp_path / "gull" / "b.nef")
    listing = photos.read(tmp_path)
    assert len(listing) == 1 and len(listing.skipped) == 1
    assert photos.skipped_of(listing) == list(listing.skipped)
    assert photos.skipped_of(list(listing)) == []
    with refused(ImageError, r"b\.nef is raw camera data, which is not read; develop it to JPEG"):
        photos.read(tmp_path, strict=True)
    labels = tmp_path / "labels.csv"
    labels.write_text("path,class\ngull/a.jpg,Larus\n")
    assert photos.read(tmp_path, labels).skipped == listing.skipped


def test_a_folder_of_which_nothing_can_be_read(tmp_path: Path) -> None:
    put(tmp_path / "b.nef")
    put(tmp_path / "c.nef")
    with refused(DataError, r"no images in .* that can be read; 2 cannot, the first: .*b\.nef is"):
        photos.read(tmp_path)
