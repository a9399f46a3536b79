"""Code files out of an index and in: what they bring, what they keep, what cannot go in."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fgdeploy.core.codes import CodeFile
from fgdeploy.core.errors import DataError, IndexStoreError
from fgdeploy.retrieval import Added, Index, Item
from fgdeploy.retrieval.store.transfer import export_items, open_export
from tests.checks import refused
from tests.fgdeploy.retrieval.samples import BITS, MODEL, brought_in

# Code files


def test_codes_paths_and_labels(three: Index, tmp_path: Path) -> None:
    target = tmp_path / "codes.npz"
    assert export_items(three, target) == 3
    file = CodeFile.load(target)
    assert file.codes.tolist() == [[0, 0, 0, 1], [0, 0, 0, 3], [0, 0, 0, 7]]
    assert (file.paths, file.labels) == (
        ["/photos/a", "/photos/b", "/photos/c"],
        ["", "moth", "owl"],
    )
    assert (file.bits, file.fingerprint) == (BITS, MODEL)
    with Index.create(tmp_path / "other.fgi", MODEL, BITS) as other:
        assert brought_in(other, target) == Added(new=3)
        assert [(i.path, i.code, i.label) for i in other.items()] == [
            (i.path, i.code, i.label) for i in three.items()
        ]
        assert brought_in(other, target) == Added(known=3)


def test_a_code_file_keeps_what_it_does_not_know(index: Index, tmp_path: Path) -> None:
    item = Item("/photos/a", b"\0\0\0\1", "moth", "sha", time="2026-01-31T12:00:00+00:00", json="1")
    index.add([item])

    def bring(code: int, label: str) -> Item:
        target = tmp_path / "codes.npz"
        codes = np.array([[0, 0, 0, code]], np.uint8)
        CodeFile(codes, ["/photos/a"], [label], BITS, MODEL).save(target)
        brought_in(index, target)
        (found,) = index.items()
        return found

    there = dataclasses.replace(item, id=1)
    assert bring(1, "moth") == there
    assert bring(1, "owl") == dataclasses.replace(there, label="owl")
    other = bring(2, "owl")  # another code is another photo, so its sha256 and time are void
    assert (other.id, other.code, other.sha256, other.json) == (1, b"\0\0\0\2", "", "1")
    assert other.time != item.time


def test_paths_from_this_folder_become_whole(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.jpg").touch()
    names = ["here.jpg", "name-of-its-own", "s3://bucket/key", "/photos/x"]
    CodeFile(np.zeros((4, 4), np.uint8), names, [""] * 4, BITS, MODEL).save(tmp_path / "c.npz")
    assert brought_in(index, tmp_path / "c.npz") == Added(new=4)
    whole = [str(tmp_path / "here.jpg"), *names[1:]]
    assert [item.path for item in index.items()] == whole
    (tmp_path / "here.jpg").unlink()
    assert brought_in(index, tmp_path / "c.npz") == Added(known=4)


@pytest.mark.parametrize(
    ("paths", "codes", "labels", "words"),
    [
        (["a", ""], [0, 0], ["", ""], "photo 2: it has no path to be known again by"),
        (["a", "a"], [0, 1], ["", ""], "photo 2: photo 1 has its path and other content"),
        (["a", "a"], [0, 0], ["x", ""], "photo 2: photo 1 has its path and other content"),
        (["a", "b\ud800"], [0, 0], ["", ""], "photo 2: its path or label is not Unicode"),
    ],
)
def test_code_files_that_cannot_go_in(
    index: Index, tmp_path: Path, paths: list[str], codes: list[int], labels: list[str], words: str
) -> None:
    packed = np.zeros((2, 4), np.uint8)
    packed[:, 3] = codes
    CodeFile(packed, paths, labels, BITS, MODEL).save(tmp_path / "c.npz")
    with refused(DataError, f"c.npz {words}.*; nothing was added$"):
        brought_in(index, tmp_path / "c.npz")
    assert len(index) == 0


def test_a_photo_twice_in_a_code_file(index: Index, tmp_path: Path) -> None:
    CodeFile(np.zeros((2, 4), np.uint8), ["a", "a"], ["", ""], BITS, MODEL).save(tmp_path / "c.npz")
    assert brought_in(index, tmp_path / "c.npz") == Added(new=1, known=1)


def test_bits_behind_the_last_in_a_code_file(tmp_path: Path) -> None:
    CodeFile(np.full((1, 2), 255, np.uint8), ["a"], [""], 12, MODEL).save(tmp_path / "c.npz")
    with (
        Index.create(tmp_path / "twelve.fgi", MODEL, 12) as index,
        refused(IndexStoreError, "codes have bits set behind bit 12; .*nothing was added$"),
    ):
        brought_in(index, tmp_path / "c.npz")


@pytest.mark.parametrize(
    "wrong",
    [
        {"codes": np.zeros((1, 3), np.uint8)},
        {"codes": np.zeros((1, 4), np.int8)},
        {"codes": np.zeros((1, 4), np.float32)},
        {"codes": np.zeros(4, np.uint8)},
        {"bits": np.int64(40)},
        {"labels": np.array([], np.str_)},
    ],
)
def test_damaged_code_files(tmp_path: Path, wrong: dict[str, Any]) -> None:
    good: dict[str, Any] = {
        "codes": np.zeros((1, 4), np.uint8),
        "paths": np.array(["a"]),
        "labels": np.array(["b"]),
        "bits": np.int64(32),
        "fingerprint": np.str_(MODEL),
    }
    np.savez(tmp_path / "c.npz", **{**good, **wrong})
    with refused(DataError, r"c\.npz: "):
        open_export(tmp_path / "c.npz")
