"""Calibrations of a bundle: whole or not at all, kept while they fit, repaired where they must."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import onnx
import pytest

from fgdeploy.bundle import GRAPHS, MANIFEST, Bundle, checks, open_bundle, seal
from fgdeploy.calibration import cache, int8_plan, qdq, sample
from fgdeploy.calibration.calibration_settings import CalibrationSettings
from fgdeploy.calibration.calibrator import Calibrated, calibrate
from fgdeploy.calibration.half import to_half
from fgdeploy.core import atomic
from fgdeploy.core.errors import BundleError, DataError, ExportError, ParityError, UsageError
from fgdeploy.photos import Photo
from fgdeploy.proof.parity import Limits
from tests.calibration.conftest import LOOSE, PLAIN, SETTINGS
from tests.calibration.graphs import run
from tests.checks import refused

WRITTEN = {*GRAPHS.values(), cache.FILE, checks.FILE} - {GRAPHS["fp8"]}
IMPOSSIBLE = Limits(max_hash_diff=0.0)


def _state(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return the time and the bytes of every file."""
    return {
        path.name: (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.iterdir()
        if path.is_file()
    }


def _train(moths: list[Photo]) -> list[Photo]:
    return [photo for photo in moths if photo.split == "train"]


def test_what_is_written(calibrated: Calibrated, rough: Path) -> None:
    path = calibrated.bundle.path
    assert open_bundle(path) == calibrated.bundle
    listed = calibrated.bundle.manifest.files
    assert set(listed) == WRITTEN | {"card.json", "head.npz"}
    assert {name for name in _state(path)} == {*listed, MANIFEST}
    assert (path / "model.onnx").read_bytes() == (rough / "model.onnx").read_bytes()
    before = open_bundle(rough).manifest
    changed = dataclasses.replace(
        calibrated.bundle.manifest, files=before.files, calibration=before.calibration
    )
    assert changed == before
    assert calibrated.bundle.manifest.calibration == calibrated.record.summary()
    assert cache.read(calibrated.bundle) == calibrated.record


def test_the_graphs_are_one_set_of_numbers(calibrated: Calibrated) -> None:
    graphs = {key: onnx.load(calibrated.bundle.graph(key)) for key in GRAPHS if key != "fp8"}
    made = int8_plan.restore(graphs["fp32"], graphs["int8"], calibrated.record.balances())
    assert qdq.write(made) == graphs["int8"]
    assert qdq.write(made, (), True) == graphs["int8-u8"]
    assert to_half(graphs["int8"]) == graphs["int8-fp16"]
    assert to_half(graphs["fp32"]) == graphs["fp16"]


def test_checks_go_along(calibrated: Calibrated) -> None:
    held = checks.read(calibrated.bundle)
    assert held is not None
    assert held.frames.shape == (16, 64, 64, 3)
    got = run(onnx.load(calibrated.bundle.graph()), held.frames, ["hash", "code"])
    assert np.allclose(held.hashes, got["hash"], atol=1e-5)
    assert (np.packbits(held.hashes > 0, axis=1) == held.codes).all()
    int8 = run(onnx.load(calibrated.bundle.graph("int8-u8")), held.frames, ["code"])["code"]
    assert (held.int8 == int8).all() and (held.int8 != held.codes).any()


def test_what_is_told(calibrated: Calibrated) -> None:
    assert calibrated.limits == LOOSE
    assert calibrated.repair is None
    assert calibrated.first == calibrated.int8
    assert calibrated.int8 is not None and calibrated.fp16 is not None
    assert dataclasses.asdict(calibrated.int8) == calibrated.record.parity
    assert calibrated.int8.bit_agreement > 0.95
    assert calibrated.fp16.bit_agreement > 0.99
    assert calibrated.fp16.mean_hash_diff < calibrated.int8.mean_hash_diff
    assert not calibrated.reused
    assert list(calibrated.skipped) == []
    few, alike = calibrated.warnings
    assert few.startswith("only 16 photos calibrate")
    assert "of bits apart" in alike


def test_the_same_photos_and_seed_give_the_same_bytes(
    calibrated: Calibrated, own: Bundle, moths: list[Photo]
) -> None:
    calibrate(own, moths, SETTINGS, LOOSE)
    one, two = (_state(bundle.path) for bundle in (calibrated.bundle, own))
    assert {name: content for name, (_, content) in one.items()} == {
        name: content for name, (_, content) in two.items()
    }


def test_progress_has_a_bar_for_each_step(quick: None, own: Bundle, moths: list[Photo]) -> None:
    told: dict[str, list[tuple[int, int]]] = {}
    said: list[str] = []
    calibrate(
        own,
        moths,
        PLAIN,
        LOOSE,
        notify=said.append,
        bars=lambda label: lambda done, total: told.setdefault(label, []).append((done, total)),
    )
    steps = ["observing", "reading checks", "running fp32", "checking INT8", "checking FP16"]
    assert list(told) == steps
    assert all(counts[-1] == (16, 16) for counts in told.values())
    few, alike = said
    assert few.startswith("only 16 photos")
    assert "of bits apart" in alike


@pytest.fixture
def quick(plain: int8_plan.Int8Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a plan that is made already, for tests of what comes after."""

    def make(model: Any, batches: list[Any], *rest: Any) -> int8_plan.Int8Plan:
        assert model == plain.model
        assert sum(map(len, batches)) >= 8
        return plain

    monkeypatch.setattr(int8_plan, "make", make)


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail if anything is observed."""

    def make(*rest: Any) -> int8_plan.Int8Plan:
        raise AssertionError("observed again")

    monkeypatch.setattr(int8_plan, "make", make)


# Kept or made anew


def test_a_second_call_writes_nothing(
    no_work: None, own_calibrated: Path, moths: list[Photo]
) -> None:
    before = _state(own_calibrated)
    bundle = open_bundle(own_calibrated)
    done = calibrate(bundle, moths, SETTINGS, LOOSE)
    assert done.reused
    assert done.bundle == bundle
    assert done.record == cache.read(bundle)
    assert (done.first, done.int8, done.fp16, done.repair) == (None, None, None, None)
    assert _state(own_calibrated) == before


def test_names_of_photos_do_not_matter(
    no_work: None, own_calibrated: Path, moths: list[Photo], tmp_path: Path
) -> None:
    moved = []
    for photo in moths:
        target = tmp_path / "moved" / f"{len(moved):03d}.jpg"
        target.parent.mkdir(exist_ok=True)
        shutil.copy(photo.path, target)
        moved.append(dataclasses.replace(photo, path=target))
    assert calibrate(open_bundle(own_calibrated), moved, SETTINGS, LOOSE).reused


@pytest.mark.parametrize("what", ["again", "seed", "range", "limits", "photos"])
def test_another_calibration_is_made(
    quick: None, own_calibrated: Path, moths: list[Photo], what: str
) -> None:
    bundle, before = open_bundle(own_calibrated), _state(own_calibrated)
    settings, limits = SETTINGS, LOOSE
    if what in ("seed", "range"):
        changes: dict[str, Any] = {"seed": {"seed": 1}, "range": {"range": "minmax"}}[what]
        settings = dataclasses.replace(SETTINGS, **changes)
    if what == "limits":
        limits = Limits(min_bit_agreement=0.4)
    if what == "photos":
        moths = _train(moths)[1:]
    done = calibrate(bundle, moths, settings, limits, again=what == "again")
    assert not done.reused
    after = _state(own_calibrated)
    assert all(after[name][0] > before[name][0] for name in WRITTEN - {"model.onnx"})
    assert after["model.onnx"] == before["model.onnx"]
    assert open_bundle(own_calibrated) == done.bundle
    assert cache.read(done.bundle) == done.record


def test_a_stale_calibration(quick: None, own_calibrated: Path, moths: list[Photo]) -> None:
    bundle = open_bundle(own_calibrated)
    model = onnx.load(bundle.graph())
    model.producer_name = "another export"
    bundle.graph().write_bytes(model.SerializeToString())
    bundle = seal(own_calibrated, bundle.manifest)
    before = _state(own_calibrated)
    with refused(BundleError, r"is stale: it was made for a model\.onnx .* --again"):
        calibrate(bundle, moths, SETTINGS, LOOSE)
    assert _state(own_calibrated) == before


def test_a_damaged_calibration_can_be_made_anew(
    quick: None, own_calibrated: Path, moths: list[Photo]
) -> None:
    manifest = open_bundle(own_calibrated).manifest
    (own_calibrated / cache.FILE).write_bytes(b"{")
    bundle = seal(own_calibrated, manifest)
    with refused(BundleError, r"is damaged .*; run: fgdeploy calibrate --again"):
        calibrate(bundle, moths, SETTINGS, LOOSE)
    done = calibrate(bundle, moths, SETTINGS, LOOSE, again=True)
    assert cache.read(open_bundle(own_calibrated)) == done.record


# Limits


def test_layers_go_back_to_float(quick: None, own: Bundle, moths: list[Photo]) -> None:
    said: list[str] = []
    limits = Limits(min_bit_agreement=1.0)
    done = calibrate(own, moths, PLAIN, limits, notify=said.append)
    assert done.repair is not None and done.first is not None and done.int8 is not None
    assert done.first.breaches(limits)
    assert done.repair.met and not done.int8.breaches(limits)
    assert done.record.in_float == done.repair.in_float
    assert 0 < len(done.repair.in_float) < 22
    assert any(line.startswith("INT8 misses the limits (bit agreement is 0.9") for line in said)
    summary = open_bundle(own.path).manifest.calibration
    assert summary is not None and summary["in_float"] == done.repair.in_float
    for key in ("int8", "int8-u8", "int8-fp16"):
        held = {item.name for item in onnx.load(done.bundle.graph(key)).graph.initializer}
        for name in done.repair.in_float:
            assert f"{name}/integers" not in held
        assert sum(name.endswith("/integers") for name in held) == 22 - len(done.repair.in_float)
    fp32, int8 = (onnx.load(done.bundle.graph(key)) for key in ("fp32", "int8"))
    again = int8_plan.restore(fp32, int8, done.record.balances())
    assert again.in_float == set(done.repair.in_float)
    assert qdq.write(again) == int8


def test_limits_that_nothing_meets(
    made: int8_plan.Int8Plan, own: Bundle, moths: list[Photo], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int8_plan, "make", lambda *rest: made)
    before = _state(own.path)
    with refused(
        ParityError, r"even with all 22 layers in float: max \|hash .*; use --fp16, or gi"
    ):
        calibrate(own, moths, SETTINGS, IMPOSSIBLE)
    assert _state(own.path) == before


@pytest.mark.parametrize("labelled", [True, False])
def test_the_limits_that_hold_if_none_are_given(
    quick: None, own: Bundle, moths: list[Photo], labelled: bool
) -> None:
    photos = moths if labelled else [Photo(photo.path) for photo in _train(moths)]
    done = calibrate(own, photos, PLAIN)
    expected = {"max_map_drop": 0.5, "min_bit_agreement": 0.985}
    assert done.limits.to_json() == (expected if labelled else {"min_bit_agreement": 0.99})
    assert done.record.settings["limits"] == done.limits.to_json()
    assert done.int8 is not None and not done.int8.breaches(done.limits)
    assert (done.int8.map_drop is None) == (not labelled)


# Photos


def _damage(photos: list[Photo], bad: set[Path], folder: Path) -> list[Photo]:
    """Return the photos with some in their place that are no images."""
    found = []
    for photo in photos:
        if photo.path in bad:
            target = folder / f"{photo.path.parent.name}-{photo.path.name}"
            target.write_bytes(b"no image" + photo.path.name.encode())
            photo = dataclasses.replace(photo, path=target)
        found.append(photo)
    return found


def test_photos_that_cannot_be_read_are_named(
    quick: None, own: Bundle, moths: list[Photo], tmp_path: Path
) -> None:
    train = _train(moths)
    photos = _damage(train, {photo.path for photo in train[::5]}, tmp_path)
    done = calibrate(own, photos, PLAIN, LOOSE)
    assert len(done.skipped) == 7
    for number, photo in enumerate(photos):
        assert sum(str(photo.path) in line for line in done.skipped) == (number % 5 == 0)
    assert done.int8 is not None and done.int8.photos < 16


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("calibration", r"only 0 of 16 photos can be read, at least 8 must calibrate; the first: "),
        ("checks", r"none of 16 photos to check with can be read: .*jpg"),
    ],
)
def test_too_few_that_can_be_read(
    quick: None, own: Bundle, moths: list[Photo], tmp_path: Path, part: str, words: str
) -> None:
    train, before = _train(moths), _state(own.path)
    chosen = getattr(sample.draw(train, 16, 64), part)
    with refused(DataError, words):
        calibrate(own, _damage(train, {photo.path for photo in chosen}, tmp_path), PLAIN, LOOSE)
    assert _state(own.path) == before


def test_few_photos_both_calibrate_and_check(quick: None, own: Bundle, moths: list[Photo]) -> None:
    done = calibrate(own, _train(moths)[:9], CalibrationSettings(), LOOSE)
    assert done.record.photos["count"] == 9
    assert done.int8 is not None and done.int8.photos == 9


def test_wrong_photos_and_counts(no_work: None, own: Bundle, moths: list[Photo]) -> None:
    test = [photo for photo in moths if photo.split == "test"]
    with refused(DataError, "all of split test, which accuracy is measured on"):
        calibrate(own, test, SETTINGS)
    with refused(DataError, "7 photos to calibrate on"):
        calibrate(own, _train(moths)[:7], SETTINGS)
    with refused(UsageError, "--images 7"):
        calibrate(own, moths, CalibrationSettings(images=7))


def test_a_quantised_graph(calibrated: Calibrated, own: Bundle, moths: list[Photo]) -> None:
    shutil.copy(calibrated.bundle.graph("int8"), own.graph())
    bundle = seal(own.path, own.manifest)
    before = _state(own.path)
    with refused(ExportError, "quantised already; calibrate the fp32 graph"):
        calibrate(bundle, moths, SETTINGS, LOOSE)
    assert _state(own.path) == before


# Writing


class _Broken:
    """`atomic.new_file` that fails in one of its calls, half-way through."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, call: int, error: BaseException) -> None:
        self.real, self.left, self.error = atomic.new_file, call, error
        monkeypatch.setattr(atomic, "new_file", self)

    @contextlib.contextmanager
    def __call__(self, target: Path) -> Iterator[IO[bytes]]:
        with self.real(target) as stream:
            self.left -= 1
            yield stream
            if self.left == -1:
                raise self.error


@pytest.mark.parametrize("call", [0, 1, 4, 6, 7])
@pytest.mark.parametrize("fresh", [True, False])
def test_a_full_disk(
    quick: None,
    rough: Path,
    own_calibrated: Path,
    moths: list[Photo],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: int,
    fresh: bool,
) -> None:
    path = shutil.copytree(rough, tmp_path / "fresh.fgd") if fresh else own_calibrated
    fp32 = (path / "model.onnx").read_bytes()
    with monkeypatch.context() as patch:
        _Broken(patch, call, OSError(errno.ENOSPC, "No space left on device"))
        with pytest.raises(OSError, match="No space left on device"):
            calibrate(open_bundle(path), moths, PLAIN, LOOSE)
    bundle = open_bundle(path)
    assert (path / "model.onnx").read_bytes() == fp32
    assert not [name for name in _state(path) if name.startswith(".")]
    old = not fresh and call == 0
    assert (cache.read(bundle) is not None) == old
    assert ("model.int8.onnx" in bundle.manifest.files) == old
    if call == 4:
        done = calibrate(bundle, moths, PLAIN, LOOSE)
        assert set(open_bundle(path).manifest.files) >= WRITTEN
        assert not done.reused


def test_stopped_half_way(
    quick: None, own: Bundle, moths: list[Photo], monkeypatch: pytest.MonkeyPatch
) -> None:
    _Broken(monkeypatch, 3, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        calibrate(own, moths, PLAIN, LOOSE)
    assert cache.read(open_bundle(own.path)) is None
    assert set(open_bundle(own.path).manifest.files) == {"card.json", "head.npz", "model.onnx"}
