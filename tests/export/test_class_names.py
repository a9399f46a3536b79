"""Names of classes from a text file."""

from __future__ import annotations

from pathlib import Path

import pytest

from fgdeploy.core.errors import DataError
from fgdeploy.export import class_names
from tests.checks import refused


@pytest.mark.parametrize("text", ["a b\nc\n", "a b\nc", "\ufeffa b\r\nc\r\n", " a b \nc\n\n"])
def test_one_a_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes(text.encode())
    assert class_names.read(path, 2) == ("a b", "c")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a\n\nb\n", "names.txt: line 2 is empty; give one name a line"),
        (b"", "line 1 is empty"),
        (b"a\n\x1b[31mb\n", "line 2 holds control characters"),
        (b"a\nb\na\n", "'a' stands in lines 1 and 3"),
        (b"a\n", "has 1 name, but the class head tells 2 classes; give one name a line, in the or"),
        (b"a\nb\nc\n", "has 3 names, but the class head tells 2 classes"),
        (b"\xff\xfe", "is no UTF-8 text"),
    ],
)
def test_what_is_no_list_of_names(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes(content)
    with refused(DataError, words):
        class_names.read(path, 2)


def test_no_file(tmp_path: Path) -> None:
    with refused(DataError, "nowhere.txt: No such file or directory"):
        class_names.read(tmp_path / "nowhere.txt", 2)
    with refused(DataError, "Is a directory"):
        class_names.read(tmp_path, 2)
