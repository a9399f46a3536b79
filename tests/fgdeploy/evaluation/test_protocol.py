import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fgdeploy.bundle import Bundle
from fgdeploy.core.errors import DataError, ImageError
from fgdeploy.evaluation.metrics import evaluate, evaluate_in_detail
from fgdeploy.evaluation.protocol import PROTOCOLS, evaluate_photos, score_protocols, why_absent
from fgdeploy.evaluation.targets import TARGETS_FILE, Targets
from fgdeploy.hasher import Hasher
from fgdeploy.photos import Photo
from tests.checks import ColourEngine, colour_bundle, refused

SIZE = 8


@pytest.fixture
def hasher() -> Iterator[Hasher]:
    bundle = colour_bundle()
    with Hasher(bundle, ColourEngine(bundle.manifest), batch=4) as made:
        yield made


COLOURS = np.random.default_rng(0).integers(0, 256, (14, 3), dtype=np.uint8)
CLASSES = [f"class {n % 3}" for n in range(14)]


@pytest.fixture
def undivided(tmp_path: Path) -> list[Photo]:
    photos = []
    for number, (colour, name) in enumerate(zip(COLOURS, CLASSES, strict=True)):
        path = tmp_path / f"{number:02d}.png"
        Image.new("RGB", (SIZE, SIZE), tuple(colour.tolist())).save(path)
        photos.append(Photo(path, name))
    return photos


def of(photos: list[Photo], *splits: str | None) -> list[Photo]:
    """Deal the photos out to splits, in turn."""
    return [
        Photo(photo.path, photo.label, splits[number % len(splits)])
        for number, photo in enumerate(photos)
    ]


def test_undivided_photos_search_all_others(hasher: Hasher, undivided: list[Photo]) -> None:
    result = evaluate_photos(hasher, undivided, precision_at=(1, 5))
    names = np.array(CLASSES)
    assert result.scores == evaluate(COLOURS, names, COLOURS, names, True, (1, 5))
    assert (result.scores.queries, result.scores.gallery) == (14, 13)
    assert result.protocol == "each of 14 photos against all others"
    assert result.skipped == []


def test_one_split_searches_the_other(hasher: Hasher, undivided: list[Photo]) -> None:
    photos = of(undivided, "train", "test", "test", "val")
    result = evaluate_photos(hasher, photos, precision_at=(2,))
    of_queries = [n for n in range(14) if n % 4 in (1, 2)]
    of_gallery = [n for n in range(14) if n % 4 == 0]
    names = np.array(CLASSES)
    expected = evaluate(
        COLOURS[of_queries],
        names[of_queries],
        COLOURS[of_gallery],
        names[of_gallery],
        precision_at=(2,),
    )
    assert result.scores == expected
    assert result.protocol == "7 test photos against 4 train photos"


def test_splits_by_other_names(hasher: Hasher, undivided: list[Photo]) -> None:
    photos = of(undivided, "gallery", "probe")
    result = evaluate_photos(hasher, photos, "probe", "gallery")
    assert result.protocol == "7 probe photos against 7 gallery photos"
    turned = evaluate_photos(hasher, photos, "gallery", "probe")
    assert turned.protocol == "7 gallery photos against 7 probe photos"
    assert turned.scores != result.scores


def test_photos_without_split_stay_out_where_others_have_one(
    hasher: Hasher, undivided: list[Photo]
) -> None:
    result = evaluate_photos(hasher, of(undivided, "train", None, "test", None, None))
    assert result.protocol == "3 test photos against 3 train photos"


def test_unreadable_photos_are_left_out_and_named(hasher: Hasher, undivided: list[Photo]) -> None:
    photos = of(undivided, "train", "test")
    for number in (0, 3, 13):
        photos[number].path.write_text("no image")
    result = evaluate_photos(hasher, photos)
    assert result.protocol == "5 test photos against 6 train photos"
    # In the order of reading: the queries first.
    for name, reason in zip(("03.png", "13.png", "00.png"), result.skipped, strict=True):
        assert name in reason
    of_queries, of_gallery = [1, 5, 7, 9, 11], [2, 4, 6, 8, 10, 12]
    names = np.array(CLASSES)
    expected = evaluate(
        COLOURS[of_queries], names[of_queries], COLOURS[of_gallery], names[of_gallery]
    )
    assert result.scores == expected


def test_unreadable_photos_among_undivided(hasher: Hasher, undivided: list[Photo]) -> None:
    undivided[5].path.unlink()
    result = evaluate_photos(hasher, undivided)
    assert result.protocol == "each of 13 photos against all others"
    assert len(result.skipped) == 1
    kept = [n for n in range(14) if n != 5]
    names = np.array(CLASSES)[kept]
    assert result.scores == evaluate(COLOURS[kept], names, COLOURS[kept], names, True)


def test_strict_stops_at_an_unreadable_photo(hasher: Hasher, undivided: list[Photo]) -> None:
    undivided[5].path.unlink()
    for photos in (undivided, of(undivided, "train", "test")):
        with refused(ImageError, r"05\.png: no such file; check the path$"):
            evaluate_photos(hasher, photos, strict=True)


def test_progress_reaches_the_number_of_photos(hasher: Hasher, undivided: list[Photo]) -> None:
    seen: list[tuple[int, int]] = []
    evaluate_photos(hasher, undivided, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(4, 14), (8, 14), (12, 14), (14, 14)]


def test_a_photo_without_class(hasher: Hasher, undivided: list[Photo]) -> None:
    photos = [Photo(undivided[0].path), Photo(undivided[1].path), *undivided[2:]]
    with refused(DataError, "^2 photos without a class; evaluation needs one for each$"):
        evaluate_photos(hasher, photos)


def test_a_single_class(hasher: Hasher, undivided: list[Photo]) -> None:
    with refused(DataError, "^all photos are of one class; .*nothing to measure$"):
        evaluate_photos(hasher, [Photo(photo.path, "moth") for photo in undivided])


def test_a_split_that_is_not_there(hasher: Hasher, undivided: list[Photo]) -> None:
    photos = of(undivided, "train", "val")
    with refused(DataError, "^no photos of split 'test'; the list has train, val$"):
        evaluate_photos(hasher, photos)
    with refused(DataError, "^no photos of split 'base'; the list has train, val$"):
        evaluate_photos(hasher, photos, "val", "base")


def test_a_split_against_itself(hasher: Hasher, undivided: list[Photo]) -> None:
    with refused(DataError, "^queries and gallery are both 'train'; choose two splits$"):
        evaluate_photos(hasher, of(undivided, "train", "test"), "train", "train")


def test_no_photo_can_be_read(hasher: Hasher, undivided: list[Photo]) -> None:
    for photo in undivided:
        photo.path.unlink()
    words = r"^none of 14 photos can be read; the first: .*00\.png: no such file; check the path$"
    with refused(DataError, words):
        evaluate_photos(hasher, undivided)


@pytest.mark.parametrize(("split", "words"), [("test", "0 queries against 7"), ("train", "7 .* 0")])
def test_no_photo_of_one_side_can_be_read(
    split: str, words: str, hasher: Hasher, undivided: list[Photo]
) -> None:
    photos = of(undivided, "train", "test")
    for photo in photos:
        if photo.split == split:
            photo.path.unlink()
    with refused(DataError, f"^nothing to rank: {words} gallery items"):
        evaluate_photos(hasher, photos)


def test_no_photos(hasher: Hasher) -> None:
    with refused(DataError, "no photos"):
        evaluate_photos(hasher, [])


# The three protocols

NAMES = np.array(CLASSES)
QUERIES, GALLERY = (COLOURS[:6], NAMES[:6]), (COLOURS[6:], NAMES[6:])
TARGETS = Targets(
    np.array(["class 2", "class 0", "class 1", "class with a longer name"]),
    np.array([3, 1, 2, 0, 1]),
    np.random.default_rng(1).integers(0, 256, (5, 3), dtype=np.uint8),
    24,
)


def test_the_protocols_by_name() -> None:
    found = score_protocols(*QUERIES, *GALLERY, TARGETS, (1, 5), 24)
    assert tuple(found) == PROTOCOLS == ("asym_targets", "asym_sign", "symmetric")
    target_names = np.array(
        ["class with a longer name", "class 0", "class 1", "class 2", "class 0"]
    )
    expected = {
        "asym_targets": evaluate_in_detail(
            *QUERIES, TARGETS.codes, target_names, False, (1, 5), 24
        ),
        "asym_sign": evaluate_in_detail(*QUERIES, *GALLERY, False, (1, 5), 24),
        "symmetric": evaluate_in_detail(*QUERIES, *QUERIES, True, (1, 5), 24),
    }
    assert found == expected
    assert len({detail.scores.map for detail in found.values()}) == 3
    assert [detail.scores.gallery for detail in found.values()] == [5, 8, 5]


def test_protocols_that_cannot_be_measured_are_left_out_and_named() -> None:
    assert tuple(score_protocols(*QUERIES, *GALLERY, None)) == ("asym_sign", "symmetric")
    assert why_absent(QUERIES[1], None) == {
        "asym_targets": "the model brings no target codes (targets.npz)"
    }
    foreign = dataclasses.replace(TARGETS, classes=np.array(list("abcd")))
    assert tuple(score_protocols(*QUERIES, *GALLERY, foreign)) == ("asym_sign", "symmetric")
    assert why_absent(QUERIES[1], foreign) == {
        "asym_targets": "none of the 4 classes in targets.npz is one of the queries'"
    }
    one = (COLOURS[:1], NAMES[:1])
    assert tuple(score_protocols(*one, *GALLERY, TARGETS)) == ("asym_targets", "asym_sign")
    assert why_absent(one[1], TARGETS) == {"symmetric": "there is a single query photo"}
    assert why_absent(QUERIES[1], TARGETS) == {}


def test_targets_of_another_length() -> None:
    short = Targets(TARGETS.classes, TARGETS.labels, TARGETS.codes[:, :2], 16)
    with refused(DataError, "^queries have 3 bytes, the gallery 2; hash both"):
        score_protocols(*QUERIES, *GALLERY, short)


def test_the_headline_is_asym_sign(hasher: Hasher, undivided: list[Photo]) -> None:
    result = evaluate_photos(hasher, of(undivided, "train", "test"))
    assert tuple(result.protocols) == ("asym_sign", "symmetric")
    assert result.scores is result.protocols["asym_sign"].scores
    codes, names = COLOURS[1::2], NAMES[1::2]
    expected = evaluate(codes, names, codes, names, same_set=True)
    assert result.protocols["symmetric"].scores == expected
    assert tuple(result.absent) == ("asym_targets",)


def test_undivided_photos_have_one_protocol(hasher: Hasher, undivided: list[Photo]) -> None:
    result = evaluate_photos(hasher, undivided)
    assert tuple(result.protocols) == ("symmetric",)
    assert result.scores is result.protocols["symmetric"].scores
    assert result.absent == {}


def test_a_single_query(hasher: Hasher, undivided: list[Photo]) -> None:
    photos = of(undivided, "train")
    photos[3] = dataclasses.replace(photos[3], split="test")
    result = evaluate_photos(hasher, photos)
    assert tuple(result.protocols) == ("asym_sign",)
    assert (result.scores.queries, result.scores.gallery) == (1, 13)
    assert set(result.absent) == {"asym_targets", "symmetric"}


def test_a_bundle_with_targets(hasher: Hasher, undivided: list[Photo], tmp_path: Path) -> None:
    TARGETS.save(tmp_path / TARGETS_FILE)
    listed = dataclasses.replace(hasher.manifest, files={TARGETS_FILE: {}})
    hasher.bundle = Bundle(tmp_path, listed)
    result = evaluate_photos(hasher, of(undivided, "train", "test"), precision_at=(2,))
    assert tuple(result.protocols) == PROTOCOLS
    expected = evaluate(COLOURS[1::2], NAMES[1::2], TARGETS.codes, TARGETS.names, precision_at=(2,))
    assert result.protocols["asym_targets"].scores == expected
    assert result.absent == {}


def test_damaged_targets_stop_it_before_hashing(
    hasher: Hasher, undivided: list[Photo], tmp_path: Path
) -> None:
    (tmp_path / TARGETS_FILE).write_bytes(b"no zip")
    hasher.bundle = Bundle(tmp_path, dataclasses.replace(hasher.manifest, files={TARGETS_FILE: {}}))
    with refused(DataError, r"targets\.npz holds no target codes"):
        evaluate_photos(
            hasher,
            of(undivided, "train", "test"),
            progress=lambda done, total: pytest.fail("it hashed"),
        )


def test_scoring_codes_needs_numpy_alone() -> None:
    code = """
import sys
for name in ("PIL", "torch", "typer", "matplotlib", "onnxruntime"):
    sys.modules[name] = None
import numpy as np
from fgdeploy.evaluation import protocol, report, targets
codes, names = np.zeros((3, 1), np.uint8), np.array(["a", "b", "a"])
assert len(protocol.score_protocols(codes, names, codes, names, None)) == 2
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
