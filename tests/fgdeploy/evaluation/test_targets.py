from __future__ import annotations

import dataclasses
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fgdeploy.bundle import open_bundle, seal
from fgdeploy.core.errors import DataError
from fgdeploy.evaluation.targets import TARGETS_FILE, Targets, targets_of
from tests.checks import refused

BITS = 12


def made(**changes: Any) -> Targets:
    fields: dict[str, Any] = {
        "classes": np.array(["moth", "owl", "Ärgerling"]),
        "labels": np.array([0, 0, 2, 1]),
        "codes": np.array([[1, 0xF0], [1, 0xF0], [0, 0x10], [255, 0]], np.uint8),
        "bits": BITS,
    }
    return Targets(**{**fields, **changes})


def write(path: Path, **fields: Any) -> Path:
    held: dict[str, Any] = {
        "classes": made().classes,
        "labels": made().labels,
        "codes": made().codes,
        "bits": np.int64(BITS),
        **fields,
    }
    with open(path, "wb") as stream:
        np.savez(stream, **{name: value for name, value in held.items() if value is not None})
    return path


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint16, np.uint8])
def test_round_trip(tmp_path: Path, kind: type[np.integer[Any]]) -> None:
    targets = made(labels=np.array([0, 0, 2, 1], kind))
    targets.save(tmp_path / TARGETS_FILE)
    loaded = Targets.load(tmp_path / TARGETS_FILE)
    for field in dataclasses.fields(Targets):
        np.testing.assert_array_equal(getattr(loaded, field.name), getattr(targets, field.name))
    assert loaded.names.tolist() == ["moth", "moth", "Ärgerling", "owl"]
    assert (loaded.labels.dtype, loaded.bits) == (kind, BITS)
    assert [entry.name for entry in tmp_path.iterdir()] == [TARGETS_FILE]


WRONG = [
    ({"bits": 7}, "expected 8 to 512 bits, got 7"),
    ({"bits": 513}, "expected 8 to 512 bits, got 513"),
    ({"bits": 17}, r"expected uint8 \(4, 3\) for 17 bits, got uint8 \(4, 2\)"),
    ({"bits": 11}, "expected zeros after bit 11"),
    ({"codes": np.zeros((4, 2), np.int8)}, r"expected uint8 \(4, 2\) .*, got int8 \(4, 2\)"),
    ({"codes": np.zeros((3, 2), np.uint8)}, r"got uint8 \(3, 2\)"),
    ({"codes": np.zeros(8, np.uint8)}, r"got uint8 \(8,\)"),
    ({"labels": np.array([0, 0, 3, 1])}, "expected 0 to 2, one for each class, got 0 to 3"),
    ({"labels": np.array([0, -1, 2, 1])}, "expected 0 to 2, one for each class, got -1 to 2"),
    ({"labels": np.array([0.0, 0.0, 2.0, 1.0])}, "expected a row of integers, got float64"),
    ({"labels": np.zeros((4, 1), np.int64)}, r"expected a row of integers, got int64 \(4, 1\)"),
    ({"labels": np.zeros(0, np.int64), "codes": np.zeros((0, 2), np.uint8)}, "a row of integers"),
    ({"classes": np.array([1, 2, 3])}, "expected a row of strings, got int64"),
    ({"classes": np.array([b"moth", b"owl", b"x"])}, "expected a row of strings"),
    ({"classes": np.array([["moth", "owl", "x"]])}, r"expected a row of strings, .* \(1, 3\)"),
    ({"classes": np.array([], np.str_)}, "expected a row of strings"),
    ({"classes": np.array(["moth", "owl", "moth"])}, "expected every name once"),
]


@pytest.mark.parametrize(("changes", "words"), WRONG)
def test_what_no_targets_can_be(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    with refused(DataError, f"^target .*{words}.*; copy it again, or make it with: fgdeploy train"):
        made(**changes)
    path = write(tmp_path / "t.npz", **changes)
    with refused(DataError, rf"t\.npz: target .*{words}"):
        Targets.load(path)


@pytest.mark.parametrize("bits", [np.array([12]), np.float64(12), np.str_("12")])
def test_bits_that_are_no_integer(bits: Any, tmp_path: Path) -> None:
    with refused(DataError, "expected bits as one integer, got"):
        Targets.load(write(tmp_path / "t.npz", bits=bits))


@pytest.mark.parametrize("field", ["classes", "labels", "codes", "bits"])
def test_a_field_that_is_not_there(field: str, tmp_path: Path) -> None:
    with refused(DataError, rf"t\.npz holds no target codes \(.*{field}"):
        Targets.load(write(tmp_path / "t.npz", **{field: None}))


def test_no_file(tmp_path: Path) -> None:
    with refused(DataError, r"^no target codes at .*gone\.npz; make them with: fgdeploy train$"):
        Targets.load(tmp_path / "gone.npz")


def test_never_unpickles(tmp_path: Path) -> None:
    classes = np.array(["moth", "owl", "x"], object)
    with refused(DataError, "holds no target codes"):
        Targets.load(write(tmp_path / "t.npz", classes=classes))


def test_strings_that_are_no_unicode(tmp_path: Path) -> None:
    classes = np.array([[0x7FFFFFFF], [1], [2]], np.uint32).view("<U1")[:, 0]
    with refused(DataError, "holds no target codes"):
        Targets.load(write(tmp_path / "t.npz", classes=classes))


def test_files_of_another_kind(tmp_path: Path) -> None:
    path = tmp_path / "t.npz"
    for content in (b"", b"text", b"PK\x03\x04"):
        path.write_bytes(content)
        with refused(DataError, "holds no target codes"):
            Targets.load(path)
    with open(path, "wb") as stream:
        np.save(stream, made().codes)
    with refused(DataError, "holds no target codes"):
        Targets.load(path)
    with refused(DataError, "holds no target codes"):
        Targets.load(tmp_path)  # a folder


def test_any_damage_is_a_data_error_or_harmless(tmp_path: Path) -> None:
    path = tmp_path / "t.npz"
    plain = write(tmp_path / "plain.npz")
    with zipfile.ZipFile(plain) as whole_zip, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
        for name in whole_zip.namelist():
            z.writestr(name, whole_zip.read(name))
    whole = path.read_bytes()
    refusals = 0
    chooser = np.random.default_rng(0)
    for _ in range(300):
        content = bytearray(whole)
        if chooser.random() < 0.5:
            content = content[: int(chooser.integers(len(content)))]
        else:
            for place in chooser.integers(0, len(content), 3):
                content[place] ^= int(chooser.integers(1, 256))
        path.write_bytes(content)
        try:
            Targets.load(path)
        except DataError as error:
            assert "\n" not in str(error)
            refusals += 1
    assert refusals > 200


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / TARGETS_FILE
    made().save(path)
    before = path.read_bytes()

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="No space"):
        made().save(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == [TARGETS_FILE]


def test_a_bundle_brings_them(own_bundle: Path) -> None:
    bundle = open_bundle(own_bundle)
    assert targets_of(bundle) is None
    made().save(own_bundle / TARGETS_FILE)
    assert targets_of(bundle) is None  # not listed, so not verified
    sealed = seal(own_bundle, bundle.manifest)
    found = targets_of(sealed)
    assert found is not None
    assert found.names.tolist() == made().names.tolist()


def test_a_bundle_with_targets_of_another_length(own_bundle: Path) -> None:
    made(bits=16).save(own_bundle / TARGETS_FILE)
    bundle = seal(own_bundle, open_bundle(own_bundle).manifest)
    with refused(DataError, "expected codes of 12 bits as the model's, got 16; export"):
        targets_of(bundle)
