"""The best classes of photos, on hand-made logits."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import fgdeploy
from fgdeploy.bundle import Manifest, Output
from fgdeploy.core.errors import BundleError, UsageError
from fgdeploy.hasher import Hasher, load
from tests.checks import ColourEngine, colour_bundle, refused
from tests.conftest import toy_manifest

NAMES = ("owl", "kite", "jay", "wren")


def _hasher(classes: int = 4, names: tuple[str, ...] = NAMES) -> Hasher:
    bundle = colour_bundle(classes=classes, names=names)
    return Hasher(bundle, ColourEngine(bundle.manifest), batch=2)


def _picture(*reds: int) -> npt.NDArray[np.uint8]:
    """Return a photo whose logits are these."""
    picture = np.zeros((8, 8, 3), np.uint8)
    picture[0, : len(reds), 0] = reds
    return picture


def test_the_best_classes_with_names_and_probabilities() -> None:
    with _hasher() as hasher:
        (found,) = hasher.classify(_picture(3, 0, 5, 4), k=3)
    assert [(one.rank, one.number, one.name) for one in found] == [
        (1, 2, "jay"),
        (2, 3, "wren"),
        (3, 0, "owl"),
    ]
    total = sum(math.exp(logit) for logit in (3, 0, 5, 4))
    assert [one.probability for one in found] == pytest.approx(
        [math.exp(logit) / total for logit in (5, 4, 3)], rel=1e-12
    )
    assert isinstance(found[0], fgdeploy.Guess)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found[0].rank = 2  # type: ignore[misc]


def test_equal_scores_stand_by_number() -> None:
    with _hasher() as hasher:
        found = hasher.classify([_picture(7, 9, 7, 9), _picture(), _picture(0, 0, 0, 1)], k=4)
    assert [[one.number for one in guesses] for guesses in found] == [
        [1, 3, 0, 2],
        [0, 1, 2, 3],
        [3, 0, 1, 2],
    ]
    assert {one.probability for one in found[1]} == {0.25}


def test_more_are_asked_for_than_there_are() -> None:
    with _hasher() as hasher:
        (found,) = hasher.classify([_picture(1)], k=99)
        assert len(found) == 4
        assert sum(one.probability for one in found) == pytest.approx(1, rel=1e-12)
        assert len(hasher.classify([_picture(1)])[0]) == 4
    with _hasher(8, ()) as many:
        assert len(many.classify([_picture(1)])[0]) == 5


def test_classes_without_names() -> None:
    with _hasher(8, ()) as hasher:
        (found,) = hasher.classify(_picture(0, 0, 0, 0, 0, 0, 9), k=1)
    assert (found[0].number, found[0].name) == (6, "class 6")


def test_no_photos_have_no_classes() -> None:
    with _hasher() as hasher:
        assert hasher.classify([]) == []


@pytest.mark.parametrize("k", [0, -1, True, 2.0, "5", None])
def test_a_number_of_classes_that_is_none(k: Any) -> None:
    with _hasher() as hasher, refused(UsageError, f"expected at least one class, got {k}; give"):
        hasher.classify([_picture(1)], k=k)


def test_a_bundle_without_logits(toy_bundle: Path) -> None:
    words = "toy.fgd gives no class logits; export it again with --logits, from weights with a cla"
    with load(toy_bundle) as hasher, refused(BundleError, words):
        hasher.classify(["a photo that nobody reads.jpg"])


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_graph_with_logits(naming_bundle: Path, backend: str) -> None:
    photos = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    with load(naming_bundle, backend) as hasher:
        found = hasher.classify(photos, k=6)
        logits = hasher.encode_full(photos).logits
    assert logits is not None
    for row, guesses in zip(logits, found, strict=True):
        assert [one.number for one in guesses] == np.argsort(-row, kind="stable").tolist()
        assert [one.name for one in guesses] == [f"kind {one.number}" for one in guesses]


@pytest.mark.parametrize(
    ("shape", "names"), [((6,), ("a", "b")), ((2, 3), ()), ((6,), tuple("abcdefg"))]
)
def test_names_that_are_not_those_of_the_logits(
    shape: tuple[int, ...], names: tuple[str, ...]
) -> None:
    plain = toy_manifest()
    outputs = {**plain.outputs, "logits": Output("float32", shape)}
    entry = dataclasses.replace(plain, outputs=outputs, classes=names).to_json()
    with refused(BundleError, rf"output logits has the shape \[.*it names {len(names)}; export"):
        Manifest.from_json(entry)
    right = dataclasses.replace(plain, outputs={**outputs, "logits": Output("float32", (6,))})
    assert Manifest.from_json(right.to_json()).classes == ()
