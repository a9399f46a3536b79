"""`fgdeploy search` as a user types it."""

from __future__ import annotations

import html.parser
import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import Result

from fgdeploy.core.codes import CodeFile, pack, unpack
from fgdeploy.hasher import Hashed, Hasher, load
from fgdeploy.retrieval import Index, Item
from tests.fgdeploy.cli.conftest import Run
from tests.fgdeploy.cli.outcome import fails

pytestmark = pytest.mark.usefixtures("gallery")

IN = ("-i", "g.fgi")


@pytest.fixture
def photos(moths: Path) -> list[Path]:
    """All photos, in the order of their ids from 1 on."""
    return sorted(moths.rglob("*.jpg"))


def answers_of(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def ids_of(result: dict[str, Any]) -> list[int]:
    return [hit["id"] for hit in result["hits"]]


# What to look for


def test_items_need_no_bundle_and_are_not_their_own_answer(run: Run) -> None:
    first, second = answers_of(run("search", "--id", "3", "--id", "8", *IN, "-k", "4", "--json"))
    assert (first["query"], second["query"]) == ("id 3", "id 8")
    for number, found in ((3, first), (8, second)):
        assert len(found["hits"]) == 4
        assert number not in ids_of(found)
        assert [hit["rank"] for hit in found["hits"]] == [1, 2, 3, 4]
    (everything,) = answers_of(run("search", "--id", "3", *IN, "-k", "18", "--json"))
    assert sorted(ids_of(everything)) == [1, 2, *range(4, 19)]


def test_equal_codes_do_not_push_an_item_into_its_own_answers(run: Run) -> None:
    with Index.create("h.fgi", "ab" * 32, 32) as index:
        index.add_codes(np.zeros((5, 4), np.uint8))
    for number in (1, 3, 5):
        (found,) = answers_of(run("search", "--id", number, "-i", "h.fgi", "-k", "2", "--json"))
        assert ids_of(found) == [n for n in range(1, 6) if n != number][:2]
        (near,) = answers_of(
            run("search", "--id", number, "-i", "h.fgi", "--radius", "0", "--json")
        )
        assert ids_of(near) == [n for n in range(1, 6) if n != number]


def test_a_photo_is_among_its_own_answers(run: Run, photos: list[Path], bundle: Path) -> None:
    (found,) = answers_of(run("search", photos[2], *IN, "-b", bundle, "--json"))
    assert found["hits"][0]["path"] == str(photos[2])
    assert found["hits"][0]["distance"] == 0


def test_codes_in_hex(run: Run) -> None:
    with Index.open("g.fgi") as index:
        code = index.get([5])[0].code.hex()
    (found,) = answers_of(run("search", "--code", code.upper(), *IN, "-k", "1", "--json"))
    assert found["query"] == code
    assert found["hits"][0]["distance"] == 0
    assert "label" not in found


def test_codes_of_a_file(
    run: Run, photos: list[Path], bundle: Path, moths: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("hash", moths, "-b", bundle, "-o", "c.npz")
    by_file = answers_of(run("search", "--codes", "c.npz", *IN, "-k", "3", "--json"))
    by_photo = answers_of(run("search", *photos, *IN, "-b", bundle, "-k", "3", "--json"))
    assert by_file == by_photo
    assert len(by_file) == 18
    monkeypatch.setattr("fgdeploy.gallery.queries.QUERIES_AT_ONCE", 5)
    assert answers_of(run("search", "--codes", "c.npz", *IN, "-k", "3", "--json")) == by_file


def test_all_kinds_at_once(run: Run, photos: list[Path], bundle: Path, moths: Path) -> None:
    run("hash", moths, "-b", bundle, "-o", "c.npz")
    names = ("--code", "00000000", "--codes", "c.npz", "--id", "1", photos[4])
    found = answers_of(run("search", *names, *IN, "-b", bundle, "-k", "2", "--json"))
    assert [result["query"] for result in found[:3]] == [str(photos[4]), "id 1", "00000000"]
    assert len(found) == 3 + 18
    assert all(len(result["hits"]) == 2 for result in found)


# How to look


def test_a_filter(run: Run) -> None:
    with Index.open("g.fgi") as index:
        label = index.get([9])[0].label
    where = f"label = '{label}' and id <> 9 and time > '2020-01-01'"
    (found,) = answers_of(run("search", "--id", "1", *IN, "--where", where, "--json"))
    assert sorted(ids_of(found)) == [7, 8, 10, 11, 12]
    shown = run("search", "--id", "1", *IN, "--where", "id > 99")
    assert shown.stdout == "id 1\nnothing found\n"


def test_a_radius(run: Run) -> None:
    (nearest,) = answers_of(run("search", "--id", "1", *IN, "-k", "17", "--json"))
    for radius in (0, 3, 8, 32, 10**18):
        (found,) = answers_of(run("search", "--id", "1", *IN, "--radius", radius, "--json"))
        assert found["hits"] == [hit for hit in nearest["hits"] if hit["distance"] <= radius]


def test_more_answers_than_items(run: Run) -> None:
    (found,) = answers_of(run("search", "--code", "00000000", *IN, "-k", 10**18, "--json"))
    assert len(found["hits"]) == 18


def test_re_ranking_follows_the_real_valued_hash(
    run: Run, photos: list[Path], bundle: Path
) -> None:
    flags = (*IN, "-b", bundle, "-k", "18")
    (found,) = answers_of(run("search", photos[6], *flags, "--rerank", "asymmetric", "--json"))
    with load(bundle) as hasher, Index.open("g.fgi") as index:
        values = hasher.encode_full(photos[6]).hash[0].astype(np.float64)
        codes = {item.id: np.frombuffer(item.code, np.uint8) for item in index.items()}
    for hit in found["hits"]:
        unequal = unpack(codes[hit["id"]], 32) != (values > 0)
        assert hit["cost"] == pytest.approx(np.abs(values)[unequal].sum(), abs=1e-9)
        assert hit["distance"] == unequal.sum()
    order = [(hit["cost"], hit["distance"], hit["id"]) for hit in found["hits"]]
    assert order == sorted(order)
    (plain,) = answers_of(run("search", photos[6], *flags, "--json"))
    assert sorted(ids_of(plain)) == sorted(ids_of(found))
    assert "cost" not in plain["hits"][0]
    shown = run("search", photos[6], *flags, "--rerank", "asymmetric").stdout.splitlines()
    assert shown[1].split() == ["rank", "distance", "cost", "id", "label", "path"]
    assert shown[3].split()[2] == f"{found['hits'][1]['cost']:.3f}"


# Labels


def test_labels_of_queries(run: Run, photos: list[Path], bundle: Path, tmp_path: Path) -> None:
    label = photos[0].parent.name
    known, unknown = tmp_path / label / "a.jpg", tmp_path / "elsewhere" / "a.jpg"
    for copy in (known, unknown):
        copy.parent.mkdir()
        copy.write_bytes(photos[0].read_bytes())
    flags = (*IN, "-b", bundle, "-k", "1", "--json")
    by_folder, none, item = answers_of(run("search", known, unknown, "--id", "1", *flags))
    assert (by_folder["label"], item["label"]) == (label, label)
    assert "label" not in none
    with Index.open("g.fgi") as index:
        index.relabel({str(photos[0]): "corrected"})
    (own,) = answers_of(run("search", photos[0], *flags))
    assert own["label"] == "corrected"


def test_the_contact_sheet_says_what_is_correct(run: Run, photos: list[Path], bundle: Path) -> None:
    names = (photos[0], "--id", "8", "--code", "00000000")
    result = run("search", *names, *IN, "-b", bundle, "-k", "5", "--html", "s.html")
    assert (result.stdout, result.stderr) == ("", "wrote s.html\n")
    page = Path("s.html").read_text(encoding="utf-8")
    html.parser.HTMLParser().feed(page)
    answers = answers_of(run("search", *names, *IN, "-b", bundle, "-k", "5", "--json"))
    first, second, last = page.split("<section>")[1:]
    for section, answer, counted in ((first, answers[0], 4), (second, answers[1], 5)):
        hits = [hit for hit in answer["hits"] if hit["path"] != answer["query"]]
        right = sum(hit["label"] == answer["label"] for hit in hits)
        assert f"{right} of {counted} correct" in section
        assert section.count('class="right"') == section.count("✓ correct") == right
        assert section.count('class="wrong"') == section.count("✗ incorrect") == counted - right
    assert "correct" not in last
    assert page.count("data:image/jpeg;base64,") == 5 + 5 + 5 + 2
    assert "http" not in page


def test_json_and_a_sheet_together(run: Run) -> None:
    result = run("search", "--id", "1", *IN, "--json", "--html", "s.html")
    assert len(answers_of(result)) == 1
    assert Path("s.html").is_file()


def test_items_without_photos(run: Run) -> None:
    with Index.create("h.fgi", "ab" * 32, 32) as index:
        index.add([Item(None, b"abcd"), Item("https://x.org/a.jpg", b"abce", "moth")])
    shown = run("search", "--id", "1", "-i", "h.fgi")
    assert shown.stdout.splitlines()[2].split() == ["1", "1", "2", "moth", "https://x.org/a.jpg"]
    run("search", "--id", "1", "--id", "2", "-i", "h.fgi", "--html", "s.html")
    page = Path("s.html").read_text(encoding="utf-8")
    assert page.count("no photo") == page.count("not on this disk") == 2


# Queries that cannot be


@pytest.mark.parametrize(
    ("arguments", "code", "pattern"),
    [
        ([], 2, "there is no query; give photos, --id, --code or --codes"),
        (["x.jpg", "-k", "0"], 2, "-k 0: expected a whole number of 1 or more"),
        (["--id", "1", "-k", "-5"], 2, "-k -5: expected a whole number of 1 or more"),
        (["--id", "1", "--radius", "-1"], 2, "--radius -1: expected a whole number of 0 or more"),
        (["--id", "1", "--radius", "3", "-k", "3"], 2, "-k 3 and --radius 3: give one of the two"),
        (["--id", "1", "--html", "no/s.html"], 2, "in a folder that exists"),
        (["--id", "1", "--html", "g.fgi"], 2, "--html g.fgi: expected a file name"),
        (["--id", "1", "--threads", "0"], 2, "--threads 0: expected a whole number from 1 to 1024"),
        (["--id", "99"], 1, "g.fgi has no item 99; .*see: fgdeploy index list"),
        (["--id", "0"], 1, "g.fgi has no item 0"),
        (["--id", "9" * 30], 2, "--id 9{30}: expected a whole number"),
        (["--id", "9" * 18], 1, "g.fgi has no item 999"),
        (["--code", ""], 2, "--code : expected 8 hex digits for 32 bits, got 0 characters"),
        (["--code", "abcd"], 2, "--code abcd: expected 8 hex digits for 32 bits, got 4"),
        (["--code", "abcdefgh"], 2, "--code abcdefgh: expected 8 hex digits"),
        (["--code", "ab cd ef"], 2, "--code ab cd ef: expected 8 hex digits"),
        (["--codes", "none.npz"], 1, "no code file at none.npz"),
        (["x.jpg", "--rerank", "both"], 2, "--rerank both: expected asymmetric"),
        (["--id", "1", "--rerank", "asymmetric"], 2, "needs real-valued hashes, which only photos"),
        (["x.jpg", "--rerank", "asymmetric", "--radius", "2"], 2, "leave out --radius"),
        (["--id", "1", "--where", ""], 2, "--where '': expected an expression"),
        (["--id", "1", "--where", "lable = 'a'"], 2, "no such column: lable; columns are id, path"),
        (["--id", "1", "--where", "1; DROP TABLE items"], 2, "';' is not allowed in it"),
        (["--id", "1", "--where", "1) UNION SELECT 1 --"], 2, "'--' is not allowed|brackets"),
        (["--id", "1", "--where", "load_extension('x')"], 2, "--where .*load_extension"),
        (["--id", "1", "--where", "id = (SELECT 1)"], 2, "'SELECT' is not allowed in it"),
    ],
)  # fmt: skip
def test_values_that_can_never_be_right(
    run: Run, arguments: list[str], code: int, pattern: str
) -> None:
    fails(run("search", *arguments, *IN), code, pattern)
    with Index.open("g.fgi") as index:
        assert len(index) == 18


def test_bits_behind_the_last(run: Run) -> None:
    Index.create("h.fgi", "ab" * 32, 12).close()
    fails(run("search", "--code", "0001", "-i", "h.fgi"), 2, "bits behind bit 12 are set")
    assert run("search", "--code", "0010", "-i", "h.fgi").stdout == "0010\nnothing found\n"


@pytest.mark.parametrize("wrong", [{"bits": 64}, {"fingerprint": "cd" * 32}])
def test_codes_of_another_model(run: Run, wrong: dict[str, Any]) -> None:
    with Index.open("g.fgi") as index:
        facts = {"bits": index.bits, "fingerprint": index.fingerprint, **wrong}
    codes = np.zeros((1, facts["bits"] // 8), np.uint8)
    CodeFile(codes, ["a"], [""], **facts).save(Path("c.npz"))
    fails(run("search", "--codes", "c.npz", *IN), 1, "g.fgi holds 32-bit codes of model")


def test_code_files_of_the_wrong_dtype_and_width(run: Run) -> None:
    for codes in (np.zeros((1, 4), np.int8), np.zeros((1, 3), np.uint8)):
        np.savez("c.npz", codes=codes, paths=["a"], labels=[""], bits=32, fingerprint="ab")
        fails(run("search", "--codes", "c.npz", *IN), 1, r"c.npz: expected uint8 codes \(1, 4\)")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_hashes_that_are_no_numbers(
    run: Run, photos: list[Path], bundle: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    stream = Hasher.stream

    def broken(self: Hasher, images: Iterable[Any], on_error: Any = None) -> Iterator[Hashed]:
        for hashed in stream(self, images, on_error):
            hashed.outputs.hash[0, 3] = value
            hashed.outputs.code[:] = pack(hashed.outputs.hash)
            yield hashed

    monkeypatch.setattr(Hasher, "stream", broken)
    flags = (*IN, "-b", bundle, "--rerank", "asymmetric")
    fails(run("search", photos[0], *flags), 2, "query 0 has NaN or infinite values; check the")


def test_an_item_that_is_damaged(run: Run) -> None:
    import sqlite3

    connection = sqlite3.connect("g.fgi/index.sqlite")
    connection.execute("UPDATE items SET path = '/forged' WHERE id = 4")
    connection.commit()
    connection.close()
    fails(run("search", "--id", "1", *IN, "-k", "18"), 1, "g.fgi is damaged .*item 4 is not what")


# which index, which bundle


def test_search_finds_the_index_and_the_bundle_that_belong_together(
    run: Run, gallery: Path, moths: Path, bundle: Path, tmp_path: Path
) -> None:
    photo = next(moths.rglob("*.jpg"))
    Index.create(tmp_path / "other.fgi", "cd" * 32, 64).close()
    mine = Path(shutil.copytree(bundle, tmp_path / "mine.fgd"))
    (tmp_path / "other.fgd").mkdir()
    (tmp_path / "other.fgd" / "manifest.json").write_text(json.dumps({"fingerprint": "ef" * 32}))
    for arguments in ((), ("-b", mine), ("-i", "g.fgi")):
        found = run("search", photo, *arguments, "--json")
        assert found.exit_code == 0, found.output
        assert json.loads(found.stdout)["hits"][0]["path"] == str(photo)
    shutil.copytree(bundle, tmp_path / "twin.fgd")
    words = r"2 bundles \(.*mine\.fgd, .*twin\.fgd\) are of the model of g\.fgi; name one with --b"
    fails(run("search", photo), 2, words)
    run("index", "add", "g.fgi", moths, "-b", "twin.fgd")  # from here on it remembers
    assert run("search", photo).exit_code == 0
    assert run("index", "add", "g.fgi", moths).exit_code == 0
    (tmp_path / "twin.fgd").rename(tmp_path / "moved.fgd")
    shutil.rmtree(mine)
    assert run("search", photo).exit_code == 0
    shutil.copytree(gallery, tmp_path / "again.fgi")
    fails(run("search", photo), 2, r"3 indexes \(again\.fgi, g\.fgi, other\.fgi\) in this folder;")
    shutil.rmtree(tmp_path / "moved.fgd")
    words = r"name one with --bundle \(g\.fgi was built with .*twin\.fgd\)"
    shutil.rmtree(tmp_path / "other.fgd")
    fails(run("search", photo, "-i", "g.fgi"), 2, words)


@pytest.mark.usefixtures("gallery")
def test_exclude_self(run: Run, moths: Path, bundle: Path, tmp_path: Path) -> None:
    photo = next(moths.rglob("*.jpg"))
    copy = Path(shutil.copy(photo, tmp_path / "copy.jpg"))
    for query in (photo, copy):
        found = run("search", query, "-b", bundle, "--exclude-self", "--json", "-k", "17")
        hits = json.loads(found.stdout)["hits"]
        assert [hit["rank"] for hit in hits] == list(range(1, 18))
        assert str(photo) not in [hit["path"] for hit in hits]
    fails(run("search", "--code", "00000000", "--exclude-self"), 2, "--exclude-self is for photos")


@pytest.mark.usefixtures("gallery")
def test_a_long_filter_is_not_echoed_whole(run: Run) -> None:
    result = run("search", "--id", "1", "--where", "x" * 160_000)
    fails(result, 2, "no such column")
    assert len(result.stderr) < 1000
