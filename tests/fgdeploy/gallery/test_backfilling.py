"""Embeddings of items: with the photos that are added, and made again for those that lack them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fgdeploy.core.errors import BundleError, DataError, ImageError, IndexStoreError, UsageError
from fgdeploy.gallery import (
    QuerySettings,
    add_photos,
    answer,
    code_queries,
    embed_items,
    item_queries,
    photo_queries,
)
from fgdeploy.hasher import Hasher
from fgdeploy.photos import Photo
from fgdeploy.retrieval import Index, Item
from tests.checks import ColourEngine, colour_bundle, refused
from tests.fgdeploy.gallery.conftest import colour_hasher, frames_run, paint

WIDTH = 3  # a colour


def embedding_hasher(width: int = WIDTH, fingerprint: str = "ab" * 32) -> Hasher:
    bundle = colour_bundle(fingerprint, embedding=width)
    return Hasher(bundle, ColourEngine(bundle.manifest), 3)


@pytest.fixture
def embedder() -> Iterator[Hasher]:
    with embedding_hasher() as made:
        yield made


def ranked(index: Index, hasher: Hasher, photo: Path, k: int = 8) -> list[tuple[str, float]]:
    """Return names and costs of the answers to a photo, by embedding."""
    settings = QuerySettings(k, rerank="embedding")
    ((_, hits),) = answer(index, photo_queries(index, hasher, [photo]), settings)
    return [(Path(hit.path or "").name, hit.cost or 0.0) for hit in hits]


def right(index: Index, hasher: Hasher, photos: list[Photo]) -> None:
    """Photo n is of the colour (n, 0, 255): the nearer in n, the smaller the angle."""
    found = ranked(index, hasher, photos[3].path)
    colours = np.array([[n, 0, 255] for n in range(8)], np.float64)
    unit = colours / np.linalg.norm(colours, axis=1, keepdims=True)
    costs = 1 - unit @ unit[3]
    order = sorted(range(8), key=lambda n: costs[n])
    assert [name for name, _ in found] == [f"{n}.png" for n in order]
    assert [cost for _, cost in found] == pytest.approx(costs[order], abs=1e-15)


def test_added_photos_bring_their_embeddings(
    index: Index, embedder: Hasher, photos: list[Photo]
) -> None:
    index.embeddings.keep("float", WIDTH)
    add_photos(index, embedder, photos)
    assert index.verify() == []
    right(index, embedder, photos)
    paint(photos[0].path, (200, 200, 0))
    report = add_photos(index, embedder, photos)
    assert (report.added, report.known) == (1, 7)
    assert index.verify() == []
    name, cost = ranked(index, embedder, photos[0].path)[0]
    assert (name, cost) == ("0.png", pytest.approx(0, abs=1e-15))


def test_copies_and_unreadable_photos_do_not_shift_them(
    index: Index, embedder: Hasher, photos: list[Photo], tmp_path: Path
) -> None:
    index.embeddings.keep("float", WIDTH)
    bad, copy = tmp_path / "bad.png", tmp_path / "copy.png"
    bad.write_bytes(b"no photo")
    copy.write_bytes(photos[2].path.read_bytes())
    given = [photos[0], Photo(bad), *photos[1:3], Photo(copy), *photos[3:]]
    report = add_photos(index, embedder, given)
    assert (report.added, report.copies, len(report.skipped)) == (8, 1, 1)
    right(index, embedder, photos)


@pytest.mark.parametrize("kind", ["float", "int8"])
def test_an_index_of_before_gets_them_from_its_photos(
    kind: str, index: Index, embedder: Hasher, photos: list[Photo]
) -> None:
    add_photos(index, embedder, photos)
    seen: list[tuple[int, int]] = []
    report = embed_items(index, embedder, kind, progress=lambda *done: seen.append(done))
    assert (report.embedded, report.known, report.skipped, report.mended) == (8, 0, [], [])
    assert seen == [(8, 8)]
    assert index.verify() == []
    if kind == "float":
        right(index, embedder, photos)
    before = frames_run(embedder)
    report = embed_items(index, embedder)
    assert (report.embedded, report.known) == (0, 8)
    assert frames_run(embedder) == before
    other = "int8" if kind == "float" else "float"
    assert embed_items(index, embedder, other).embedded == 8


def test_damage_is_given_up_and_made_again(
    index: Index, embedder: Hasher, photos: list[Photo]
) -> None:
    index.embeddings.keep("float", WIDTH)
    add_photos(index, embedder, photos)
    index.close()
    (victim,) = index.path.glob("embeddings-*.rows")
    victim.write_bytes(victim.read_bytes()[:-1])
    with Index.open(index.path) as again:
        with refused(IndexStoreError, "nothing can be ranked by embeddings; search without, or"):
            ranked(again, embedder, photos[3].path)
        report = embed_items(again, embedder)
        assert report.embedded == 8
        assert [victim.name in line for line in report.mended] == [True]
        right(again, embedder, photos)


def test_photos_that_are_gone_or_have_changed_are_named(
    index: Index, embedder: Hasher, photos: list[Photo]
) -> None:
    add_photos(index, embedder, photos)
    index.add([Item("s3://far/9.png", b"abc", sha256="far"), Item(None, b"abd")])
    photos[1].path.unlink()
    paint(photos[2].path, (9, 9, 9))
    report = embed_items(index, embedder, "float")
    assert report.embedded == 6
    assert report.skipped == [
        f"{photos[1].path}: no longer there",
        f"{photos[2].path}: another photo by now; add it with: fgdeploy index add",
        "item 9: no photo on this disk",
        "item 10: no photo on this disk",
    ]
    with refused(IndexStoreError, "item 2 has no embedding, so it cannot be ranked; make those"):
        ranked(index, embedder, photos[3].path, 20)
    with refused(DataError, "1.png: no longer there; nothing after it was embedded"):
        embed_items(index, embedder, strict=True)
    for number in (2, 9, 10):
        index.remove([number])
    add_photos(index, embedder, photos[2:3])
    assert len(ranked(index, embedder, photos[3].path, 20)) == 7
    assert embed_items(index, embedder, strict=True).known == 7


def test_a_photo_that_cannot_be_read(index: Index, embedder: Hasher, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no photo")
    index.add([Item(str(broken), b"abc")])
    report = embed_items(index, embedder, "float")
    assert (report.embedded, len(report.skipped)) == (0, 1)
    with refused(ImageError, "broken.png"):
        embed_items(index, embedder, strict=True)


# What is refused


def test_no_kind(index: Index, embedder: Hasher) -> None:
    with refused(UsageError, r"g\S+ keeps no embeddings; say how: --embeddings float or int8$"):
        embed_items(index, embedder)
    with refused(UsageError, "^embeddings as half: expected float or int8$"):
        embed_items(index, embedder, "half")


def test_another_model_or_width_or_no_embedding(
    index: Index, embedder: Hasher, hasher: Hasher, photos: list[Photo]
) -> None:
    with (
        colour_hasher("cd" * 32) as other,
        refused(IndexStoreError, "these are 24-bit codes of model cdcdcdcdcdcd"),
    ):
        embed_items(index, other, "float")
    with refused(BundleError, r"none\.fgd gives no embedding; export it again"):
        embed_items(index, hasher, "float")
    assert index.embeddings.form is None
    add_photos(index, hasher, photos)
    embed_items(index, embedder, "float")
    with refused(BundleError, "gives no embedding; export it again"):
        add_photos(index, hasher, photos)
    with refused(UsageError, "re-ranking needs embeddings, which only photos have, by a bundle"):
        ranked(index, hasher, photos[0].path)
    with embedding_hasher(5) as wide:
        words = "keeps embeddings of 3 values, the bundle gives 5; use the bundle that built"
        with refused(IndexStoreError, words):
            add_photos(index, wide, photos)
        with refused(IndexStoreError, words):
            embed_items(index, wide)


def test_only_photos_have_embeddings(index: Index, embedder: Hasher, photos: list[Photo]) -> None:
    index.embeddings.keep("float", WIDTH)
    add_photos(index, embedder, photos)
    settings = QuerySettings(rerank="embedding")
    for queries in (item_queries(index, [1]), code_queries(index, ["abcdef"])):
        with refused(UsageError, "re-ranking needs embeddings, which only photos have"):
            list(answer(index, queries, settings))


def test_settings() -> None:
    with refused(UsageError, "^rerank cosine: expected asymmetric or embedding$"):
        QuerySettings(rerank="cosine")
    with refused(UsageError, "re-ranking orders the k nearest; leave out the radius"):
        QuerySettings(radius=3, rerank="embedding")
    with refused(UsageError, "^pool 20: nothing is re-ranked; leave it out$"):
        QuerySettings(pool=20)
    with refused(UsageError, "^pool 5: expected k, 10, or more$"):
        QuerySettings(rerank="embedding", pool=5)


def test_itself_is_left_out_of_the_pool(
    index: Index, embedder: Hasher, photos: list[Photo]
) -> None:
    index.embeddings.keep("float", WIDTH)
    add_photos(index, embedder, photos)
    queries = list(photo_queries(index, embedder, [photos[3].path], exclude_self=True))
    for k, pool in ((2, 2), (7, None), (3, 4)):
        settings = QuerySettings(k, rerank="embedding", pool=pool)
        ((_, hits),) = answer(index, queries, settings)
        assert len(hits) == k
        assert 4 not in [hit.id for hit in hits]
