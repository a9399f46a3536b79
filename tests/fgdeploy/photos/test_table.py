"""Lists in text files: no row is lost or read as another, and what is wrong has its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from fgdeploy import photos
from fgdeploy.core.errors import DataError
from fgdeploy.photos.table import Columns, Row, lists_photos, read_rows
from tests.checks import refused


def put(folder: Path, text: str, name: str = "list.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ('path,class\n"a, b.jpg","5"" gull"\n', [Row(2, "a, b.jpg", '5" gull', None)]),
        (
            "path\tclass\tsplit\na.jpg\tgull, common\ttest\n",
            [Row(2, "a.jpg", "gull, common", "test")],
        ),
        ("Path;Class\na.jpg;gull, common\n", [Row(2, "a.jpg", "gull, common", None)]),
        ('"path";"class"\n"a;b.jpg";gull\n', [Row(2, "a;b.jpg", "gull", None)]),
        ("path,class,\na.jpg,gull,\n", [Row(2, "a.jpg", "gull", None)]),  # as spreadsheets write
        ("\ufeffpath,class\ra.jpg,gull\r", [Row(2, "a.jpg", "gull", None)]),
        ("path,class\r\n\r\n,\r\na.jpg,\r\n", [Row(4, "a.jpg", None, None)]),
        ("path,class\na.jpg,it's\u2028here\n", [Row(2, "a.jpg", "it's\u2028here", None)]),
        ('class,path\ngull,""\n', [Row(2, "", "gull", None)]),
    ],
)
def test_rows(tmp_path: Path, text: str, rows: list[Row]) -> None:
    assert read_rows(put(tmp_path, text)) == rows


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('path,class\na.jpg,"owl\nb.jpg,owl\n', 2),  # would swallow the next row
        ('path,class\na.jpg,owl\nb.jpg,"owl', 3),
        ('path,class\na.jpg,"two\nlines"\n', 2),
        ('path,class\na.jpg,ow"l\n', 2),
        ('path,class\na.jpg, "owl"\n', 2),  # the quotes would be part of the label
        ('path,class\na.jpg,"owl"s\n', 2),
        ('path,class\n"a.jpg,owl\n"b.jpg,owl\n', 2),
        ('path\tclass\na.jpg\t"owl\n', 2),
    ],
)
def test_quotes_out_of_order_are_refused_with_their_line(
    tmp_path: Path, text: str, line: int
) -> None:
    with refused(DataError, rf"list\.csv line {line}: a double quote stands alone or a cell holds"):
        read_rows(put(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,class\na.jpg,o\0wl\n", r"line 2: holds a NUL character; remove it$"),
        (
            "path,class\na.jpg,owl,\n",
            r"line 2: expected 2 columns, got 3; put names that hold comm",
        ),
        ("path\tclass\na.jpg\n", r"line 2: expected 2 columns, got 1; put names that hold tabs"),
        ("path,class\na.jpg;owl\n", r"line 2: expected 2 columns, got 1"),
        ("path,class,Class \na.jpg,owl,gull\n", r": two columns are named 'class'; rename one"),
        ("path,class,x;path;class\n", r"can be read with commas and with semicolons; keep to one"),
        ('"path,class\na.jpg,owl\n', r"expected a header with the columns path,class"),
        ("x" * 200_000, r"got x{60}\.\.\.; name others with --path-column, --label-column and"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with refused(DataError, words):
        read_rows(put(tmp_path, text))


def test_columns_may_have_other_names(tmp_path: Path) -> None:
    source = put(tmp_path, "file,Species,fold,class\na.jpg,owl,Train,bird\n")
    assert read_rows(source, Columns("file", "species", "FOLD")) == [
        Row(2, "a.jpg", "owl", "train")
    ]
    assert read_rows(source, Columns("file")) == [Row(2, "a.jpg", "bird", None)]
    assert lists_photos(source, Columns("file")) and not lists_photos(source)
    with refused(DataError, r"with the columns file,species,split, got file,Species,fold,class;"):
        read_rows(source, Columns("file", "species", "split"))


def test_a_list_may_end_in_tsv(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    source = put(tmp_path, "path\tclass\na.jpg\towl\n", "list.TSV")
    assert [photo.label for photo in photos.read(source)] == ["owl"]
