from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

import fgdeploy
from fgdeploy.core import codes
from fgdeploy.core.errors import BundleError, DataError, EngineError, ImageError, UsageError
from fgdeploy.engines import Outputs
from fgdeploy.hasher import Hasher, hash_all, load
from fgdeploy.photos import Photo
from tests.checks import refused
from tests.conftest import toy_manifest

COUNT = 11


def noise(seed: int, height: int = 40, width: int = 48) -> npt.NDArray[np.uint8]:
    """Return a picture (H, W, 3) of random blocks, which survive the resize."""
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    return np.asarray(blocks.repeat(-(-height // 4), 0).repeat(-(-width // 4), 1)[:height, :width])


@pytest.fixture
def hasher(toy_bundle: Path) -> Iterator[Hasher]:
    with load(toy_bundle, threads=1, batch=4) as opened:
        yield opened


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Eleven photos of different sizes, so that they take differently long to decode."""
    folder = tmp_path_factory.mktemp("photos")
    found = []
    for number in range(COUNT):
        found.append(folder / f"{number:02}.png")
        side = 40 + 97 * (number % 3)
        Image.fromarray(noise(number, side, side + 8)).save(found[-1])
    return found


@pytest.fixture(scope="module")
def expected(toy_bundle: Path, paths: list[Path]) -> npt.NDArray[np.uint8]:
    """The codes of `paths`, one at a time and without the hasher's threads."""
    with load(toy_bundle, threads=1) as opened:
        frame = opened.manifest.preprocess.frame
        return np.concatenate([opened.engine.run(frame(path)[None]).code for path in paths])


# --- what it takes


def test_codes_differ_between_photos(expected: npt.NDArray[np.uint8]) -> None:
    assert expected.dtype == np.uint8 and expected.shape == (COUNT, 2)
    assert len(np.unique(expected, axis=0)) > COUNT // 2
    assert not (expected[:, 1] & 0b1111).any()


def test_paths(hasher: Hasher, paths: list[Path], expected: npt.NDArray[np.uint8]) -> None:
    np.testing.assert_array_equal(hasher.encode(paths), expected)
    np.testing.assert_array_equal(hasher.encode([str(path) for path in paths]), expected)
    np.testing.assert_array_equal(hasher.encode(tuple(paths)), expected)
    np.testing.assert_array_equal(hasher.encode(path for path in paths), expected)


def test_arrays_and_pillow_images(
    hasher: Hasher, paths: list[Path], expected: npt.NDArray[np.uint8]
) -> None:
    pictures = [Image.open(path).copy() for path in paths]
    np.testing.assert_array_equal(hasher.encode(pictures), expected)
    np.testing.assert_array_equal(hasher.encode([np.asarray(p) for p in pictures]), expected)
    mixed: list[Any] = [paths[0], str(paths[1]), pictures[2], np.asarray(pictures[3])]
    np.testing.assert_array_equal(hasher.encode(mixed), expected[:4])


def test_one_photo_counts_as_a_list_of_one(
    hasher: Hasher, paths: list[Path], expected: npt.NDArray[np.uint8]
) -> None:
    picture = Image.open(paths[3]).copy()
    for single in (paths[3], str(paths[3]), picture, np.asarray(picture)):
        np.testing.assert_array_equal(hasher.encode(single), expected[3:4])


def test_array_of_four_axes_counts_as_photos(hasher: Hasher) -> None:
    stack = np.stack([noise(seed) for seed in range(6)])
    np.testing.assert_array_equal(hasher.encode(stack), hasher.encode(list(stack)))
    assert hasher.encode(stack[:1]).shape == (1, 2)
    assert hasher.encode(stack[:0]).shape == (0, 2)


def test_greyscale_array_is_one_photo(hasher: Hasher) -> None:
    grey = noise(0)[..., 0]
    stacked = np.stack([grey] * 3, axis=-1)
    np.testing.assert_array_equal(hasher.encode(grey), hasher.encode(stacked))


@pytest.mark.parametrize("nothing", [[], (), iter([])])
def test_nothing_gives_no_codes(hasher: Hasher, nothing: Any) -> None:
    outputs = hasher.encode_full(nothing)
    assert outputs.code.shape == (0, 2) and outputs.code.dtype == np.uint8
    assert outputs.hash.shape == (0, 12) and outputs.hash.dtype == np.float32


def test_full_outputs(hasher: Hasher, paths: list[Path]) -> None:
    outputs = hasher.encode_full(paths)
    assert outputs.hash.shape == (COUNT, 12) and outputs.hash.dtype == np.float32
    assert outputs.embedding is not None and outputs.embedding.shape == (COUNT, 8)
    assert outputs.logits is None
    np.testing.assert_array_equal(outputs.code, codes.pack(outputs.hash))


@pytest.mark.parametrize("batch", [1, 2, 3, 5, 11, 64])
def test_batch_size_does_not_change_codes(
    toy_bundle: Path, paths: list[Path], expected: npt.NDArray[np.uint8], batch: int
) -> None:
    with load(toy_bundle, batch=batch) as hasher:
        np.testing.assert_array_equal(hasher.encode(paths), expected)


def test_both_backends_give_the_same_codes(toy_bundle: Path, paths: list[Path]) -> None:
    with load(toy_bundle, "onnxruntime") as one, load(toy_bundle, "openvino") as other:
        left, right = one.encode_full(paths), other.encode_full(paths)
    np.testing.assert_array_equal(left.code, right.code)
    np.testing.assert_allclose(left.hash, right.hash, atol=1e-4)


def test_the_hasher_says_what_it_is(toy_bundle: Path) -> None:
    assert fgdeploy.load is load
    with load(str(toy_bundle)) as hasher:
        assert (hasher.bits, hasher.fingerprint, hasher.batch) == (
            12,
            toy_manifest().fingerprint,
            8,
        )
        assert hasher.manifest is hasher.bundle.manifest


# --- what it refuses


@pytest.mark.parametrize("batch", [0, -1, "8", 2.0])
def test_batch_of_nothing(toy_bundle: Path, batch: Any) -> None:
    with refused(UsageError, rf"expected a batch of at least one photo, got {batch}"):
        load(toy_bundle, batch=batch)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"backend": None}, "backend None: expected its name"),
        ({"precision": ["fp32"]}, "precision .*: expected its name"),
        ({"threads": 1.5}, "expected at least one thread, .* got 1.5"),
        ({"batch": -(10**5000)}, "got a int too long to show"),
    ],
)
def test_settings_of_other_types(toy_bundle: Path, given: dict[str, Any], words: str) -> None:
    with refused(UsageError, words):
        load(toy_bundle, **given)


def test_load_of_no_bundle(tmp_path: Path) -> None:
    with refused(BundleError, r"no\.fgd does not exist; make one with: fgdeploy export"):
        load(tmp_path / "no.fgd")


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 40, 40, 3), np.float32),
        np.zeros((40, 40, 3), np.int32),
        np.zeros((2, 40, 40, 5), np.uint8),
        np.zeros((1, 2, 40, 40, 3), np.uint8),
        np.zeros(40, np.uint8),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_wrong_arrays(hasher: Hasher, array: npt.NDArray[Any]) -> None:
    with refused(ImageError, rf"expected a uint8 array .*, got {array.dtype} \(.*\); "):
        hasher.encode(array)


def test_bgr_and_sixteen_bits_by_saying_so(toy_bundle: Path) -> None:
    frame = noise(0)
    deep = frame.astype(np.uint16) << 4
    with load(toy_bundle, "onnxruntime", bit_depth=12) as hasher:
        expected = hasher.encode(frame)
        assert not np.array_equal(hasher.encode(frame, color="bgr"), expected)
        for code in (
            hasher.encode(frame[..., ::-1], color="bgr"),
            hasher.encode(deep),
            hasher.encode(deep >> 2, bit_depth=10),
            next(hasher.stream([deep[..., ::-1]], color="bgr")).outputs.code,
        ):
            np.testing.assert_array_equal(code, expected)
        with refused(UsageError, "^color 'BGR': expected rgb or bgr$"):
            hasher.encode(frame, color="BGR")
    with refused(UsageError, r"^bit depth 3: expected 8 to 16 \(--bit-depth\)$"):
        load(toy_bundle, "onnxruntime", bit_depth=3)


def test_encoded_bytes_and_open_files(hasher: Hasher, paths: list[Path]) -> None:
    expected = hasher.encode(paths[:2])
    contents = [path.read_bytes() for path in paths[:2]]
    np.testing.assert_array_equal(hasher.encode(contents), expected)
    np.testing.assert_array_equal(hasher.encode(memoryview(contents[1])), expected[1:])
    with open(paths[0], "rb") as stream:
        np.testing.assert_array_equal(hasher.encode(stream), expected[:1])


def test_unreadable_photo_raises(hasher: Hasher, paths: list[Path]) -> None:
    with refused(ImageError, r"/none\.jpg: no such file; check the path$"):
        hasher.encode([*paths[:5], paths[0].with_name("none.jpg"), *paths[5:]])


def test_closed_hasher(toy_bundle: Path, paths: list[Path]) -> None:
    with load(toy_bundle, "onnxruntime") as hasher:
        pass
    with refused(EngineError, r"the onnxruntime engine is closed; open a new one"):
        hasher.encode(paths)
    hasher.close()


def test_hasher_closes_after_an_error(toy_bundle: Path) -> None:
    with (
        refused(ImageError, r"none\.jpg: no such file; check the path"),
        load(toy_bundle, "openvino") as hasher,
    ):
        hasher.encode("none.jpg")
    with refused(EngineError, r"the openvino engine is closed; open a new one"):
        hasher.encode(noise(0))


# --- the stream


def test_stream_gives_batches_in_order(
    hasher: Hasher, paths: list[Path], expected: npt.NDArray[np.uint8]
) -> None:
    batches = list(hasher.stream(paths))
    assert [batch.positions for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    np.testing.assert_array_equal(np.concatenate([b.outputs.code for b in batches]), expected)


def test_stream_collects_errors_and_goes_on(
    hasher: Hasher, paths: list[Path], expected: npt.NDArray[np.uint8], tmp_path: Path
) -> None:
    text = tmp_path / "text.jpg"
    text.write_text("no photo")
    sources: list[Any] = list(paths)
    sources[0], sources[4], sources[10] = text, tmp_path / "none.jpg", np.zeros(3, np.uint8)
    errors: list[tuple[int, ImageError]] = []
    batches = list(hasher.stream(sources, on_error=lambda *told: errors.append(told)))
    assert [position for position, _ in errors] == [0, 4, 10]
    for (_, error), pattern in zip(errors, ["text.jpg", "none.jpg", "uint8"], strict=True):
        assert type(error) is ImageError and pattern in str(error) and "\n" not in str(error)
    kept = [1, 2, 3, 5, 6, 7, 8, 9]
    assert [batch.positions for batch in batches] == [kept[:4], kept[4:]]
    found = np.concatenate([batch.outputs.code for batch in batches])
    np.testing.assert_array_equal(found, expected[kept])


def test_stream_of_unreadable_photos_only(hasher: Hasher) -> None:
    positions: list[int] = []
    sources = [f"none-{number}.jpg" for number in range(20)]
    assert list(hasher.stream(sources, lambda position, _: positions.append(position))) == []
    assert positions == list(range(20))


@pytest.mark.parametrize("batch", [1, 4])
def test_stream_reads_ahead_a_little_only(toy_bundle: Path, batch: int) -> None:
    picture, taken, done = noise(0), 0, 0

    def endless() -> Iterator[npt.NDArray[np.uint8]]:
        nonlocal taken
        while True:
            taken += 1
            yield picture

    with load(toy_bundle, batch=batch) as hasher:
        stream = hasher.stream(endless())
        assert taken == 0
        for hashed in stream:
            done += len(hashed.positions)
            assert taken <= done + 2 * batch
            if done >= 10 * batch:
                break
        stream.close()  # type: ignore[attr-defined]
    assert hashed.positions[-1] == 10 * batch - 1


def test_error_of_the_source_comes_through(hasher: Hasher) -> None:
    def broken() -> Iterator[npt.NDArray[np.uint8]]:
        yield noise(0)
        raise RuntimeError("the camera was unplugged")

    with pytest.raises(RuntimeError, match=r"^the camera was unplugged$"):
        hasher.encode(broken())
    assert hasher.encode(noise(0)).shape == (1, 2)


def test_error_of_on_error_comes_through(hasher: Hasher) -> None:
    def stop(position: int, error: ImageError) -> None:
        raise RuntimeError(f"stop at {position}")

    with pytest.raises(RuntimeError, match=r"^stop at 0$"):
        list(hasher.stream(["none.jpg"] * 9, stop))


# --- hash_all


def photos_of(paths: list[Path]) -> list[Photo]:
    return [Photo(path, f"class {number % 2}") for number, path in enumerate(paths)]


def test_hash_all(hasher: Hasher, paths: list[Path], expected: npt.NDArray[np.uint8]) -> None:
    told: list[tuple[int, int]] = []
    run = hash_all(hasher, photos_of(paths), progress=lambda *step: told.append(step))
    assert run.photos == photos_of(paths) and run.skipped == []
    np.testing.assert_array_equal(run.outputs.code, expected)
    assert told == [(4, 11), (8, 11), (11, 11)]


def test_hash_all_names_what_it_skips(
    hasher: Hasher, paths: list[Path], expected: npt.NDArray[np.uint8]
) -> None:
    listed = photos_of(paths)
    listed.insert(2, Photo(Path("none.jpg"), "class 0"))
    run = hash_all(hasher, listed)
    assert run.photos == photos_of(paths)
    assert run.skipped == ["none.jpg: no such file; check the path"]
    np.testing.assert_array_equal(run.outputs.code, expected)


def test_hash_all_stops_if_strict(hasher: Hasher, paths: list[Path]) -> None:
    with refused(ImageError, r"^none\.jpg: no such file; check the path$"):
        hash_all(hasher, [*photos_of(paths), Photo(Path("none.jpg"))], strict=True)


def test_hash_all_needs_one_photo_that_can_be_read(hasher: Hasher) -> None:
    listed = [Photo(Path(f"none-{number}.jpg")) for number in range(3)]
    with refused(DataError, r"none of 3 photos can be read; the first: none-0\.jpg: .*; check the"):
        hash_all(hasher, listed)


@pytest.mark.parametrize("strict", [False, True])
def test_hash_all_of_nothing(hasher: Hasher, strict: bool) -> None:
    with pytest.raises(DataError, match="photos"):
        hash_all(hasher, [], strict)


# --- engines that misbehave


def test_engine_error_stops_the_stream(
    hasher: Hasher, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(frames: npt.NDArray[np.uint8]) -> Outputs:
        raise EngineError("the device is gone; open a new one")

    monkeypatch.setattr(hasher.engine, "run", fail)
    with refused(EngineError, r"the device is gone; open a new one$"):
        list(hasher.stream(paths, on_error=lambda *_: None))
