"""The same photo in a list more than once, and how little is read to find it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fgdeploy.photos import Photo, repeats
from fgdeploy.photos.repeats import find_repeats


def photo(path: Path, content: bytes, label: str = "gull", split: str | None = None) -> Photo:
    path.write_bytes(content)
    return Photo(path, label, split)


def test_one_content_under_two_names(tmp_path: Path) -> None:
    listed = [
        photo(tmp_path / "a.jpg", b"one", "gull", "train"),
        photo(tmp_path / "b.jpg", b"one", "tern", "train"),
        photo(tmp_path / "c.jpg", b"one", "gull", "test"),
        photo(tmp_path / "d.jpg", b"two", "gull", "test"),
        photo(tmp_path / "e.jpg", b"", "gull", "test"),  # empty files are no photos
        photo(tmp_path / "f.jpg", b"", "tern", "train"),
    ]
    found = find_repeats(listed)
    assert found.labels == found.splits == [listed[:3]]
    assert found.of_labels() == (
        f"1 photo is in more than one class: {tmp_path}/a.jpg (gull) and {tmp_path}/b.jpg (tern)"
    )
    assert found.of_splits() == (
        f"1 photo is in more than one split: {tmp_path}/a.jpg (train) and {tmp_path}/c.jpg (test)"
    )
    assert find_repeats(listed, contents=False) == repeats.Repeats([], [])


def test_one_path_under_two_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first = photo(tmp_path / "a.jpg", b"one", "gull")
    again = Photo(Path("./x/../a.jpg"), "tern")
    assert find_repeats([first, again], contents=False).labels == [[first, again]]


def test_copies_that_agree_and_photos_without_split_are_fine(tmp_path: Path) -> None:
    same = [photo(tmp_path / f"{i}.jpg", b"one", "gull", "train") for i in range(2)]
    found = find_repeats([*same, *same, photo(tmp_path / "n.jpg", b"one")])
    assert found.labels == found.splits == []
    assert found.of_labels() == found.of_splits() == ""


def test_a_photo_that_is_gone_is_left_to_decoding(tmp_path: Path) -> None:
    gone = [Photo(tmp_path / "gone.jpg", label) for label in ("a", "b")]
    kept = [photo(tmp_path / f"{label}.jpg", b"one", label) for label in "ab"]
    assert find_repeats([*gone, *kept]).labels == [gone, kept]


def test_many_are_counted_and_three_named(tmp_path: Path) -> None:
    listed = [
        photo(tmp_path / f"{split}{i}.jpg", b"%d" % i, split=split)
        for i in range(5)
        for split in ("train", "test")
    ]
    words = find_repeats(listed).of_splits()
    assert words.startswith("5 photos are in more than one split: ")
    assert words.count(" and ") == 4 and words.endswith("; and 2 more")


def test_only_files_of_one_size_and_end_are_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = os.urandom(5000)
    listed = [
        photo(tmp_path / "a.jpg", b"1" + end, "a"),
        photo(tmp_path / "b.jpg", b"2" + end, "b"),
        photo(tmp_path / "c.jpg", b"3" + end[::-1], "c"),
        photo(tmp_path / "d.jpg", b"4" + end[1:], "d"),
    ]
    whole: list[str] = []
    content = repeats._content

    def read(one: Photo) -> object:
        whole.append(one.path.name)
        return content(one)

    monkeypatch.setattr(repeats, "_content", read)
    assert find_repeats(listed).labels == []
    assert whole == ["a.jpg", "b.jpg"]
