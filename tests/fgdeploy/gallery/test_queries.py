"""Queries against an index: photos, items, codes; and their answers."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fgdeploy.bundle import sha256
from fgdeploy.core.codes import CodeFile
from fgdeploy.core.errors import DataError, IndexStoreError, UsageError
from fgdeploy.gallery import (
    Query,
    QuerySettings,
    add_photos,
    answer,
    code_queries,
    file_queries,
    find_id,
    item_queries,
    photo_queries,
)
from fgdeploy.hasher import Hasher
from fgdeploy.photos import Photo
from fgdeploy.retrieval import Index, Item
from tests.checks import refused
from tests.fgdeploy.gallery.conftest import BITS, MODEL, colour_hasher, paint


def answers(index: Index, queries: Iterable[Query], **how: Any) -> list[list[int]]:
    return [[hit.id for hit in hits] for _, hits in answer(index, queries, QuerySettings(**how))]


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
    path = str(photos[4].path.resolve())
    assert index.by_path([path]) == {}


@pytest.mark.parametrize("name", ["elsewhere.png", "-1", "1.0", "", "²"])
def test_neither_id_nor_path(name: str, index: Index, hasher: Hasher, photos: list[Photo]) -> None:
    add_photos(index, hasher, photos)
    what = name or "an empty name"
    words = rf"^{what} is neither an id nor the path of an item; see: fgdeploy index list$"
    with refused(DataError, words):
        find_id(index, name)


@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_queries_of_all_kinds_give_the_same_answers(
    index: Index,
    hasher: Hasher,
    photos: list[Photo],
    at_once: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fgdeploy.gallery.queries.QUERIES_AT_ONCE", at_once)
    add_photos(index, hasher, photos)
    codes = np.array([[n, 0, 255] for n in range(8)], np.uint8)
    expected = [[hit.id for hit in hits] for hits in index.search(codes, 4)]
    file = CodeFile(codes, [f"{n}" for n in range(8)], [""] * 8, BITS, MODEL)
    paths = [photo.path for photo in photos]
    assert answers(index, photo_queries(index, hasher, paths), k=4) == expected
    assert answers(index, code_queries(index, [bytes(c).hex() for c in codes]), k=4) == expected
    assert answers(index, file_queries(index, file), k=4) == expected
    others = [[n for n in row if n != own] for own, row in enumerate(expected, start=1)]
    assert answers(index, item_queries(index, range(1, 9)), k=3) == others
    elsewhere = answers(index, item_queries(index, [1]), k=3, where="id > 2")
    assert [len(row) for row in elsewhere] == [3]
    assert answers(index, [], k=3) == []


def test_labels_of_photos_that_are_queries(
    index: Index, hasher: Hasher, photos: list[Photo], tmp_path: Path
) -> None:
    add_photos(index, hasher, photos)
    paths = [photos[2].path]
    for folder in ("class 1", "Class 1", "class"):
        (tmp_path / folder).mkdir()
        paths.append(paint(tmp_path / folder / "a.png", (7, 7, 7)).path)
    labels = [query.label for query in photo_queries(index, hasher, paths)]
    assert labels == ["class 0", "class 1", None, None]


def test_a_query_whose_name_is_not_utf8(index: Index, hasher: Hasher, tmp_path: Path) -> None:
    bad = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    (query,) = photo_queries(index, hasher, [paint(bad, (1, 2, 3)).path])
    assert (query.code, query.label) == (bytes([1, 2, 3]), None)


def test_re_ranking_needs_hashes(index: Index, hasher: Hasher, photos: list[Photo]) -> None:
    add_photos(index, hasher, photos)
    paths = [photo.path for photo in photos]
    ranked = answer(
        index, photo_queries(index, hasher, paths), QuerySettings(k=2, rerank="asymmetric")
    )
    assert all(hit.cost == hit.distance for _, hits in ranked for hit in hits)  # all |h| are 1
    with refused(UsageError, "re-ranking needs real-valued hashes, which only photos have"):
        answers(index, item_queries(index, [1]), rerank="asymmetric")
    with refused(UsageError, "re-ranking orders the k nearest; leave out the radius"):
        QuerySettings(radius=3, rerank="asymmetric")


def test_queries_of_another_model(index: Index, photos: list[Photo]) -> None:
    file = CodeFile(np.zeros((1, 3), np.uint8), ["a"], [""], BITS, "cd" * 32)
    with (
        colour_hasher("cd" * 32) as other,
        refused(IndexStoreError, "holds 24-bit codes of model abab"),
    ):
        list(photo_queries(index, other, [photos[0].path]))
    with refused(IndexStoreError, "holds 24-bit codes of model abab"):
        list(file_queries(index, file))


@pytest.mark.parametrize("radius", [None, 24])
def test_a_photo_is_no_answer_to_itself_by_path_or_by_content(
    index: Index, hasher: Hasher, photos: list[Photo], tmp_path: Path, radius: int | None
) -> None:
    add_photos(index, hasher, photos)
    digest = sha256(photos[0].path)
    index.add([Item("/twin", bytes([0, 0, 255]), None, digest, 0)])  # id 0 is left out too
    copy = Path(shutil.copy(photos[0].path, tmp_path / "copy.png"))
    changed = paint(photos[3].path, (1, 1, 1)).path  # known by its path alone
    strange = paint(tmp_path / "the same in other bytes.bmp", (0, 0, 255)).path
    queries = [photos[0].path, copy, changed, strange]
    settings = {"k": 3, "radius": radius}
    found = answers(index, photo_queries(index, hasher, queries, exclude_self=True), **settings)
    assert not {0, 1} & {*found[0], *found[1]}
    assert 4 not in found[2]
    assert found[3][:2] == [0, 1]
    assert [len(row) for row in found] == ([3] * 4 if radius is None else [7, 7, 8, 9])
    assert answers(index, photo_queries(index, hasher, [strange]), **settings) == [found[3]]
    file = CodeFile(np.array([[0, 0, 255]] * 2, np.uint8), [str(copy), ""], ["", ""], BITS, MODEL)
    from_file = answers(index, file_queries(index, file, exclude_self=True), **settings)
    assert not {0, 1} & set(from_file[0])
    assert {0, 1} <= set(from_file[1])


def test_the_answers_to_a_photo_do_not_depend_on_its_company(
    index: Index, hasher: Hasher, photos: list[Photo], tmp_path: Path
) -> None:
    add_photos(index, hasher, photos)
    strange = paint(tmp_path / "strange.png", (0, 7, 255)).path
    settings = QuerySettings(k=2, rerank="asymmetric")
    alone = answer(index, photo_queries(index, hasher, [strange], True), settings)
    both = answer(index, photo_queries(index, hasher, [photos[2].path, strange], True), settings)
    assert [hits for _, hits in both][1] == next(hits for _, hits in alone)


def test_the_item_of_id_0_is_no_answer_to_itself(index: Index) -> None:
    index.add(Item(f"/{n}", bytes(3), id=n) for n in range(3))
    assert answers(index, item_queries(index, [0, 2]), k=2) == [[1, 2], [0, 1]]


def test_arguments_of_another_type_are_refused_in_words(
    index: Index, hasher: Hasher, photos: list[Photo]
) -> None:
    for photo in (str(photos[0].path), photos[0].path, None):
        with refused(UsageError, "expected photos in a list, got"):
            list(photo_queries(index, hasher, photo))  # type: ignore[arg-type]
        with refused(UsageError, r"expected photos as fgdeploy\.photos\.read gives them"):
            add_photos(index, hasher, photo)  # type: ignore[arg-type]
    with refused(UsageError, "expected photos as"):
        add_photos(index, hasher, [photos[0].path])  # type: ignore[list-item]
    with refused(UsageError, "expected an id or a path in text, got 5"):
        find_id(index, 5)  # type: ignore[arg-type]
    with refused(UsageError, "expected ids in a list"):
        item_queries(index, 5)  # type: ignore[arg-type]


def test_a_number_of_many_digits_is_no_id(index: Index) -> None:
    with pytest.raises(UsageError, match="expected a whole number"):
        find_id(index, "9" * 160_000)
    with pytest.raises(DataError, match="is neither an id nor the path of an item") as caught:
        find_id(index, "x" * 160_000)
    assert len(str(caught.value)) < 300
