import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from fgdeploy import gallery
from fgdeploy.bundle import sha256
from fgdeploy.errors import DataError, FgdeployError, ImageError, IndexStoreError
from fgdeploy.gallery import add_photos, find_id, open_or_create
from fgdeploy.hasher import Hasher
from fgdeploy.photos import Photo
from fgdeploy.retrieval import Index
from tests.checks import ColourEngine, colour_bundle, refused

SIZE, BITS = 8, 24
MODEL = "ab" * 32


def colour_hasher(fingerprint: str = MODEL, batch: int = 3) -> Hasher:
    bundle = colour_bundle(fingerprint)
    return Hasher(bundle, ColourEngine(bundle.manifest), batch)


def frames_run(hasher: Hasher) -> int:
    assert isinstance(hasher.engine, ColourEngine)
    return hasher.engine.frames


def paint(path: Path, colour: tuple[int, int, int], label: str | None = None) -> Photo:
    Image.new("RGB", (SIZE, SIZE), colour).save(path)
    return Photo(path, label)


@pytest.fixture
def hasher() -> Iterator[Hasher]:
    with colour_hasher() as made:
        yield made


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    with Index.create(tmp_path / "gallery.fgi", MODEL, BITS) as made:
        yield made


@pytest.fixture
def photos(tmp_path: Path) -> list[Photo]:
    return [paint(tmp_path / f"{n}.png", (n, 0, 255), f"class {n % 2}") for n in range(8)]


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
    assert add_photos(index, hasher, []) == gallery.Report()


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
    assert add_photos(index, hasher, photos) == gallery.Report(known=8)
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
    monkeypatch.setattr(gallery, "COMMIT_EVERY", 3)
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
    monkeypatch.setattr(gallery, "COMMIT_EVERY", every)
    with colour_hasher(batch=batch) as hasher:
        assert add_photos(index, hasher, photos).added == 8
    assert [item.code for item in index.items()] == [bytes([n, 0, 255]) for n in range(8)]


def test_progress_ends_at_the_number_of_new_photos(
    index: Index, hasher: Hasher, photos: list[Photo]
) -> None:
    seen: list[tuple[int, int]] = []
    add_photos(index, hasher, photos[:1])
    add_photos(index, hasher, photos, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(3, 7), (6, 7), (7, 7)]


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


# Opening


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


# Naming an item


def test_an_item_is_found_by_id_and_by_path(
    index: Index, hasher: Hasher, photos: list[Photo], monkeypatch: pytest.MonkeyPatch
) -> None:
    add_photos(index, hasher, photos)
    monkeypatch.chdir(photos[0].path.parent)
    for item, photo in zip(index.items(), photos, strict=True):
        assert find_id(index, str(item.id)) == item.id
        assert find_id(index, str(photo.path)) == item.id
        assert find_id(index, photo.path.name) == item.id
        assert find_id(index, f"./{photo.path.name}") == item.id


def test_the_photo_need_not_be_there_any_more(
    index: Index, hasher: Hasher, photos: list[Photo]
) -> None:
    add_photos(index, hasher, photos)
    photos[4].path.unlink()
    number = find_id(index, str(photos[4].path))
    assert index.remove([number]) == 1
    assert str(photos[4].path.resolve()) not in index.known()


@pytest.mark.parametrize("name", ["elsewhere.png", "-1", "1.0", "", "²"])
def test_neither_id_nor_path(name: str, index: Index, hasher: Hasher, photos: list[Photo]) -> None:
    add_photos(index, hasher, photos)
    words = rf"^{name} is neither an id nor the path of an item; see: fgdeploy index list$"
    with refused(DataError, words):
        find_id(index, name)


def test_links_to_one_photo_are_photos_of_their_own(
    index: Index, hasher: Hasher, photos: list[Photo], tmp_path: Path
) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").symlink_to(photos[0].path)
    linked = [Photo(tmp_path / name / "1.png", name) for name in ("cat", "dog")]
    assert add_photos(index, hasher, linked).added == 2
    assert [(Path(item.path).parent.name, item.label) for item in index.items()] == [
        ("cat", "cat"),
        ("dog", "dog"),
    ]
    assert find_id(index, str(tmp_path / "dog" / "1.png")) == 2
