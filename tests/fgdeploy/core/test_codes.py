from __future__ import annotations

import errno
import gc
import io
import os
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fgdeploy.core import codes
from fgdeploy.core.codes import CodeFile, UInt8Array
from fgdeploy.core.errors import DataError, UsageError
from tests.checks import refused

WIDTHS = [*range(8, 41), 63, 64, 65, 128, 511, 512]
HASH_AGAIN = r"is not a code file .*; make one with: fgdeploy hash$"


def random_hashes(rows: int, bits: int, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((rows, bits)).astype(np.float32)


def naive_hamming(left: UInt8Array, right: UInt8Array) -> list[list[int]]:
    def number(row: UInt8Array) -> int:
        return int.from_bytes(row.tobytes(), "big")

    return [[(number(a) ^ number(b)).bit_count() for b in right] for a in left]


# --- bits, packing, distances


@pytest.mark.parametrize("bits", [8, 12, 64, 512])
def test_bits_in_range_pass(bits: int) -> None:
    assert codes.check_bits(bits) == bits


@pytest.mark.parametrize("bits", [-1, 0, 7, 513, 10**9])
def test_bits_out_of_range_are_refused(bits: int) -> None:
    with refused(UsageError, rf"8 to 512 bits, not {bits}; choose another --bits"):
        codes.check_bits(bits)


@pytest.mark.parametrize("bits", WIDTHS)
def test_pack_and_unpack_are_inverse(bits: int) -> None:
    hashes = random_hashes(9, bits, seed=bits)
    packed = codes.pack(hashes)
    assert packed.dtype == np.uint8
    assert packed.shape == (9, codes.code_bytes(bits))
    np.testing.assert_array_equal(codes.unpack(packed, bits), hashes > 0)


@pytest.mark.parametrize("bits", [9, 12, 15, 63])
def test_padding_is_zero(bits: int) -> None:
    packed = codes.pack(np.ones((3, bits), np.float32))
    spare = codes.code_bytes(bits) * 8 - bits
    assert (packed[:, -1] & (2**spare - 1) == 0).all()
    assert codes.hamming(packed, packed).max() == 0


def test_most_significant_bit_comes_first() -> None:
    hashes = np.full((1, 12), -1.0, np.float32)
    hashes[0, [0, 8]] = 1
    assert codes.pack(hashes).tolist() == [[0b1000_0000, 0b1000_0000]]


def test_a_bit_is_a_hash_above_zero() -> None:
    hashes = np.array([[0.0, -0.0, 1e-30, -1e-30, np.inf, -np.inf, np.nan, 1.0]], np.float32)
    assert codes.unpack(codes.pack(hashes), 8).tolist() == [[0, 0, 1, 0, 1, 0, 0, 1]]


@pytest.mark.parametrize("bits", WIDTHS)
def test_hamming_equals_a_naive_count(bits: int) -> None:
    left, right = (codes.pack(random_hashes(n, bits, seed=n)) for n in (5, 7))
    distances = codes.hamming(left, right)
    assert distances.dtype == np.uint16
    assert distances.tolist() == naive_hamming(left, right)


@pytest.mark.parametrize("bits", [8, 12, 64, 65, 512])
def test_hamming_without_bitwise_count_is_the_same(
    bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, right = (codes.pack(random_hashes(n, bits, seed=n)) for n in (5, 7))
    expected = codes.hamming(left, right)
    monkeypatch.delattr(np, "bitwise_count", raising=False)  # NumPy 1.x
    distances = codes.hamming(left, right)
    assert distances.dtype == expected.dtype
    np.testing.assert_array_equal(distances, expected)


def test_hamming_reaches_all_512_bits() -> None:
    ones, zeros = np.full((1, 64), 255, np.uint8), np.zeros((1, 64), np.uint8)
    assert codes.hamming(ones, zeros).tolist() == [[512]]


def test_hamming_of_none_is_empty() -> None:
    some, none = np.zeros((3, 2), np.uint8), np.zeros((0, 2), np.uint8)
    assert codes.hamming(none, some).shape == (0, 3)
    assert codes.hamming(some, none).shape == (3, 0)


def test_hamming_takes_views_that_are_not_contiguous() -> None:
    wide = codes.pack(random_hashes(8, 48))
    left, right = wide[::2, :3], wide[1::2, ::-2]
    assert codes.hamming(left, right).tolist() == naive_hamming(left, right)


@pytest.mark.parametrize("widths", [(2, 3), (8, 16)])
def test_hamming_of_different_widths_is_refused(widths: tuple[int, int]) -> None:
    left, right = (np.full((1, width), 255, np.uint8) for width in widths)
    with pytest.raises((DataError, ValueError)):
        codes.hamming(left, right)


# --- the file


def code_file(**changes: Any) -> CodeFile:
    values: dict[str, Any] = {
        "codes": codes.pack(random_hashes(3, 12)),
        "paths": ["a.jpg", "böse Möwe/b c.jpg", "c.jpg"],
        "labels": ["gull", "", "Grünspecht"],
        "bits": 12,
        "fingerprint": "toy-0",
    }
    return CodeFile(**(values | changes))


NO_TEXT = np.array([0x46000000, 0x110000], np.uint32).view("U1")  # as a flipped bit leaves it


def arrays(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "codes": np.zeros((2, 2), np.uint8),
        "paths": np.array(["a", "b"]),
        "labels": np.array(["x", ""]),
        "bits": np.int64(12),
        "fingerprint": np.str_("toy-0"),
    }
    return values | changes


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "codes.npz"


def test_save_and_load_are_inverse(target: Path) -> None:
    saved = code_file()
    saved.save(target)
    loaded = CodeFile.load(target)
    np.testing.assert_array_equal(loaded.codes, saved.codes)
    assert loaded.codes.dtype == np.uint8
    assert (loaded.paths, loaded.labels) == (saved.paths, saved.labels)
    assert (loaded.bits, loaded.fingerprint) == (12, "toy-0")
    assert type(loaded.bits) is int and type(loaded.paths[0]) is str


def test_no_codes_make_a_file_too(target: Path) -> None:
    code_file(codes=np.zeros((0, 2), np.uint8), paths=[], labels=[]).save(target)
    loaded = CodeFile.load(target)
    assert loaded.codes.shape == (0, 2) and loaded.paths == [] and loaded.labels == []


def test_saving_on_a_full_disk_leaves_the_old_file(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code_file().save(target)
    before = target.read_bytes()

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with refused(OSError, "No space left on device"):
        code_file(fingerprint="other").save(target)
    assert target.read_bytes() == before
    assert list(target.parent.iterdir()) == [target]


def test_missing_file(target: Path) -> None:
    with refused(DataError, r"no code file at .*codes\.npz; make one with: fgdeploy hash"):
        CodeFile.load(target)


def test_folder_is_no_code_file(tmp_path: Path) -> None:
    with refused(DataError, HASH_AGAIN):
        CodeFile.load(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"", b"hello, this is text\n", b"PK\x05\x06" + bytes(18), pickle.dumps({"codes": 1})],
    ids=["empty", "text", "empty zip", "pickle"],
)
def test_what_is_no_npz_is_refused(target: Path, content: bytes) -> None:
    target.write_bytes(content)
    with refused(DataError, HASH_AGAIN):
        CodeFile.load(target)


def test_npy_array_is_no_code_file(target: Path) -> None:
    with target.open("wb") as stream:
        np.save(stream, np.zeros((2, 2), np.uint8))
    with refused(DataError, HASH_AGAIN):
        CodeFile.load(target)


class Trap:
    """Pickles to a call that leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("entry", ["codes", "paths", "labels", "bits", "fingerprint"])
def test_pickled_objects_are_refused_and_never_run(
    target: Path, tmp_path: Path, entry: str
) -> None:
    mark = tmp_path / "mark"
    np.savez(target, **arrays(**{entry: np.array([Trap(mark)], dtype=object)}))
    with refused(DataError, HASH_AGAIN):
        CodeFile.load(target)
    assert not mark.exists()


@pytest.mark.parametrize("entry", ["codes", "paths", "labels", "bits", "fingerprint"])
def test_missing_entry(target: Path, entry: str) -> None:
    values = arrays()
    del values[entry]
    np.savez(target, **values)
    with refused(DataError, rf"{entry}.*; make one with: fgdeploy hash"):
        CodeFile.load(target)


@pytest.mark.parametrize(
    ("changes", "got"),
    [
        ({"codes": np.zeros((2, 3), np.uint8)}, r"\(2, 3\)"),
        ({"codes": np.zeros((3, 2), np.uint8)}, r"\(3, 2\)"),
        ({"codes": np.zeros(4, np.uint8)}, r"\(4,\)"),
        ({"codes": np.zeros((2, 2, 1), np.uint8)}, r"\(2, 2, 1\)"),
        ({"codes": np.zeros((2, 2), np.int8)}, r"int8 \(2, 2\)"),
        ({"codes": np.zeros((2, 2), np.float32)}, r"float32 \(2, 2\)"),
        ({"bits": np.int64(40)}, r"\(2, 5\), got uint8 \(2, 2\)"),
    ],
)
def test_wrong_shapes_are_refused(target: Path, changes: dict[str, Any], got: str) -> None:
    np.savez(target, **arrays(**changes))
    with refused(DataError, rf"codes\.npz: expected uint8 codes .*{got}; hash the photos again"):
        CodeFile.load(target)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"bits": np.array([12, 12])}, id="two numbers of bits"),
        pytest.param({"bits": np.array(np.inf)}, id="infinite bits"),
        pytest.param({"paths": np.array("a")}, id="one path, no list"),
        pytest.param({"labels": np.array("a")}, id="one label, no list"),
        pytest.param({"paths": np.array([b"a", b"b"])}, id="paths of bytes"),
        pytest.param({"bits": np.array([12])}, id="a list of bits"),
        pytest.param({"bits": np.array(12.5)}, id="bits with a fraction"),
        pytest.param({"fingerprint": np.array([7])}, id="a number as fingerprint"),
        pytest.param({"paths": NO_TEXT}, id="paths of what is no character"),
        pytest.param(
            {"labels": NO_TEXT.byteswap().view(">U1")}, id="labels of what is no character"
        ),
    ],
)
def test_entries_of_the_wrong_kind_are_refused(target: Path, changes: dict[str, Any]) -> None:
    np.savez(target, **arrays(**changes))
    with refused(DataError, r"codes\.npz.*fgdeploy hash|hash the photos again"):
        CodeFile.load(target)


def test_a_member_that_is_no_array_is_refused(target: Path) -> None:
    values = arrays()
    codes = values.pop("codes")
    np.savez(target, **values)
    with zipfile.ZipFile(target, "a") as archive:
        archive.writestr("codes", codes.tobytes())
    with refused(DataError, "codes is no array"):
        CodeFile.load(target)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"labels": np.array(["x"])}, id="too few labels"),
        pytest.param({"labels": np.array(["x", "y", "z"])}, id="too many labels"),
        pytest.param({"bits": np.int64(0), "codes": np.zeros((2, 0), np.uint8)}, id="no bits"),
        pytest.param(
            {"bits": np.int64(4096), "codes": np.zeros((2, 512), np.uint8)}, id="4096 bits"
        ),
    ],
)
def test_entries_that_contradict_each_other_are_refused(
    target: Path, changes: dict[str, Any]
) -> None:
    np.savez(target, **arrays(**changes))
    with refused(DataError, r"codes\.npz.*(labels|bits).*(fgdeploy hash|again)"):
        CodeFile.load(target)


def central_entry(content: bytearray) -> int:
    """Return where the first entry of a zip's central directory begins."""
    return content.index(b"PK\x01\x02")


@pytest.mark.parametrize(("at", "value"), [(6, 0xFF), (8, 0x01), (10, 0x63)])
def test_damaged_zip_directory_is_refused(target: Path, at: int, value: int) -> None:
    np.savez(target, **arrays())
    content = bytearray(target.read_bytes())
    content[central_entry(content) + at] = value  # version needed, flags, method
    target.write_bytes(content)
    with refused(DataError, HASH_AGAIN):
        CodeFile.load(target)


def test_damaged_compressed_data_is_refused(target: Path) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in arrays().items():
            stream = io.BytesIO()
            np.save(stream, value)
            archive.writestr(f"{name}.npy", stream.getvalue())
    content = bytearray(target.read_bytes())
    content[30 + len("codes.npy")] = 0x07  # a deflate block of a kind that there is not
    target.write_bytes(content)
    with refused(DataError, HASH_AGAIN):
        CodeFile.load(target)


def test_changed_byte_in_the_codes_is_noticed(target: Path) -> None:
    code_file(codes=np.full((3, 2), 0xA7, np.uint8)).save(target)
    content = target.read_bytes()
    assert content.count(b"\xa7" * 6) == 1
    target.write_bytes(content.replace(b"\xa7" * 6, b"\xa7" * 5 + b"\xa6"))
    with refused(DataError, HASH_AGAIN):
        CodeFile.load(target)


def cut_in_half(target: Path) -> None:
    np.savez(target, **arrays())
    target.write_bytes(target.read_bytes()[: target.stat().st_size // 2])


def load_error(target: Path) -> tuple[BaseException | None, bool]:
    """Return what loading raises, and whether the file is still open while the error is held."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            CodeFile.load(target)
        except Exception as error:
            handles = Path("/proc/self/fd")
            links = (os.readlink(link) for link in handles.iterdir() if link.is_symlink())
            held = any(link == str(target.resolve()) for link in links if link)
            found: BaseException = error.with_traceback(None)
            found.__cause__ = found.__context__ = None
            gc.collect()
            return found, held
    return None, False


def test_file_cut_short_is_refused(target: Path) -> None:
    cut_in_half(target)
    error, _ = load_error(target)
    assert isinstance(error, DataError)
    assert "codes.npz is not a code file" in str(error) and "fgdeploy hash" in str(error)
    assert "\n" not in str(error)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_refused_file_is_closed(target: Path) -> None:
    cut_in_half(target)
    assert load_error(target)[1] is False
