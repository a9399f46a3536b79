"""`fgdeploy search` with several indexes as a user types it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from fgdeploy.retrieval import Index
from tests.fgdeploy.cli.conftest import Run
from tests.fgdeploy.cli.outcome import fails

BOTH = ("-i", "a.fgi", "-i", "b.fgi")


@pytest.fixture(autouse=True)
def halves(gallery: Path, bundle: Path) -> None:
    """`a.fgi` has the odd ids of `g.fgi`, `b.fgi` the even ones; `b.fgi` knows the bundle."""
    for name, wanted in (("a.fgi", 1), ("b.fgi", 0)):
        half = gallery.with_name(name)
        shutil.copytree(gallery, half)
        with Index.open(half) as index:
            index.remove(index.matching("id % 2 <> ?", (wanted,)).tolist())
            if name == "b.fgi":
                index.remember_bundle(bundle)


def answers_of(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def without_source(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for answer in answers:
        for hit in answer["hits"]:
            assert hit.pop("source") == ("a.fgi" if hit["id"] % 2 else "b.fgi")
    return answers


@pytest.mark.parametrize(
    "flags",
    [
        ("-k", "5"),
        ("-k", "99"),
        ("--radius", "12"),
        ("-k", "7", "--where", "id > 4 and id < 13"),
        ("--rerank", "asymmetric", "-k", "3", "--pool", "4"),
        ("--exclude-self", "-k", "4"),
    ],
    ids=" ".join,
)
def test_the_answers_are_those_of_one_index(
    run: Run, moths: Path, bundle: Path, flags: tuple[str, ...]
) -> None:
    photos = sorted(moths.rglob("*.jpg"))[::5]
    whole = answers_of(run("search", *photos, "-i", "g.fgi", "-b", bundle, *flags, "--json"))
    both = answers_of(run("search", *photos, *BOTH, *flags, "--json"))  # the bundle is found
    assert without_source(both) == whole


def test_tables_name_the_source_where_there_are_several(run: Run) -> None:
    table = run("search", "--code", "00000000", *BOTH, "-k", "3").stdout.splitlines()
    assert table[1].split() == ["rank", "distance", "source", "id", "label", "path"]
    assert {line.split()[2] for line in table[2:]} <= {"a.fgi", "b.fgi"}
    csv = run("search", "--code", "00000000", *BOTH, "-k", "3", "--csv").stdout.splitlines()
    assert csv[0] == "query,rank,distance,source,id,label,path"
    one = run("search", "--code", "00000000", "-i", "a.fgi", "--csv").stdout.splitlines()
    assert one[0] == "query,rank,distance,id,label,path"
    nothing = run("search", "--code", "00000000", *BOTH, "--where", "id > 99")
    assert nothing.stdout == "00000000\nnothing found\n"
    assert run("search", "--code", "00000000", *BOTH, "-k", "3", "--html", "s.html").exit_code == 0
    page = Path("s.html").read_text(encoding="utf-8")
    assert page.count("id a.fgi:") + page.count("id b.fgi:") == 3


def test_an_item_is_named_by_its_id_or_with_its_index(run: Run) -> None:
    named, alone = answers_of(
        run("search", "--id", "b.fgi:8", "--id", "3", *BOTH, "-k", "17", "--json")
    )
    assert (named["query"], alone["query"]) == ("id b.fgi:8", "id a.fgi:3")
    assert sorted(hit["id"] for hit in named["hits"]) == [n for n in range(1, 19) if n != 8]
    twice = ("search", "-i", "a.fgi", "-i", "g.fgi", "--json")
    fails(
        run(*twice, "--id", "3"),
        1,
        "error: item 3 is in a.fgi and in g.fgi; say which is meant: a.f",
    )
    (one,) = answers_of(run(*twice, "--id", "g.fgi:3", "-k", "1"))
    assert (one["hits"][0]["id"], one["hits"][0]["source"]) == (3, "a.fgi")
    fails(run("search", "--id", "b.fgi:8", "-i", "a.fgi"), 2, "b.fgi is not searched; it must be")
    assert run("search", "--id", "a.fgi:3", "-i", "a.fgi").stdout.startswith("id 3\n")
    fails(run("search", "--id", "three", *BOTH), 2, "--id three: expected a whole number")


def test_what_cannot_be_searched_as_one(run: Run, gallery: Path) -> None:
    query = ("search", "--code", "00000000")
    with Index.create(gallery.with_name("c.fgi"), "cd" * 32, 32):
        pass
    fails(
        run(*query, *BOTH, "-i", "c.fgi"),
        1,
        "error: c.fgi holds 32-bit codes of model cdcdcdcd.*leave one of them out",
    )
    fails(run(*query, *BOTH, "-i", "./a.fgi"), 2, "named twice; every item would be found twice")
    fails(run(*query, *BOTH, "-i", "d.fgi"), 1, "error: no index at d.fgi; make one with")
    address = "postgresql://127.0.0.1:1/birds"
    fails(run(*query, *BOTH, "-i", address), 2, "one of them is on a server; only folders are")
    database = gallery.with_name("b.fgi") / "index.sqlite"
    database.write_bytes(b"\0" * 4096)
    fails(run(*query, *BOTH), 1, r"error: b\.fgi")
