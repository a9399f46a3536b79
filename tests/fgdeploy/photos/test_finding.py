"""Which photos are meant: those that lie around, or those that were named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fgdeploy.core.errors import DataError, ImageError, UsageError
from fgdeploy.photos import Columns, Photo, find_photos, named_or_found, own_split
from tests.checks import refused


def put(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_no_photos_to_find(tmp_path: Path) -> None:
    put(tmp_path / "notes.txt")
    put(tmp_path / "readings.csv", "time,value\n1,2\n")
    put(tmp_path / "docs" / "a.md")
    put(tmp_path / "eet.fgd" / "a.jpg")
    put(tmp_path / "g.fgi" / "a.jpg")
    put(tmp_path / ".cache" / "a.jpg")
    put(tmp_path / "_build" / "a.jpg")
    put(tmp_path / "photos" / ".thumbs" / "a.jpg")
    put(tmp_path / "lying.jpg")
    (tmp_path / "folder.csv").mkdir()
    assert find_photos(tmp_path) is None


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("list.csv", "path,class\n", "list.csv"),
        ("list.csv", "\ufeffPath, Class ,split\n", "list.csv"),
        ("list.csv", '"class","path"\r\n', "list.csv"),
        ("photos/gull/a.jpg", "", "photos"),
        ("photos/deep/er/a.PNG", "", "photos"),
        ("photos/split.csv", "path,class,split\n", "photos/split.csv"),
    ],
)
def test_the_only_photos(tmp_path: Path, name: str, text: str, found: str) -> None:
    put(tmp_path / name, text)
    put(tmp_path / "eet.fgd" / "manifest.json")
    assert find_photos(tmp_path) == tmp_path / found


def test_a_list_inside_a_folder_of_photos_comes_first(tmp_path: Path) -> None:
    put(tmp_path / "moths" / "a" / "0.jpg")
    table = put(tmp_path / "moths" / "split.csv", "path,class,split\n")
    assert find_photos(tmp_path) == table
    table.write_text("nonsense\n")
    assert find_photos(tmp_path) == tmp_path / "moths"


def test_several_are_too_many(tmp_path: Path) -> None:
    put(tmp_path / "b.csv", "path,class\n")
    put(tmp_path / "a" / "0.jpg")
    with refused(UsageError, r"^photos lie in b\.csv, a; name one with --data$"):
        find_photos(tmp_path)


def test_two_lists_with_the_same_name_can_be_told_apart(tmp_path: Path) -> None:
    for name in ("one", "two"):
        put(tmp_path / name / "split.csv", "path,class\n")
    with refused(UsageError, r"^photos lie in one/split\.csv, two/split\.csv; name one"):
        find_photos(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00path\x00,class", b"\x00" * 50_000])
def test_a_csv_that_cannot_be_read_lists_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.csv").write_bytes(content)
    assert find_photos(tmp_path) is None


# --- named or found


def test_photos_that_are_named_are_read(tmp_path: Path) -> None:
    photo = put(tmp_path / "gull" / "a.jpg")
    told: list[str] = []
    listed = [Photo(Path("any.jpg"))]
    for named in (tmp_path, str(tmp_path)):
        assert named_or_found(named, "to look at", told.append) == [Photo(photo, "gull")]
    assert named_or_found(listed, "to look at", told.append) is listed
    assert told == []


def test_else_those_in_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    told: list[str] = []
    with refused(UsageError, r"^there are no photos here to look at; name real ones with --data$"):
        named_or_found(None, "to look at", told.append)
    put(tmp_path / "birds" / "gull" / "a.jpg")
    assert named_or_found(None, "to look at", told.append) == [
        Photo(Path("birds/gull/a.jpg"), "gull")
    ]
    assert told == ["photos to look at: birds, the only ones here"]
    with refused(DataError, "no folder, image or CSV at gone"):
        named_or_found("gone", "to look at")


def test_columns_and_strictness_go_along(tmp_path: Path) -> None:
    put(tmp_path / "a.jpg")
    table = put(tmp_path / "list.csv", "file;kind\na.jpg;gull\na.jpg;tern\n")
    told: list[str] = []
    found = named_or_found(table, "to see", told.append, columns=Columns("file", "kind"))
    assert [photo.label for photo in found] == ["gull", "tern"]
    assert told == [
        f"warning: 1 photo is in more than one class: {tmp_path}/a.jpg (gull) and "
        f"{tmp_path}/a.jpg (tern)"
    ]
    put(tmp_path / "b.nef")
    with refused(ImageError, "raw camera data"):
        named_or_found(tmp_path, "to see", strict=True)


# --- the list of a training


def test_the_list_of_a_training_counts_where_nothing_else_is_there(tmp_path: Path) -> None:
    put(tmp_path / "eet-run" / "model.safetensors")
    split = put(tmp_path / "eet-run" / "split.csv", "path,class,split\n")
    assert find_photos(tmp_path) == split
    table = put(tmp_path / "list.csv", "path,class\n")
    assert find_photos(tmp_path) == table


def test_a_model_finds_the_list_of_its_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = put(tmp_path / "runs" / "eet-run" / "split.csv", "path,class,split\na.jpg,gull,train\n")
    put(tmp_path / "runs" / "eet-run" / "a.jpg")
    assert own_split("eet-run", tmp_path, tmp_path / "runs") == split
    for name in ("gone", "", "..", "runs/eet-run", None, 3):
        assert own_split(name, tmp_path, tmp_path / "runs") is None
    put(tmp_path / "list.csv", "path,class\n")
    monkeypatch.chdir(tmp_path)
    told: list[str] = []
    assert named_or_found(None, "to see", told.append, own=split)[0].label == "gull"
    assert told == [f"photos to see: {split}, the list of this model's training"]


@pytest.mark.parametrize("given", [3, [1, 2], [None], ["a.jpg"], {"a.jpg": 1}])
def test_what_is_no_list_of_photos(given: Any) -> None:
    with refused(UsageError, r"photos to try with: expected a path or a list of photos .*Photo"):
        named_or_found(given, "to try with")
