"""Photos of a folder, a CSV or both: paths, labels and splits, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from fgdeploy import photos
from fgdeploy.core.errors import DataError
from fgdeploy.photos import Photo
from fgdeploy.photos.listing import label_of
from tests.checks import refused
from tests.fgdeploy.photos.datasets import brief


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of two classes; listing does not decode, so the files are empty."""
    for name in ("gull/1.jpg", "gull/2.jpg", "tern/1.jpg", "tern/deep/3.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "photos"


def csv(folder: Path, text: str, name: str = "list.csv") -> Path:
    target = folder / name
    target.write_bytes(text.encode())
    return target


# --- folders and files


def test_folder_names_are_labels(folder: Path) -> None:
    assert brief(photos.read(folder), folder) == [
        ("gull/1.jpg", "gull", None),
        ("gull/2.jpg", "gull", None),
        ("tern/1.jpg", "tern", None),
        ("tern/deep/3.png", "deep", None),
    ]


def test_folder_that_is_named_by_a_dot(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder / "gull")
    assert {photo.label for photo in photos.read(Path("."))} == {"gull"}


def test_single_image(folder: Path) -> None:
    assert photos.read(folder / "tern" / "1.jpg") == [Photo(folder / "tern" / "1.jpg", "tern")]


def test_nothing_there(folder: Path) -> None:
    with refused(DataError, r"no folder, image or CSV at .*/none; check the path$"):
        photos.read(folder / "none")


def test_folder_without_images(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with refused(DataError, r"no images in .* \(looked for .*\.jpg.*\); check the folder$"):
        photos.read(tmp_path)


def test_linked_photo_has_the_label_of_the_folder_it_lies_in(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "blob.jpg").touch()
    (folder / "gull" / "9.jpg").symlink_to(tmp_path / "pool" / "blob.jpg")
    assert ("gull/9.jpg", "gull", None) in brief(photos.read(folder), folder)


@pytest.mark.parametrize(
    ("here", "given"),
    [
        ("tern/deep", "../1.jpg"),
        ("tern", "1.jpg"),
        ("tern", "./1.jpg"),
        ("gull", "../tern/deep/../1.jpg"),
        ("tern/deep", ".."),
        ("tern", "."),
        ("tern", ""),
        ("gull", "../tern/"),
    ],
)
def test_the_label_is_the_folder_that_a_photo_lies_in_however_it_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, here: str, given: str
) -> None:
    monkeypatch.chdir(folder / here)
    found = {photo.path.resolve(): photo.label for photo in photos.read(Path(given))}
    assert found[folder / "tern" / "1.jpg"] == "tern"
    assert found.get(folder / "tern" / "deep" / "3.png", "deep") == "deep"


def test_the_label_of_a_linked_folder_is_the_name_of_the_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "Larus").symlink_to(folder / "gull")
    assert {photo.label for photo in photos.read(tmp_path / "Larus")} == {"Larus"}
    assert label_of(tmp_path / "Larus" / "1.jpg") == "Larus"
    assert label_of(Path("/1.jpg")) is None


# --- CSV


def test_csv(folder: Path) -> None:
    source = csv(
        folder,
        "path,class,split\ngull/1.jpg,Larus canus,Train\ntern/1.jpg,Sterna, TEST \n",
    )
    assert brief(photos.read(source), folder) == [
        ("gull/1.jpg", "Larus canus", "train"),
        ("tern/1.jpg", "Sterna", "test"),
    ]


def test_csv_with_byte_order_mark_crlf_and_blank_lines(folder: Path) -> None:
    source = csv(folder, "\ufeffpath,class\r\ngull/1.jpg,a\r\n\r\n , \r\ntern/1.jpg,b\r\n")
    assert [photo.label for photo in photos.read(source)] == ["a", "b"]


def test_csv_columns_come_in_any_order_and_case(folder: Path) -> None:
    source = csv(folder, "Split, CLASS ,note,Path\ntest,a,x,gull/1.jpg\n", "LIST.CSV")
    assert brief(photos.read(source), folder) == [("gull/1.jpg", "a", "test")]


def test_csv_cells_may_be_empty_or_quoted(folder: Path) -> None:
    (folder / "a, b.jpg").touch()
    source = csv(folder, 'path,class,split\n"a, b.jpg","Gull, common",\ngull/1.jpg,,\n')
    assert brief(photos.read(source), folder) == [
        ("a, b.jpg", "Gull, common", None),
        ("gull/1.jpg", None, None),
    ]


def test_csv_paths_may_be_absolute(folder: Path, tmp_path: Path) -> None:
    source = csv(tmp_path, f"path,class\n{folder / 'gull' / '1.jpg'},a\n")
    assert photos.read(source)[0].path == folder / "gull" / "1.jpg"


def test_missing_csv(tmp_path: Path) -> None:
    with refused(DataError, r"no CSV at .*/no\.csv; check the path$"):
        photos.read(tmp_path / "no.csv")


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("", "an empty first line"),
        ("\n", "an empty first line"),
        ("file,label\na.jpg,b\n", "file,label"),
        ("path,label\na.jpg,b\n", "path,label"),
        ("class,split\nb,test\n", "class,split"),
        ("gull/1.jpg,gull\n", r"gull/1\.jpg,gull"),
    ],
)
def test_csv_without_the_columns(folder: Path, text: str, got: str) -> None:
    with refused(DataError, rf"list\.csv: expected a header .*path,class\[,split\], got {got};"):
        photos.read(csv(folder, text))


def test_csv_with_a_missing_file_tells_the_line(folder: Path) -> None:
    source = csv(folder, "path,class\ngull/1.jpg,a\n\ngull/none.jpg,b\n")
    with refused(DataError, r"list\.csv line 4: no file 'gull/none\.jpg'; correct the path$"):
        photos.read(source)


@pytest.mark.parametrize("name", ["gull", "", ".."])
def test_csv_that_names_a_folder(folder: Path, name: str) -> None:
    with refused(DataError, rf"list\.csv line 2: no file '{name}'; correct the path$"):
        photos.read(csv(folder, f"path,class\n{name},a\n"))


def test_csv_with_a_short_row_tells_the_line(folder: Path) -> None:
    source = csv(folder, "path,class,split\ngull/1.jpg,a,test\ngull/2.jpg,a\n")
    with refused(DataError, r"list\.csv line 3: expected 3 columns, got 2"):
        photos.read(source)


@pytest.mark.parametrize("rows", ["", "\n\n", " , \n"])
def test_csv_with_a_header_only(folder: Path, rows: str) -> None:
    with refused(DataError, r"list\.csv lists no photos; add rows below the header$"):
        photos.read(csv(folder, f"path,class\n{rows}"))


@pytest.mark.parametrize(
    "content", ["path,class\na.jpg,Möwe\n".encode("latin-1"), "path,class\n".encode("utf-16")]
)
def test_csv_that_is_not_utf8(folder: Path, content: bytes) -> None:
    (folder / "list.csv").write_bytes(content)
    with refused(DataError, r"list\.csv is not a UTF-8 CSV: 'utf-8' codec can't decode"):
        photos.read(folder / "list.csv")


def test_csv_with_an_endless_field(folder: Path) -> None:
    with refused(DataError, r"list\.csv line 2: no file 'a{60}\.\.\.'; correct the path$"):
        photos.read(csv(folder, "path,class\n" + "a" * 200_000 + ",b\n"))


def test_csv_with_a_long_row_tells_the_line(folder: Path) -> None:
    source = csv(folder, "path,class,split\ngull/1.jpg,Gull, common,test\n")
    with refused(DataError, r"list\.csv line 2: expected 3 columns, got 4"):
        photos.read(source)


def test_folder_named_csv(tmp_path: Path) -> None:
    (tmp_path / "a.csv").mkdir()
    with refused(DataError, r"a\.csv"):
        photos.read(tmp_path / "a.csv")


def test_csv_with_a_name_that_no_file_can_have(folder: Path) -> None:
    with refused(DataError, r"list\.csv line 2: no file 'a+"):
        photos.read(csv(folder, "path,class\n" + "a" * 300 + ",b\n"))


# --- labels beside a folder


def test_labels_override_folder_names(folder: Path, tmp_path: Path) -> None:
    labels = csv(tmp_path, "path,class,split\ngull/2.jpg,Larus,test\ntern/deep/3.png,,train\n")
    assert brief(photos.read(folder, labels), folder) == [
        ("gull/1.jpg", "gull", None),
        ("gull/2.jpg", "Larus", "test"),
        ("tern/1.jpg", "tern", None),
        ("tern/deep/3.png", None, "train"),
    ]


def test_labels_may_be_relative_to_their_csv(folder: Path, tmp_path: Path) -> None:
    labels = csv(tmp_path, "path,class\nphotos/gull/1.jpg,Larus\n")
    assert photos.read(folder, labels)[0].label == "Larus"


def test_labels_of_a_single_image(folder: Path) -> None:
    labels = csv(folder, "path,class\ngull/1.jpg,Larus\n")
    assert photos.read(folder / "gull" / "1.jpg", labels)[0].label == "Larus"


def test_labels_with_a_missing_file_tell_the_line(folder: Path, tmp_path: Path) -> None:
    labels = csv(tmp_path, "path,class\ngull/8.jpg,Larus\n")
    with refused(DataError, r"list\.csv line 2: no file 'gull/8\.jpg'; correct the path$"):
        photos.read(folder, labels)


def test_labels_beside_a_csv_are_refused(folder: Path) -> None:
    source = csv(folder, "path,class\ngull/1.jpg,a\n")
    with refused(DataError, r"list\.csv is a CSV already; give either it or --labels, not both"):
        photos.read(source, source)


def test_folders_train_and_test_are_splits(tmp_path: Path) -> None:
    from PIL import Image

    def splits(name: str, *tops: str) -> list[tuple[str | None, str | None]]:
        for top in tops:
            for label in ("a", "b"):
                (tmp_path / name / top / label).mkdir(parents=True)
                Image.new("RGB", (8, 8)).save(tmp_path / name / top / label / "0.png")
        return [(photo.label, photo.split) for photo in photos.read(tmp_path / name)]

    assert splits("1", "train", "test") == [
        ("a", "test"),
        ("b", "test"),
        ("a", "train"),
        ("b", "train"),
    ]
    assert {split for _, split in splits("2", "Train", "val")} == {"train", "test"}
    three = {split for _, split in splits("3", "train", "val", "test")}
    assert three == {"train", "val", "test"}
    assert {split for _, split in splits("4", "train", "bus")} == {None}  # vehicles
    assert {split for _, split in splits("5", "train")} == {None}
