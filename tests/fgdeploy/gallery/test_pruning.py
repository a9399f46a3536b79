"""Items whose photo is gone, and folders that may only be on a disk that is not mounted."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from fgdeploy.core.errors import DataError
from fgdeploy.gallery import gone, prune, pruning
from fgdeploy.retrieval import Index, Item
from tests.checks import refused
from tests.fgdeploy.gallery.conftest import BITS

CODE = bytes(BITS // 8)


@pytest.fixture
def birds(tmp_path: Path, index: Index) -> Path:
    """Photos in two folders, `owl` and `hawk`, two in each, all in the index."""
    root = tmp_path / "birds"
    for label in ("owl", "hawk"):
        (root / label).mkdir(parents=True)
        for name in ("1.jpg", "2.jpg"):
            (root / label / name).write_bytes(b"photo")
    index.add(Item(str(path), CODE) for path in sorted(root.rglob("*.jpg")))
    return root


def left(index: Index) -> list[str]:
    return [f"{Path(i.path).parent.name}/{Path(i.path).name}" for i in index.items() if i.path]


def test_nothing_is_gone(birds: Path, index: Index) -> None:
    found = gone(index)
    assert (found.items, found.unsure) == ([], [])
    assert prune(index, found) == 0


def one(birds: Path) -> None:
    (birds / "owl" / "1.jpg").unlink()


def all_of_a_class(birds: Path) -> None:
    for photo in (birds / "owl").iterdir():
        photo.unlink()


def a_class(birds: Path) -> None:
    shutil.rmtree(birds / "owl")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (one, ["hawk/1.jpg", "hawk/2.jpg", "owl/2.jpg"]),
        (all_of_a_class, ["hawk/1.jpg", "hawk/2.jpg"]),
        (a_class, ["hawk/1.jpg", "hawk/2.jpg"]),
    ],
)
def test_deleted_photos_go(
    change: Callable[[Path], None], expected: list[str], birds: Path, index: Index
) -> None:
    change(birds)
    found = gone(index)
    assert len(index) == 4  # looking changes nothing
    assert found.unsure == []
    assert prune(index, found) == len(found.items) == 4 - len(expected)
    assert left(index) == expected


def moved_away(birds: Path) -> None:
    os.rename(birds, birds.with_name("elsewhere"))


def emptied(birds: Path) -> None:
    """Leave what a mount point is when nothing is mounted there."""
    moved_away(birds)
    birds.mkdir()


def a_file_in_its_place(birds: Path) -> None:
    moved_away(birds)
    birds.write_text("mine")


@pytest.mark.parametrize("change", [moved_away, emptied, a_file_in_its_place])
def test_a_missing_root_is_no_deletion_unless_told(
    change: Callable[[Path], None], birds: Path, index: Index
) -> None:
    change(birds)
    found = gone(index)
    words = (
        r"^whole folders are gone, with 4 of 4 missing photos, such as .*hawk/1\.jpg; nothing was "
        "removed; mount the disk if it is not, or say --missing-folders$"
    )
    with refused(DataError, words):
        prune(index, found)
    assert len(index) == 4
    assert prune(index, found, missing_folders=True) == 4
    assert len(index) == 0


def test_photos_on_another_disk_do_not_vouch(
    birds: Path, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`owl` was a disk of its own, and so is `hawk`, which is still mounted."""
    stat = os.stat

    def with_disks(path: str) -> SimpleNamespace:
        return SimpleNamespace(st_dev=7 if "hawk/" in path else stat(path).st_dev)

    all_of_a_class(birds)
    monkeypatch.setattr(pruning, "os", SimpleNamespace(**{**vars(os), "stat": with_disks}))
    assert len(gone(index).unsure) == 2


def test_a_link_whose_target_is_gone_is_not_sure(birds: Path, index: Index, tmp_path: Path) -> None:
    shutil.move(birds / "owl" / "1.jpg", tmp_path / "disk.jpg")
    (birds / "owl" / "1.jpg").symlink_to(tmp_path / "disk.jpg")
    assert gone(index).items == []
    (tmp_path / "disk.jpg").unlink()
    found = gone(index)
    assert len(found.items) == len(found.unsure) == 1


def test_what_has_no_photo_stays(index: Index) -> None:
    index.add([Item(None, CODE), Item("s3://bucket/1.jpg", CODE), Item("/n\0ul.jpg", CODE)])
    assert gone(index).items == []


def test_a_filter_says_where_to_look(birds: Path, index: Index) -> None:
    (birds / "owl" / "1.jpg").unlink()
    (birds / "hawk" / "1.jpg").unlink()
    found = gone(index, "path like '%/owl/%'")
    assert (prune(index, found), left(index)) == (1, ["hawk/1.jpg", "hawk/2.jpg", "owl/2.jpg"])
