"""Photos into an index: hashed once, known again, moved, copied or skipped."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from fgdeploy import gallery
from fgdeploy.bundle import sha256
from fgdeploy.core.errors import FgdeployError, ImageError, IndexStoreError
from fgdeploy.gallery import (
    add_photos,
    find_id,
    open_or_create,
)
from fgdeploy.hasher import Hasher
from fgdeploy.photos import Photo
from fgdeploy.retrieval import Index, Item
from tests.checks import refused
from tests.fgdeploy.gallery.conftest import BITS, MODEL, colour_hasher, frames_run, paint


def test_photos_become_items(index: Index, hasher: Hasher, photos: list[Photo]) -> None:
    report = add_photos(index, hasher, photos)
    assert (report.added, report.known, report.skipped) == (8, 0, [])
    items = list(index.items())
    assert [item.path for item in items] == [str(photo.path.resolve()) for photo in photos]
    assert [item.code for item in items] == [bytes([n, 0, 255]) for n in range(8)]
    assert [item.label for item in items] == [photo.label for photo in photos]
    assert [item.sha256 for item in items] == [sha256(photo.path) for photo in photos]
    assert index.verify() == []
    hit = index.search(hasher.encode(photos[5].path), 1)[0][0]
    assert (hit.path, hit.distance) == (str(photos[5].path.resolve()), 0)


def test_no_photos(index: Index, hasher: Hasher) -> None:
    assert add_photos(index, hasher, []) == gallery.AddReport()


def test_a_photo_without_label(index: Index, hasher: Hasher, photos: list[Photo]) -> None:
    add_photos(index, hasher, [Photo(photos[0].path)])
    assert next(index.items()).label is None


def test_paths_are_absolute(
    index: Index, hasher: Hasher, photos: list[Photo], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos[0].path.parent)
    assert add_photos(index, hasher, [Photo(Path("0.png"))]).added == 1
    assert add_photos(index, hasher, photos[:1]).known == 1
    assert [item.path for item in index.items()] == [str(photos[0].path.resolve())]


def test_what_is_there_unchanged_is_not_hashed_again(
    index: Index, hasher: Hasher, photos: list[Photo]
) -> None:
    add_photos(index, hasher, photos[:5])
    before = list(index.items())
    assert frames_run(hasher) == 5
    report = add_photos(index, hasher, photos)
    assert (report.added, report.known, report.skipped) == (3, 5, [])
    assert frames_run(hasher) == 8
    assert list(index.items())[:5] == before
    os.utime(photos[0].path, (1, 1))  # what counts is the content, not the time
    assert add_photos(index, hasher, photos) == gallery.AddReport(known=8)
    assert frames_run(hasher) == 8


def test_what_has_changed_is_replaced_and_keeps_its_id(
    index: Index, hasher: Hasher, photos: list[Photo]
) -> None:
    add_photos(index, hasher, photos)
    ids = [item.id for item in index.items()]
    paint(photos[3].path, (9, 9, 9))
    report = add_photos(index, hasher, photos)
    assert (report.added, report.known) == (1, 7)
    items = list(index.items())
    assert [item.id for item in items] == ids
    assert items[3].code == bytes([9, 9, 9])
    assert items[3].sha256 == sha256(photos[3].path)


def test_a_new_label_is_taken_over(index: Index, hasher: Hasher, photos: list[Photo]) -> None:
    add_photos(index, hasher, photos[:1])
    add_photos(index, hasher, [Photo(photos[0].path, "corrected")])
    assert next(index.items()).label == "corrected"


def test_one_photo_listed_twice_counts_once(
    index: Index, hasher: Hasher, photos: list[Photo]
) -> None:
    report = add_photos(index, hasher, [photos[0], photos[0]])
    assert report.added == len(index) == 1


def unreadable(folder: Path) -> list[Photo]:
    (folder / "text.png").write_text("no image")
    (folder / "empty.png").touch()
    (folder / "folder.png").mkdir()
    return [Photo(folder / name) for name in ("text.png", "empty.png", "gone.png", "folder.png")]


def test_unreadable_photos_are_named_and_the_rest_goes_in(
    index: Index, hasher: Hasher, photos: list[Photo], tmp_path: Path
) -> None:
    bad = unreadable(tmp_path)
    mixed = [bad[0], *photos[:4], bad[1], bad[2], *photos[4:], bad[3]]
    report = add_photos(index, hasher, mixed)
    assert (report.added, report.known) == (8, 0)
    assert len(report.skipped) == 4
    for photo, reason in zip(bad, report.skipped, strict=True):
        assert str(photo.path) in reason
        assert "\n" not in reason
    assert [item.code for item in index.items()] == [bytes([n, 0, 255]) for n in range(8)]
    assert [item.label for item in index.items()] == [photo.label for photo in photos]
    again = add_photos(index, hasher, mixed)
    assert (again.added, again.known, again.skipped) == (0, 8, report.skipped)


def test_nothing_but_unreadable_photos(index: Index, hasher: Hasher, tmp_path: Path) -> None:
    report = add_photos(index, hasher, unreadable(tmp_path))
    assert (report.added, len(report.skipped), len(index)) == (0, 4, 0)


def test_a_photo_that_became_unreadable_keeps_its_item(
    index: Index, hasher: Hasher, photos: list[Photo]
) -> None:
    add_photos(index, hasher, photos)
    before = list(index.items())
    photos[2].path.write_text("overwritten")
    photos[6].path.unlink()
    report = add_photos(index, hasher, photos)
    assert (report.added, report.known, len(report.skipped)) == (0, 6, 2)
    assert list(index.items()) == before


def test_strict_stops_at_the_first_unreadable_photo(
    index: Index, hasher: Hasher, photos: list[Photo], tmp_path: Path
) -> None:
    bad = unreadable(tmp_path)
    with refused(ImageError, r"text\.png is not an image that can be read .*; remove it or conve"):
        add_photos(index, hasher, [*photos, bad[0]], strict=True)
    with refused(ImageError, r"gone\.png: no such file; check the path$"):
        add_photos(index, hasher, [bad[2]], strict=True)
    assert len(index) == 0


def test_what_was_written_before_an_error_stays(
    index: Index,
    hasher: Hasher,
    photos: list[Photo],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fgdeploy.gallery.adding.COMMIT_EVERY", 3)
    with refused(ImageError, "no such file"):
        add_photos(index, hasher, [*photos, Photo(tmp_path / "gone.png")], strict=True)
    assert len(index) == 6  # two batches of three; the third was not full
    report = add_photos(index, hasher, photos)
    assert (report.added, report.known) == (2, 6)


@pytest.mark.parametrize("every", [1, 2, 3, 5, 8, 100])
@pytest.mark.parametrize("batch", [1, 3, 8, 50])
def test_batches_and_transactions_change_nothing(
    every: int, batch: int, index: Index, photos: list[Photo], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fgdeploy.gallery.adding.COMMIT_EVERY", every)
    with colour_hasher(batch=batch) as hasher:
        assert add_photos(index, hasher, photos).added == 8
    assert [item.code for item in index.items()] == [bytes([n, 0, 255]) for n in range(8)]


def test_progress_counts_all_photos(index: Index, hasher: Hasher, photos: list[Photo]) -> None:
    seen: list[tuple[int, int]] = []
    add_photos(index, hasher, photos[:1])
    add_photos(index, hasher, photos, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(4, 8), (7, 8), (8, 8)]


def test_another_model_is_refused_before_anything_is_read(
    index: Index, photos: list[Photo], tmp_path: Path
) -> None:
    with (
        colour_hasher("cd" * 32) as other,
        refused(IndexStoreError, r"holds 24-bit codes of model abab.*; .* build a new index$"),
    ):
        add_photos(index, other, [*photos, Photo(tmp_path / "gone.png")], strict=True)
    assert len(index) == 0


def test_a_file_name_that_is_not_utf8(
    index: Index, hasher: Hasher, photos: list[Photo], tmp_path: Path
) -> None:
    bad = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    with contextlib.suppress(FgdeployError):
        add_photos(index, hasher, [paint(bad, (1, 2, 3)), *photos])
        assert len(index) >= len(photos)


def test_an_index_is_made_once(hasher: Hasher, tmp_path: Path) -> None:
    path = tmp_path / "new.fgi"
    index, created = open_or_create(path, hasher)
    with index:
        assert (created, index.fingerprint, index.bits) == (True, MODEL, BITS)
    index, created = open_or_create(path, hasher)
    with index:
        assert not created


def test_an_index_of_another_model_is_not_opened(index: Index) -> None:
    with (
        colour_hasher("cd" * 32) as other,
        refused(IndexStoreError, r"holds 24-bit codes of model abab.*; .* build a new index$"),
    ):
        open_or_create(index.path, other)


def test_a_folder_that_is_no_index(hasher: Hasher, tmp_path: Path) -> None:
    (tmp_path / "photos.fgi").mkdir()
    with refused(IndexStoreError, r"no index at .*photos\.fgi"):
        open_or_create(tmp_path / "photos.fgi", hasher)


def test_a_photo_that_moved_keeps_its_id(
    index: Index, hasher: Hasher, photos: list[Photo], tmp_path: Path
) -> None:
    add_photos(index, hasher, photos)
    before = list(index.items())
    (tmp_path / "owl").mkdir()
    moved = Photo(photos[3].path.rename(tmp_path / "owl" / "new.png"), "owl")
    assert add_photos(index, hasher, [moved]) == gallery.AddReport(moved=1)
    assert frames_run(hasher) == 8
    expected = dataclasses.replace(before[3], path=str(moved.path.resolve()), label="owl")
    assert list(index.items()) == [*before[:3], expected, *before[4:]]
    assert add_photos(index, hasher, [moved]) == gallery.AddReport(known=1)


def test_a_copy_is_left_out(
    index: Index, hasher: Hasher, photos: list[Photo], tmp_path: Path
) -> None:
    add_photos(index, hasher, photos)
    before = list(index.items())
    copy = Photo(tmp_path / "copy.png", "owl")
    shutil.copy(photos[3].path, copy.path)
    for _ in range(2):
        assert add_photos(index, hasher, [copy]) == gallery.AddReport(copies=1)
    assert list(index.items()) == before
    assert frames_run(hasher) == 8


def test_of_two_places_that_a_photo_moved_to_the_first_has_it(
    index: Index, hasher: Hasher, photos: list[Photo], tmp_path: Path
) -> None:
    add_photos(index, hasher, photos[:1])
    places = [Photo(tmp_path / "new.png"), Photo(tmp_path / "newer.png")]
    for place in places:
        shutil.copy(photos[0].path, place.path)
    photos[0].path.unlink()
    assert add_photos(index, hasher, places) == gallery.AddReport(moved=1, copies=1)
    assert [item.path for item in index.items()] == [str(places[0].path.resolve())]


def test_a_photo_at_an_address_has_not_moved(
    index: Index, hasher: Hasher, photos: list[Photo]
) -> None:
    there = Item("s3://bucket/0.png", bytes([0, 0, 255]), "owl", sha256(photos[0].path))
    index.add([there])
    assert add_photos(index, hasher, photos[:1]) == gallery.AddReport(copies=1)
    assert next(index.items()).path == there.path


@pytest.mark.parametrize("every", [1, 100])
def test_of_copies_that_come_together_the_first_goes_in(
    index: Index,
    hasher: Hasher,
    photos: list[Photo],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    every: int,
) -> None:
    monkeypatch.setattr("fgdeploy.gallery.adding.COMMIT_EVERY", every)
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").symlink_to(photos[0].path)
    linked = [Photo(tmp_path / name / "1.png", name) for name in ("cat", "dog")]
    assert add_photos(index, hasher, linked) == gallery.AddReport(added=1, copies=1)
    (item,) = index.items()
    assert (item.path, item.label) == (str(tmp_path / "cat" / "1.png"), "cat")
    assert find_id(index, str(tmp_path / "cat" / "1.png")) == item.id


def test_thumbnails_go_in_with_photos_where_they_are_kept(
    index: Index, hasher: Hasher, photos: list[Photo]
) -> None:
    add_photos(index, hasher, photos[:3])
    assert index.stats().thumbnails is None
    index.thumbnails.keep()
    photos[2].path.unlink()
    add_photos(index, hasher, [*photos[:2], *photos[4:]])  # two are known and get theirs
    there = {item.path: item.id or 0 for item in index.items()}
    have = index.thumbnails.read(list(there.values()))
    assert {path for path, number in there.items() if number not in have} == {str(photos[2].path)}
    with Image.open(io.BytesIO(have[there[str(photos[5].path)]])) as found:
        assert found.size == (8, 8)
        assert found.getpixel((0, 0)) == pytest.approx((5, 0, 255), abs=4)
