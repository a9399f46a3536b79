"""A new model for an index: hashed anew beside it, then one switch."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fgdeploy.core.errors import BundleError, IndexStoreError
from fgdeploy.gallery import (
    Throttle,
    embed_items,
    go_back,
    migrate,
    migrating,
    old_of,
    rehashing,
    threshold,
)
from fgdeploy.photos import thumbnail
from fgdeploy.retrieval import Index, Item
from fgdeploy.retrieval.store.making import DATABASE
from tests.checks import ColourEngine, refused
from tests.fgdeploy.gallery.conftest import MODEL, colour_hasher, frames_run, paint
from tests.fgdeploy.gallery.succession_samples import (
    NEW,
    at_once,
    filled,
    is_whole,
    new_hasher,
    rest_of,
)
from tests.fgdeploy.gallery.test_backfilling import embedding_hasher


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrating, "AT_ONCE", 4)
    monkeypatch.setattr(migrating, "_LAST", 6)


def run(path: Path, **options: object) -> migrating.MigrationReport:
    with new_hasher() as hasher:
        return migrate(path, hasher, throttle=at_once(), **options)  # type: ignore[arg-type]


def test_all_items_get_codes_of_the_new_model_and_stay_what_they_are(tmp_path: Path) -> None:
    filled(tmp_path, 11)
    path = tmp_path / "g.fgi"
    with Index.open(path) as index:
        index.remove([3])
        index.add([Item(str(tmp_path / "photos/2.png"), b"\2\11\7", "owl", json='{"lux": 3}')])
        index.add([Item("/photos/13.png", bytes(3))])
        index.remove([11, 13])  # no id up to these is given again
        before = [rest_of(item) for item in index.items()]
        report = run(path)
        assert not index.is_current()
    assert (report.switched, report.items, report.before) == (True, 10, 0)
    assert (report.rehashed.hashed, report.rehashed.lacking) == (10, {})
    with Index.open(path) as index:
        assert is_whole(index)
        assert [rest_of(item) for item in index.items()] == before
        assert index.bundle is not None and index.bundle.name == "none.fgd"
        assert not [problem for problem in index.verify() if problem.fatal]
        index.add([Item(None, bytes(3))])
        assert [item.id for item in index.items()][-1] == 14
    with Index.open(old_of(path)) as old:
        assert not is_whole(old)
        assert [rest_of(item) for item in old.items()] == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["g.fgi", "g.fgi.old", "photos"]


def test_the_old_index_can_be_put_back_and_the_new_one_again(tmp_path: Path) -> None:
    filled(tmp_path, 5)
    path = tmp_path / "g.fgi"
    with refused(IndexStoreError, "no index from before is kept at .*g.fgi.old"):
        go_back(path)
    run(path)
    with Index.open(path) as index:
        index.add([Item("/photos/9.png", b"\xf6\xf6\xf8")])
        index.remove([1])
    report = go_back(path)
    assert (report.added, report.removed, report.kept) == (1, 1, old_of(path))
    with Index.open(path) as index:
        assert not is_whole(index) and len(index) == 5
        index.add([Item("/photos/8.png", b"\x08\x09\x07")])
        assert [item.id for item in index.items()][-1] == 7  # 6 was given in the new one
    report = go_back(path)
    assert (report.added, report.removed) == (2, 1)
    with Index.open(path) as index:
        assert is_whole(index) and len(index) == 5


def test_an_index_of_the_model_already_is_left_alone(tmp_path: Path) -> None:
    filled(tmp_path, 3)
    with colour_hasher() as hasher:
        report = migrate(tmp_path / "g.fgi", hasher)
        assert (report.needless, report.switched, frames_run(hasher)) == (True, False, 0)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["g.fgi", "photos"]


def test_the_old_index_goes_where_nobody_wants_it(tmp_path: Path) -> None:
    filled(tmp_path, 3)
    assert run(tmp_path / "g.fgi", keep_old=False).kept is None
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["g.fgi", "photos"]


def test_a_second_migration_keeps_the_index_before_it(tmp_path: Path) -> None:
    filled(tmp_path, 3)
    path = tmp_path / "g.fgi"
    run(path)
    with new_hasher("ef" * 32) as third:
        assert migrate(path, third, throttle=at_once()).switched
    with Index.open(old_of(path)) as old:
        assert old.fingerprint == NEW
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["g.fgi", "g.fgi.old", "photos"]


def test_an_empty_index_changes_its_model(tmp_path: Path) -> None:
    filled(tmp_path, 0)
    assert run(tmp_path / "g.fgi").switched
    with Index.open(tmp_path / "g.fgi") as index:
        assert (index.fingerprint, len(index)) == (NEW, 0)


def test_an_index_behind_a_link(tmp_path: Path) -> None:
    filled(tmp_path, 3)
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "link.fgi").symlink_to(tmp_path / "g.fgi")
    assert run(tmp_path / "here" / "link.fgi").switched
    with Index.open(tmp_path / "here" / "link.fgi") as index:
        assert is_whole(index)
    assert (tmp_path / "here" / "link.fgi").is_symlink()


# Photos that are gone or changed


def test_items_without_a_photo_are_named_and_stop_the_switch(tmp_path: Path) -> None:
    photos = filled(tmp_path, 6)
    path = tmp_path / "g.fgi"
    photos[1].path.unlink()
    photos[2].path.write_bytes(b"cut")
    paint(photos[4].path, (200, 0, 0))
    with Index.open(path) as index:
        index.add([Item("camera://door/1", b"\1\2\3"), Item(None, b"\3\2\1")])
        report = run(path)
        assert index.is_current() and not report.switched
    assert list(report.rehashed.changed) == [3, 5]
    why = {number: reason for number, (_, reason) in report.rehashed.lacking.items()}
    assert why == {
        2: "no longer there",
        3: "another photo by now",
        5: "another photo by now",
        7: "no photo on this disk",
        8: "no photo on this disk",
    }
    paint(photos[1].path, (1, 9, 7))  # back again
    report = run(path, drop_missing=True)
    assert (report.switched, report.items, report.before) == (True, 4, 3)
    assert (report.rehashed.hashed, sorted(report.rehashed.lacking)) == (1, [3, 5, 7, 8])
    with Index.open(path) as index:
        assert is_whole(index)
        assert [item.id for item in index.items()] == [1, 2, 4, 6]
    with Index.open(old_of(path)) as old:
        assert len(old) == 8  # nothing was lost


def test_thumbnails_stand_in_for_photos_and_go_along(tmp_path: Path) -> None:
    photos = filled(tmp_path, 6, thumbnails=True)
    path = tmp_path / "g.fgi"
    with Index.open(path) as index:
        pictures = index.thumbnails.read(range(1, 7))
        assert len(pictures) == 6
    photos[1].path.unlink()
    paint(photos[4].path, (200, 0, 0))
    report = run(path)
    assert (report.switched, report.rehashed.hashed, report.rehashed.by_thumbnail) == (True, 4, 2)
    assert list(report.rehashed.changed) == [5]
    with Index.open(path) as index, new_hasher() as hasher:
        assert index.thumbnails.read(range(1, 7)) == pictures
        codes = {item.id: item.code for item in index.items()}
        for number in (2, 5):  # of the old content
            assert codes[number] == hasher.encode([pictures[number]]).tobytes()
        assert codes[1] == hasher.encode([photos[0].path]).tobytes()


def test_a_photo_that_cannot_be_read_gives_way_to_its_thumbnail(tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no photo")
    with Index.create(tmp_path / "g.fgi", MODEL, 24) as index:
        index.thumbnails.keep()
        index.add([Item(str(broken), bytes(3)), Item(str(tmp_path), bytes(3))])
        (item,) = index.get([1])
        index.thumbnails.put([item], [thumbnail(np.full((8, 8, 3), 50, np.uint8))])
    report = run(tmp_path / "g.fgi")
    assert report.rehashed.by_thumbnail == 1
    assert [why for _, why in report.rehashed.lacking.values()] == ["no file any more"]


# Embeddings


def test_embeddings_are_those_of_the_new_model(tmp_path: Path) -> None:
    filled(tmp_path, 7)
    path = tmp_path / "g.fgi"
    with Index.open(path) as index, embedding_hasher() as hasher:
        embed_items(index, hasher, "float")
    with new_hasher() as without, refused(BundleError, "gives no embedding.*--embeddings none"):
        migrate(path, without, throttle=at_once())
    with new_hasher(embedding=3) as hasher:
        assert migrate(path, hasher, throttle=at_once()).switched
        with Index.open(path) as index:
            assert index.embeddings.has(list(index.items())).all()
            assert str(index.embeddings.form).startswith("float")
            query = hasher.encode_full([tmp_path / "photos" / "3.png"])
            (hits,) = index.search(query.code, 1, embeddings=query.embedding)
            assert Path(hits[0].path or "").name == "3.png"


# Running again


def test_a_run_that_was_stopped_goes_on_and_does_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path, 10)
    path, said = tmp_path / "g.fgi", list[str]()
    bring, calls = rehashing.Rehasher.bring, []

    def stopped(self: rehashing.Rehasher, ids: list[int]) -> int:
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(ids)
        return bring(self, ids)

    monkeypatch.setattr(rehashing.Rehasher, "bring", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(path)
    monkeypatch.undo()
    with new_hasher() as hasher:
        report = migrate(path, hasher, throttle=at_once(), notify=said.append)
        assert (report.before, report.rehashed.hashed, frames_run(hasher)) == (8, 2, 2)
    assert said == [f"{path}: a migration that was begun goes on: 8 items of 10 are done"]
    with Index.open(path) as index:
        assert is_whole(index)


def test_another_bundle_begins_anew_and_says_so(tmp_path: Path) -> None:
    photos = filled(tmp_path, 4)
    path, said = tmp_path / "g.fgi", list[str]()
    photos[0].path.unlink()
    assert not run(path).switched
    with new_hasher("ef" * 32) as other:
        report = migrate(path, other, throttle=at_once(), notify=said.append)
        assert (report.before, frames_run(other)) == (0, 3)
    assert said == [f"{path}: a migration that was begun is of another bundle; beginning anew"]


def test_another_index_at_the_path_begins_anew(tmp_path: Path) -> None:
    photos = filled(tmp_path, 4)
    path, said = tmp_path / "g.fgi", list[str]()
    photos[0].path.unlink()
    assert not run(path).switched
    shutil.rmtree(path)
    shutil.rmtree(tmp_path / "photos")
    filled(tmp_path, 3)
    with new_hasher() as hasher:
        assert migrate(path, hasher, throttle=at_once(), notify=said.append).items == 3
    assert "is of an index that lay there before; beginning anew" in said[0]


@pytest.mark.parametrize("damage", ["cut", "foreign", "notes"])
def test_what_is_damaged_of_a_run_before_is_begun_anew(tmp_path: Path, damage: str) -> None:
    photos = filled(tmp_path, 4)
    path = tmp_path / "g.fgi"
    photos[0].path.unlink()
    run(path)
    place = tmp_path / ".g.fgi.migrating"
    if damage == "cut":
        os.truncate(place / "next.fgi" / DATABASE, 5000)
    elif damage == "foreign":
        shutil.rmtree(place / "next.fgi")
        Index.create(place / "next.fgi", NEW, 24).close()
    else:
        (place / "migration.json").write_text("[]")
    report = run(path, drop_missing=True)
    assert (report.switched, report.before, report.items) == (True, 0, 3)


def test_changes_since_a_run_before_are_caught_up(tmp_path: Path) -> None:
    photos = filled(tmp_path, 9)
    path = tmp_path / "g.fgi"
    photos[0].path.unlink()
    assert not run(path).switched
    with Index.open(path) as index:
        index.remove([2, 3])
        index.relabel({str(photos[4].path): "moth"})
        moved = photos[5].path.with_name("2.png")  # to the path of an item that was removed
        os.rename(photos[5].path, moved)
        (item,) = index.get([6])
        index.add([Item(str(moved), item.code, item.label, item.sha256, 6, item.time)])
        code = bytes([30, 9, 7])
        index.add([Item(str(paint(tmp_path / "photos/30.png", (30, 9, 7)).path), code)])
        index.remove([1])  # the one that had no photo
        expected = [rest_of(item) for item in index.items()]
    with new_hasher() as hasher:
        report = migrate(path, hasher, throttle=at_once())
        assert frames_run(hasher) == 1  # the new one
    assert (report.switched, report.rehashed.lacking) == (True, {})
    with Index.open(path) as index:
        assert [rest_of(item) for item in index.items()] == expected
        codes = [item.code[0] ^ 0xFF for item in index.items()]
        assert codes == [3, 4, 5, 6, 7, 8, 30]


# Throttle


def test_it_rests_by_its_share_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path, 8)
    now, rests = [0.0], list[float]()
    frames = ColourEngine._run

    def slow(self: ColourEngine, given: np.ndarray) -> object:
        now[0] += len(given)
        return frames(self, given)

    monkeypatch.setattr(ColourEngine, "_run", slow)
    with new_hasher() as hasher:
        migrate(tmp_path / "g.fgi", hasher, throttle=Throttle(0.25, lambda: now[0], rests.append))
    assert rests == [12.0, 12.0]  # four photos, a second each, are a quarter


def test_notes_say_what_a_run_is_of(tmp_path: Path) -> None:
    photos = filled(tmp_path, 2)
    photos[0].path.unlink()
    run(tmp_path / "g.fgi")
    notes = json.loads((tmp_path / ".g.fgi.migrating" / "migration.json").read_text())
    with Index.open(tmp_path / "g.fgi") as index:
        assert (notes["from"], notes["fingerprint"]) == (index.uid, NEW)


def test_a_threshold_is_measured_anew_and_not_carried_over(tmp_path: Path) -> None:
    filled(tmp_path, 60)
    path = tmp_path / "g.fgi"
    with Index.open(path) as index:
        before = threshold.measure(index, threshold.ThresholdSettings(accept=0.8, sample=30))
        threshold.keep(index, replace(before, bits=23))
    run(path)
    with Index.open(path) as index:
        found = threshold.of(index)
        assert found == threshold.measure(index, threshold.ThresholdSettings(accept=0.8))
