from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from fgdeploy.core.errors import DataError
from fgdeploy.core.part_file import PartFile
from tests.checks import refused

ABOUT = {"model": "a", "photos of": "/photos"}
RECORDS = [b"one", b"two two", bytes(300)]


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "codes.npz"


@pytest.fixture
def part(target: Path) -> Path:
    """A part file with three records, as a process that was killed leaves it."""
    with PartFile(target, ABOUT) as opened:
        assert list(opened.records()) == []
        for record in RECORDS:
            opened.append(record)
    return opened.path


def records(target: Path) -> list[bytes]:
    with PartFile(target, ABOUT) as opened:
        return list(opened.records())


def test_records_outlive_the_process(target: Path, part: Path) -> None:
    assert part.name == "codes.npz.part"
    with PartFile(target, ABOUT) as opened:
        assert list(opened.records()) == RECORDS
        opened.append(b"more")
    assert records(target) == [*RECORDS, b"more"]
    with PartFile(target, ABOUT) as opened:
        opened.remove()
    assert list(target.parent.iterdir()) == []


def test_cut_off_anywhere_it_is_what_was_whole(target: Path, part: Path) -> None:
    """Every prefix of the file gives the records that are whole in it, and takes more."""
    whole = part.read_bytes()
    ends = [len(whole)]
    for record in reversed(RECORDS):
        ends.insert(0, ends[0] - len(record) - 8)
    for length in range(len(whole) + 1):
        part.write_bytes(whole[:length])
        expected = RECORDS[: sum(length >= end for end in ends[1:])]
        with PartFile(target, ABOUT) as opened:
            assert list(opened.records()) == expected, length
            opened.append(b"more")
        assert records(target) == [*expected, b"more"], length


@pytest.mark.parametrize("zeros", [1, 8, 5000])
def test_zeros_at_the_end_are_no_records(target: Path, part: Path, zeros: int) -> None:
    part.write_bytes(part.read_bytes() + bytes(zeros))
    assert records(target) == RECORDS


def test_damage_is_refused_or_loses_the_last_record_only(target: Path, part: Path) -> None:
    whole = part.read_bytes()
    refusals = 0
    for place in range(len(whole)):
        part.write_bytes(whole[:place] + bytes([whole[place] ^ 0x41]) + whole[place + 1 :])
        try:
            found = records(target)
        except DataError as error:
            assert "codes.npz.part" in str(error), place
            refusals += 1
        else:
            assert found == RECORDS[: len(found)], place
    assert refusals > 50
    part.write_bytes(whole.replace(b"two two", b"two txo"))
    with refused(DataError, r"codes\.npz\.part is damaged at byte \d+; begin anew with: --again"):
        records(target)
    with PartFile(target, ABOUT, again=True) as opened:
        assert list(opened.records()) == []


def test_other_work_is_refused(target: Path, part: Path) -> None:
    words = r"was begun with model a, and now it is b; run the command .*, or drop it with: --again"
    with refused(DataError, words):
        PartFile(target, {**ABOUT, "model": "b"})
    assert records(target) == RECORDS
    with PartFile(target, {**ABOUT, "model": "b"}, again=True) as opened:
        assert list(opened.records()) == []


@pytest.mark.parametrize("again", [False, True])
def test_a_file_of_others_is_never_touched(target: Path, again: bool) -> None:
    other = target.with_name("codes.npz.part")
    other.write_text("a diary")
    with refused(DataError, r"is no part file of fgdeploy; rename or remove it"):
        PartFile(target, ABOUT, again)
    assert other.read_text() == "a diary"


def test_two_at_once(target: Path, part: Path) -> None:
    with PartFile(target, ABOUT):
        for again in (False, True):
            with refused(DataError, r"another process is at this work; wait for it, or write to"):
                PartFile(target, ABOUT, again)
    assert records(target) == RECORDS


def test_full_disk(target: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with PartFile(target, ABOUT) as opened:
        list(opened.records())
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, opened._handle)
        os.close(full)
        with refused(OSError, r"No space left on device: .*codes\.npz\.part"):
            opened.append(b"one")
    assert records(target) == []


def test_its_folder_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fgdeploy.core.part_file._SYNC_S", -1.0)
    (tmp_path / "out").mkdir()
    with PartFile(tmp_path / "out" / "codes.npz", ABOUT) as opened:
        list(opened.records())
        opened.append(b"one")
        shutil.rmtree(tmp_path / "out")
        with refused(DataError, r"\.part is gone: it, or its folder, was removed or replaced"):
            opened.append(b"two")
