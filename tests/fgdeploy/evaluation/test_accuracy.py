"""Top-1 and top-5 accuracy, on hand-made logits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fgdeploy.core.errors import EngineError
from fgdeploy.evaluation.accuracy import NO_NAMES, Accuracy, ClassAccuracy, measure_accuracy
from fgdeploy.evaluation.protocol import evaluate_photos
from fgdeploy.hasher import Hasher
from fgdeploy.photos import Photo
from tests.checks import ColourEngine, colour_bundle, refused

NAMES = ("owl", "kite", "jay", "wren", "rook", "gull")


def _logits(*rows: tuple[int, ...]) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.array(rows, np.float32)


def test_among_the_first_and_among_the_first_five() -> None:
    logits = _logits(
        (9, 1, 2, 3, 4, 5),  # owl is the first
        (6, 5, 4, 3, 2, 1),  # gull is the last
        (1, 5, 4, 3, 2, 6),  # jay is the third
        (1, 5, 9, 3, 2, 6),  # jay is the first
    )
    labels = np.array(["owl", "gull", "jay", "jay"])
    found = measure_accuracy(logits, labels, NAMES)
    assert found == Accuracy(
        4,
        0.5,
        0.75,
        0,
        (),
        (
            ClassAccuracy("gull", 1, 0.0, 0.0),
            ClassAccuracy("jay", 2, 0.5, 1.0),
            ClassAccuracy("owl", 1, 1.0, 1.0),
        ),
    )


def test_equal_scores_stand_by_number() -> None:
    logits = np.zeros((6, 6), np.float32)
    found = measure_accuracy(logits, np.array(NAMES), NAMES)
    assert isinstance(found, Accuracy)
    assert (found.top1, found.top5) == (1 / 6, 5 / 6)
    assert [row.name for row in found.classes if row.top1] == ["owl"]
    assert [row.name for row in found.classes if not row.top5] == ["gull"]


def test_classes_that_the_model_does_not_have_are_left_out() -> None:
    logits = _logits((9, 0, 0, 0, 0, 0), (9, 0, 0, 0, 0, 0), (0, 9, 0, 0, 0, 0))
    found = measure_accuracy(logits, np.array(["owl", "a swan", "tern"]), NAMES)
    assert isinstance(found, Accuracy)
    assert (found.queries, found.top1, found.top5) == (1, 1.0, 1.0)
    assert (found.without_class, found.unknown) == (2, ("a swan", "tern"))
    assert [row.name for row in found.classes] == ["owl"]


def test_fewer_than_five_classes_have_no_top_5() -> None:
    found = measure_accuracy(_logits((1, 2, 3, 4)), np.array(["wren"]), NAMES[:4])
    assert isinstance(found, Accuracy)
    assert (found.top1, found.top5, found.classes[0].top5) == (1.0, None, None)
    five = measure_accuracy(_logits((1, 2, 3, 4, 5)), np.array(["owl"]), NAMES[:5])
    assert isinstance(five, Accuracy)
    assert (five.top1, five.top5) == (0.0, 1.0)


def test_two_classes_of_one_name_count_as_one() -> None:
    names = ("crane", "kite", "crane")  # as ImageNet has the bird and the machine
    found = measure_accuracy(_logits((0, 0, 9), (9, 0, 0)), np.array(["crane", "crane"]), names)
    assert isinstance(found, Accuracy)
    assert found.top1 == 1.0


def test_why_there_is_none() -> None:
    labels = np.array(["swan"])
    assert measure_accuracy(_logits((1, 2)), labels, ()) == NO_NAMES
    said = measure_accuracy(_logits((1, 2)), labels, NAMES[:2])
    assert (
        said == "none of the photos' classes, such as 'swan', is one of the model's, such as 'owl'"
    )


def test_logits_that_are_no_numbers() -> None:
    logits = np.full((1, 2), np.nan, np.float32)
    with refused(EngineError, "NaN or infinite class logits"):
        measure_accuracy(logits, np.array(["owl"]), NAMES[:2])


# --- of photos


@pytest.fixture
def photos(tmp_path: Path) -> list[Photo]:
    """Eight photos: the reds of the first row are their logits, two are wrong."""
    found = []
    for number in range(8):
        pixels = np.zeros((8, 8, 3), np.uint8)
        pixels[0, (number + (number > 5)) % 4, 0] = 200
        pixels[1] = 30 * number  # no two are alike
        path = tmp_path / f"{number}.png"
        Image.fromarray(pixels).save(path)
        split = "test" if number % 2 else "train"
        found.append(Photo(path, NAMES[number % 4], split))
    return found


def _hasher(classes: int, names: tuple[str, ...]) -> Hasher:
    bundle = colour_bundle(classes=classes, names=names)
    return Hasher(bundle, ColourEngine(bundle.manifest), batch=3)


def test_the_queries_are_counted(photos: list[Photo]) -> None:
    with _hasher(6, NAMES) as hasher:
        result = evaluate_photos(hasher, photos)
    assert result.accuracy is not None
    assert (result.accuracy.queries, result.accuracy.top1) == (4, 0.75)
    assert "accuracy" not in result.absent
    with _hasher(6, NAMES) as hasher:
        whole = evaluate_photos(hasher, [Photo(one.path, one.label) for one in photos])
    assert whole.accuracy is not None
    assert (whole.accuracy.queries, whole.accuracy.top1) == (8, 0.75)


def test_an_unreadable_query_is_not_counted(photos: list[Photo]) -> None:
    photos[7].path.write_text("no image")
    with _hasher(6, NAMES) as hasher:
        result = evaluate_photos(hasher, photos)
    assert result.accuracy is not None
    assert (result.accuracy.queries, result.accuracy.top1) == (3, 1.0)


def test_no_logits_or_no_names(photos: list[Photo]) -> None:
    with _hasher(0, ()) as hasher:
        plain = evaluate_photos(hasher, photos)
    assert plain.accuracy is None and "accuracy" not in plain.absent
    with _hasher(6, ()) as hasher:
        nameless = evaluate_photos(hasher, photos)
    assert nameless.accuracy is None and nameless.absent["accuracy"] == NO_NAMES
