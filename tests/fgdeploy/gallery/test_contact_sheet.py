import base64
import io
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fgdeploy.gallery import Query, contact_sheet
from fgdeploy.gallery.contact_sheet import THUMBNAIL, write_contact_sheet
from fgdeploy.retrieval import Hit

NASTY = "<script>alert('x')</script>\"&amp;{0}"


class Page(HTMLParser):
    """What a browser would make of it: tags with their attributes, and the text."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def images(self) -> list[Image.Image]:
        found = []
        for tag, attributes in self.tags:
            if tag == "img":
                address = attributes["src"]
                assert address is not None
                kind, _, data = address.partition(",")
                assert kind == "data:image/jpeg;base64"
                image = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
                image.load()
                found.append(image)
        return found


def paint(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (60, 40)) -> Path:
    Image.new("RGB", size, colour).save(path)
    return path


def hit(path: Path, rank: int = 1, label: str | None = "moth", distance: int = 3) -> Hit:
    return Hit(rank, distance, 10 + rank, str(path), label)


def read(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def test_the_thumbnails_are_in_the_file(tmp_path: Path) -> None:
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250)]
    query, one, other = (paint(tmp_path / f"{n}.png", colour) for n, colour in enumerate(colours))
    target = tmp_path / "sheet.html"
    write_contact_sheet(target, [(query, [hit(one), hit(other, 2, None, 17)])], 64)
    page = read(target)
    shown = [np.asarray(image).mean(axis=(0, 1)) for image in page.images()]
    np.testing.assert_allclose(shown, colours, atol=6)  # JPEG
    text = " ".join(page.text)
    for words in ("64-bit codes", "1. distance 3", "2. distance 17", "id 11 1.png", "moth"):
        assert words in text
    assert "None" not in text
    for photo in (query, one, other):
        photo.unlink()
    assert read(target).images()  # it needs nothing else


def test_nothing_is_fetched_and_nothing_runs(tmp_path: Path) -> None:
    photo = paint(tmp_path / "a.png", (1, 2, 3))
    write_contact_sheet(tmp_path / "sheet.html", [(photo, [hit(photo)])], 64)
    page = read(tmp_path / "sheet.html")
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "a"}
    source = (tmp_path / "sheet.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|url\(|@import|\son\w+=", source)
    assert source.startswith("<!doctype html>")
    assert '<meta charset="utf-8">' in source


def test_queries_stand_in_order_with_their_own_hits(tmp_path: Path) -> None:
    queries = [paint(tmp_path / f"query{n}.png", (n, n, n)) for n in range(3)]
    hits = [paint(tmp_path / f"hit{n}.png", (n, n, n)) for n in range(3)]
    write_contact_sheet(
        tmp_path / "sheet.html",
        [(query, [hit(found)]) for query, found in zip(queries, hits, strict=True)],
        8,
    )
    page = read(tmp_path / "sheet.html")
    names = [attributes["alt"] for tag, attributes in page.tags if tag == "img"]
    assert names == [f"{kind}{n}.png" for n in range(3) for kind in ("query", "hit")]
    assert sum(tag == "section" for tag, _ in page.tags) == 3
    figures = [attributes.get("class") for tag, attributes in page.tags if tag == "figure"]
    assert figures == ["query", None] * 3


@pytest.mark.parametrize("label", [NASTY, "{body}", "{0.__class__}", "% s", "a\nb", "蛾 🦋"])
def test_labels_are_text(label: str, tmp_path: Path) -> None:
    photo = paint(tmp_path / "a.png", (1, 2, 3))
    write_contact_sheet(tmp_path / "sheet.html", [(photo, [hit(photo, label=label)])], 64)
    page = read(tmp_path / "sheet.html")
    assert label in "".join(page.text)
    assert "script" not in {tag for tag, _ in page.tags}
    assert "<script" not in (tmp_path / "sheet.html").read_text(encoding="utf-8")


def test_file_names_are_text(tmp_path: Path) -> None:
    name = "\"><script>alert(1)<&'蛾.png"
    photo = paint(tmp_path / name, (1, 2, 3))
    gone = tmp_path / f"gone {name}"
    write_contact_sheet(tmp_path / "sheet.html", [(photo, [hit(photo), hit(gone, 2)])], 64)
    page = read(tmp_path / "sheet.html")
    assert "script" not in {tag for tag, _ in page.tags}
    alts = [attributes["alt"] for tag, attributes in page.tags if tag == "img"]
    assert alts == [name, name]
    assert "".join(page.text).count(name) == 4  # twice for the query: title and note


def test_photos_that_are_gone_or_damaged_leave_a_gap(tmp_path: Path) -> None:
    photo = paint(tmp_path / "a.png", (1, 2, 3))
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "folder.png").mkdir()
    hits = [hit(tmp_path / name) for name in ("gone.png", "text.png", "folder.png", "a.png")]
    write_contact_sheet(tmp_path / "sheet.html", [(photo, hits)], 64)
    page = read(tmp_path / "sheet.html")
    assert len(page.images()) == 2
    gaps = [attributes for tag, attributes in page.tags if attributes.get("class") == "gone"]
    assert len(gaps) == 3
    text = "".join(page.text)
    assert (text.count("not there any more"), text.count("cannot be shown")) == (1, 2)
    assert "gone.png" in "".join(page.text)


def test_frames_say_what_is_correct_in_words_too(tmp_path: Path) -> None:
    photo, other = paint(tmp_path / "a.png", (1, 2, 3)), paint(tmp_path / "b.png", (3, 2, 1))
    hits = [hit(photo, 1, "owl"), hit(other, 2, "owl"), hit(other, 3, NASTY), hit(other, 4, None)]
    query = Query(str(photo), photo=str(photo), label="owl")
    write_contact_sheet(tmp_path / "sheet.html", [(query, hits)], 64)
    page = read(tmp_path / "sheet.html")
    figures = [attributes.get("class") for tag, attributes in page.tags if tag == "figure"]
    assert figures == ["query", None, "right", "wrong", None]  # not itself, nor what is unlabelled
    text = "".join(page.text)
    assert "owl: 1 of 2 correct" in text
    assert (text.count("✓ correct"), text.count("✗ incorrect")) == (1, 1)


@pytest.mark.parametrize("label", [None, "owl"])
def test_without_labels_there_are_no_frames(tmp_path: Path, label: str | None) -> None:
    photo = paint(tmp_path / "a.png", (1, 2, 3))
    found = hit(tmp_path / "b.png", label="owl" if label is None else None)
    query = Query("a", photo=str(photo), label=label)
    write_contact_sheet(tmp_path / "sheet.html", [(query, [found])], 64)
    page = read(tmp_path / "sheet.html")
    assert "correct" not in "".join(page.text).partition("</style>")[2]
    figures = [attributes.get("class") for tag, attributes in page.tags if tag == "figure"]
    assert figures == ["query", None]


def test_many_answers_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contact_sheet, "MOST_THUMBNAILS", 3)
    photo = paint(tmp_path / "a.png", (1, 2, 3))
    labels = [NASTY, "b", "b", NASTY, "b", "b", NASTY]
    names = [f"{NASTY[1:7]}{n}.png" for n in range(1, 8)]
    hits = [
        hit(tmp_path / name, n, label, n)
        for n, (name, label) in enumerate(zip(names, labels, strict=True), start=1)
    ]
    query = Query("a", photo=str(photo), label=NASTY)
    write_contact_sheet(tmp_path / "sheet.html", [(query, hits)], 64)
    page = read(tmp_path / "sheet.html")
    assert sum(tag == "figure" for tag, _ in page.tags) == 1 + 3
    assert [attributes["start"] for tag, attributes in page.tags if tag == "ol"] == ["4"]
    assert sum(tag == "li" for tag, _ in page.tags) == 4
    text = "".join(page.text)
    assert "The first 3 of 7 answers have thumbnails; the others:" in text
    assert f"{NASTY}: 3 of 7 correct" in text
    for n in range(4, 8):
        mark = "✓ correct" if labels[n - 1] == NASTY else "✗ incorrect"
        assert f"distance {n}, id {10 + n}, {labels[n - 1]}, {hits[n - 1].path}, {mark}" in text
    assert "script" not in {tag for tag, _ in page.tags}
    write_contact_sheet(tmp_path / "sheet.html", [(photo, hits[:3])], 64)
    assert "thumbnails" not in "".join(read(tmp_path / "sheet.html").text)


def test_costs_of_re_ranked_answers(tmp_path: Path) -> None:
    photo = paint(tmp_path / "a.png", (1, 2, 3))
    ranked = Hit(1, 3, 7, str(photo), None, 1.23456)
    write_contact_sheet(tmp_path / "sheet.html", [(photo, [ranked])], 64)
    text = "".join(read(tmp_path / "sheet.html").text)
    assert "1. distance 3, cost 1.235" in text
    assert "ordered by (cost, distance, id)" in text


def test_what_has_no_photo_here(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")  # opening it would wait for ever
    paths = ["https://x.org/a.png", str(tmp_path / "pipe.png"), "a\0b.png"]
    hits = [Hit(1, 3, 7, path, None) for path in paths]
    query = [(Query("id 5", item=5), hits), (Query("00ff"), hits)]
    write_contact_sheet(tmp_path / "sheet.html", query, 16)
    page = read(tmp_path / "sheet.html")
    assert page.images() == []
    text = "".join(page.text)
    assert text.count("no photo") == text.count("not on this disk") == 2
    assert text.count("not there any more") == text.count("cannot be shown") == 2
    assert "id 5" in text
    assert "00ff" in text


def test_thumbnails_stay_small(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1500, 2000, 3), dtype=np.uint8)
    large = tmp_path / "large.jpg"
    Image.fromarray(noise).save(large, quality=95)
    long = paint(tmp_path / "long.png", (5, 5, 5), (3000, 2))
    write_contact_sheet(tmp_path / "sheet.html", [(large, [hit(long)])], 64)
    first, second = read(tmp_path / "sheet.html").images()
    assert first.size == (2 * THUMBNAIL, 2 * THUMBNAIL * 3 // 4)
    assert second.size == (2 * THUMBNAIL, 1)
    assert (tmp_path / "sheet.html").stat().st_size < large.stat().st_size / 10


def test_transparent_grey_and_turned_photos(tmp_path: Path) -> None:
    clear, grey, turned = tmp_path / "clear.png", tmp_path / "grey.png", tmp_path / "turned.jpg"
    Image.new("RGBA", (30, 30), (255, 0, 0, 0)).save(clear)
    Image.new("L", (30, 30), 7).save(grey)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 30), (9, 9, 9)).save(turned, exif=exif)
    write_contact_sheet(tmp_path / "sheet.html", [(clear, [hit(grey), hit(turned)])], 64)
    images = read(tmp_path / "sheet.html").images()
    assert np.asarray(images[0]).min() >= 250  # shown over white
    assert images[1].mode == "RGB"
    assert images[2].size == (30, 60)


def test_no_queries_and_no_hits(tmp_path: Path) -> None:
    photo = paint(tmp_path / "a.png", (1, 2, 3))
    write_contact_sheet(tmp_path / "none.html", [], 64)
    assert read(tmp_path / "none.html").images() == []
    write_contact_sheet(tmp_path / "alone.html", [(photo, [])], 64)
    assert len(read(tmp_path / "alone.html").images()) == 1


def test_an_old_sheet_is_replaced_or_stays_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    target = folder / "sheet.html"
    photo = paint(tmp_path / "a.png", (1, 2, 3))
    write_contact_sheet(target, [(photo, [])], 64)
    write_contact_sheet(target, [(photo, [hit(photo)])], 64)
    whole = target.read_bytes()
    assert len(read(target).images()) == 2

    def no_space(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    for step in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, step, no_space)
            with pytest.raises(OSError, match="No space left on device"):
                write_contact_sheet(target, [], 64)
        assert target.read_bytes() == whole
        assert [entry.name for entry in folder.iterdir()] == ["sheet.html"]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_contact_sheet(tmp_path / "absent" / "sheet.html", [], 64)


def test_a_file_name_that_is_not_utf8(tmp_path: Path) -> None:
    photo = paint(Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")), (1, 2, 3))
    write_contact_sheet(tmp_path / "sheet.html", [(photo, [])], 64)
    assert len(read(tmp_path / "sheet.html").images()) == 1
