"""Protocols by embedding: which photos are ranked, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fgdeploy.core.errors import BundleError, DataError, UsageError
from fgdeploy.evaluation.by_embedding import evaluate_embeddings
from fgdeploy.evaluation.cosine_recall import recall_by_cosine
from fgdeploy.hasher import Hasher
from fgdeploy.photos import Photo
from tests.checks import ColourEngine, colour_bundle, refused

COLOURS = {
    f"{kind}{n}": (40 * number + 9 * n, 255 - 40 * number, 30 * n)
    for number, kind in enumerate("abcde")
    for n in range(4)
}


def hasher_of(names: Sequence[str] = (), embedding: int = 3) -> Hasher:
    bundle = colour_bundle(classes=len(names), names=tuple(names), embedding=embedding)
    return Hasher(bundle, ColourEngine(bundle.manifest), 3)


@pytest.fixture
def hasher() -> Iterator[Hasher]:
    with hasher_of(("a", "b", "c")) as made:
        yield made


@pytest.fixture
def photos(tmp_path: Path) -> list[Photo]:
    """Four photos of each of five classes, two to train on."""
    for name, colour in COLOURS.items():
        Image.new("RGB", (8, 8), colour).save(tmp_path / f"{name}.png")
    return [
        Photo(tmp_path / f"{name}.png", name[0], "test" if int(name[1]) % 2 else "train")
        for name in COLOURS
    ]


def expected(names: Sequence[str]) -> dict[int, float]:
    rows = np.array([COLOURS[name] for name in names], np.float32)
    return recall_by_cosine(rows, np.array([name[0] for name in names])).recall


def test_closed_set_ranks_the_photos_of_one_split(hasher: Hasher, photos: list[Photo]) -> None:
    found = evaluate_embeddings(hasher, photos)
    names = [name for name in COLOURS if int(name[1]) % 2]
    assert found.cosine.recall == expected(names)
    assert (found.cosine.queries, found.code.queries, found.code.gallery) == (10, 10, 9)
    assert found.words == "closed-set: each of 10 photos of 5 classes against all others"
    assert 0 < found.cosine.recall[1] <= found.cosine.recall[8] == 1
    other = evaluate_embeddings(hasher, photos, query_split="train")
    assert other.cosine.recall == expected([n for n in COLOURS if not int(n[1]) % 2])


def test_closed_set_without_splits_ranks_all(hasher: Hasher, photos: list[Photo]) -> None:
    found = evaluate_embeddings(hasher, [Photo(photo.path, photo.label) for photo in photos])
    assert found.cosine.recall == expected(list(COLOURS))
    assert found.cosine.queries == 20


def test_open_set_ranks_all_photos_of_classes_that_training_did_not_know(
    hasher: Hasher, photos: list[Photo]
) -> None:
    said: list[str] = []
    found = evaluate_embeddings(hasher, photos, "open-set", notify=said.append)
    assert found.cosine.recall == expected([name for name in COLOURS if name[0] in "de"])
    assert (found.cosine.queries, found.classes, found.protocol) == (8, 2, "open-set")
    assert said == []


def test_the_second_half_of_the_classes(hasher: Hasher, photos: list[Photo]) -> None:
    said: list[str] = []
    found = evaluate_embeddings(
        hasher, photos[:16], "open-set", unseen="second-half", notify=said.append
    )
    assert found.cosine.recall == expected([name for name in COLOURS if name[0] in "cd"])
    assert said == [
        "warning: the bundle was trained on 1 of these 2 classes, so they are not unseen"
    ]
    five = evaluate_embeddings(hasher, photos, "open-set", unseen="second-half")
    assert five.classes == 2  # of five the middle one is in the first half
    with hasher_of() as nameless:
        assert evaluate_embeddings(nameless, photos, "open-set", unseen="second-half") == five


# What is refused


def test_nobody_knows_what_is_unseen(photos: list[Photo]) -> None:
    with hasher_of() as nameless:
        words = r"none\.fgd does not say which classes .* say which are unseen: --unseen second-h"
        with refused(DataError, words):
            evaluate_embeddings(nameless, photos, "open-set")


def test_all_classes_were_trained_on(hasher: Hasher, photos: list[Photo]) -> None:
    with refused(DataError, "^open-set: the bundle was trained on all of 3 classes of these phot"):
        evaluate_embeddings(hasher, photos[:12], "open-set")
    with refused(DataError, "^open-set: all photos are of one class; every ranking is perfect"):
        evaluate_embeddings(hasher, photos[:16], "open-set")


def test_bundles_and_words_that_do_not_do(hasher: Hasher, photos: list[Photo]) -> None:
    with hasher_of(embedding=0) as none, refused(BundleError, "gives no embedding; export it ag"):
        evaluate_embeddings(none, photos)
    with refused(UsageError, "^protocol half-open: expected closed-set or open-set$"):
        evaluate_embeddings(hasher, photos, "half-open")
    with refused(UsageError, "^unseen first-half: expected bundle or second-half$"):
        evaluate_embeddings(hasher, photos, "open-set", unseen="first-half")
    with refused(DataError, "^1 photo without a class; evaluation needs one for each$"):
        evaluate_embeddings(hasher, [*photos, Photo(photos[0].path)])
    with refused(DataError, "there are no photos to evaluate; check the list"):
        evaluate_embeddings(hasher, [])


def test_a_photo_in_both_splits_is_refused_where_both_are_ranked(
    hasher: Hasher, photos: list[Photo], tmp_path: Path
) -> None:
    copy = tmp_path / "copy.png"
    copy.write_bytes((tmp_path / "d0.png").read_bytes())
    given = [*photos, Photo(copy, "d", "test")]
    with refused(DataError, "--allow-leaks"):
        evaluate_embeddings(hasher, given, "open-set")
    assert evaluate_embeddings(hasher, given, "open-set", allow_leaks=True).cosine.queries == 9
    assert evaluate_embeddings(hasher, given).cosine.queries == 11
