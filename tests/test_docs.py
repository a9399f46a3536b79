"""The documentation: the page of commands, links that lead somewhere, snippets that compile."""

from __future__ import annotations

import re
import shlex
import shutil
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from docs import make_cli
from fgdeploy.cli.app import app
from fgdeploy.demo.moths import write_moths

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "benchmarks").rglob("*.md"),
    ]
)
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def _prose(page: Path) -> str:
    """Return a page without its code, where brackets are no links."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    text = re.sub(r"^ {4}.*$", "", text, flags=re.MULTILINE)
    return re.sub(r"`[^`\n]*`", lambda code: re.sub(r"[()\[\]]", "", code[0]), text)


def _anchors(page: Path) -> Iterator[str]:
    """Yield what headings are called in links, as GitHub makes it."""
    for heading in re.findall(r"^#+ (.+)$", _prose(page), flags=re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def _name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def test_the_page_of_commands_is_what_the_commands_say() -> None:
    page = make_cli.PAGE.read_text(encoding="utf-8")
    assert page == make_cli.render(), "docs/cli.md is not up to date; run: make docs"


def test_what_has_no_help_gets_no_page() -> None:
    class Command:
        name, help, params = "quiet", None, ()

    with pytest.raises(ValueError, match="quiet has no help"):
        make_cli.section("fgdeploy quiet", Command())


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in _LINK.findall(_prose(page)):
        if re.match(r"[a-z]+:", link):
            continue  # the network is not asked
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{link}: there is no such file"
        assert target.is_relative_to(ROOT), f"{link} leads out of the repository"
        assert not anchor or anchor in _anchors(target), f"{link}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_python_snippets_compile(page: Path) -> None:
    for language, code in _FENCE.findall(page.read_text(encoding="utf-8")):
        if language == "python":
            compile(code, _name(page), "exec")


def test_the_python_page_runs(
    toy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_moths(tmp_path / "photos", 3, 4, size=64)
    shutil.copytree(toy_bundle, tmp_path / "eet.fgd")
    shutil.copy(next((tmp_path / "photos").rglob("*.jpg")), tmp_path / "bird.jpg")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for _, code in _FENCE.findall((ROOT / "docs" / "python.md").read_text(encoding="utf-8")):
        exec(compile(code, "docs/python.md", "exec"), names)


def test_every_page_is_listed() -> None:
    """docs/README.md is the index of all pages, and the README leads to it."""
    assert "docs/README.md" in _LINK.findall(_prose(ROOT / "README.md"))
    index = ROOT / "docs" / "README.md"
    listed = {(index.parent / link).resolve() for link in _LINK.findall(_prose(index))}
    pages = {page for page in PAGES if page.is_relative_to(ROOT / "docs")} - {index}
    assert {_name(page) for page in pages - listed} == set()


def test_the_map_of_the_house_is_complete() -> None:
    """CONTRIBUTING.md draws every package, in the folder where it lies."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    drawn: set[str] = set()
    parents: list[str] = []
    for indent, name in re.findall(r"^    ([│├└─ ]*)([\w/.]+)  ", text, flags=re.MULTILINE):
        parents[len(indent) // 4 :] = [name.rstrip("/")]
        drawn.add("/".join(parents))
    packages = {
        path.parent.relative_to(ROOT).as_posix()
        for folder in ("fgdeploy", "models", "training", "export", "calibration", "engines")
        for path in (ROOT / folder).rglob("__init__.py")
        if not any((ROOT / parent).is_symlink() for parent in path.relative_to(ROOT).parents)
    }
    below_models = {name for name in packages if name.startswith("models/")}  # docs/models.md
    assert packages - below_models <= drawn
    assert {name for name in drawn if not (ROOT / name).exists()} == set()


def test_the_models_page_names_every_simplification_and_reduction() -> None:
    from fgdeploy.models.reduce.reductions import REDUCTIONS

    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "models").rglob("*.py")]
    declared = [re.findall(r'= Simplification\(\s*"([^"]+)"', source) for source in sources]
    for heading, names in (
        ("## Exact simplifications", {name for found in declared for name in found}),
        ("### Token reductions", set(REDUCTIONS)),
    ):
        section = page.partition(f"{heading}\n")[2].partition("\n#")[0]
        assert set(re.findall(r"^\| `([^`]+)` \|", section, flags=re.MULTILINE)) == names, heading


def _commands_in(page: Path) -> Iterator[str]:
    """Yield each command of a page, in blocks and in running text."""
    text = page.read_text(encoding="utf-8")
    yield from re.findall(r"^ {4}(fgdeploy [^#\n]*)", text, flags=re.MULTILINE)
    inline = re.findall(r"`(fgdeploy [a-z][^`|]*)`", text)
    yield from (line for line in inline if "..." not in line)


@pytest.mark.parametrize("page", [page for page in PAGES if page != make_cli.PAGE], ids=_name)
def test_commands_are_those_that_there_are(page: Path) -> None:
    """Each command exists and takes such options, none of them hidden, and so many arguments."""
    for line in _commands_in(page):
        command = typer.main.get_command(app)
        words = deque(shlex.split(line)[1:])
        while words and hasattr(command, "commands") and words[0] in command.commands:
            command = command.commands[words.popleft()]
        assert not hasattr(command, "commands") or not words or words[0] == "COMMAND", line
        known = {
            name: one
            for one in command.params
            for name in [*one.opts, *one.secondary_opts]
            if not one.hidden
        }
        places = [one for one in command.params if one.param_type_name == "argument"]
        room = 99 if any(one.nargs == -1 for one in places) else len(places)
        while words:
            word = words.popleft()
            if word == "--help":
                continue
            if word.startswith("-"):
                assert word in known, f"{line}: no option {word}"
                if not known[word].is_flag and words:
                    words.popleft()
            else:
                room -= 1
        assert room >= 0, f"{line}: too many arguments"
