"""What commands are about: the first word, an option, or the only one in the folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fgdeploy.cli import objects
from fgdeploy.core.errors import UsageError
from fgdeploy.models.weights.trained import WEIGHTS_FILE
from tests.checks import refused
from tests.fgdeploy.cli.conftest import Run
from tests.fgdeploy.cli.outcome import fails


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_word_or_an_option_or_the_only_one(here: Path) -> None:
    a, b = Path("a.fgd"), Path("b.fgd")
    with refused(UsageError, r"^no bundle in this folder; name one, such as eet\.fgd$"):
        objects.bundle_of(None, None)
    with refused(UsageError, r"^no bundle in this folder; name one with --bundle$"):
        objects.bundle_of(None, None, "name one with --bundle")
    a.mkdir()
    Path("file.fgd").touch()
    assert objects.bundle_of(None, None) == a
    assert objects.bundle_of(b, None) == objects.bundle_of(None, b) == objects.bundle_of(b, b) == b
    with refused(UsageError, r"^a\.fgd and --bundle b\.fgd name two bundles; give one of them$"):
        objects.bundle_of(a, b)
    b.mkdir()
    with refused(UsageError, r"^2 bundles \(a\.fgd, b\.fgd\) in this folder; name one, such as"):
        objects.bundle_of(None, None)


def test_the_only_index(here: Path) -> None:
    with refused(UsageError, r"^no index in this folder; name one, such as gallery\.fgi$"):
        objects.index_of(None)
    Path("g.fgi").mkdir()
    assert objects.index_of(None) == Path("g.fgi")
    Path("h.fgi").mkdir()
    with refused(UsageError, r"^2 indexes \(g\.fgi, h\.fgi\) in this folder; name one with --i"):
        objects.index_of(None, "name one with --index")
    assert objects.index_of(Path("h.fgi")) == Path("h.fgi")


def test_the_only_training(here: Path) -> None:
    assert objects.only_training() is None
    for name in ("one-run", "two-run"):
        Path(name).mkdir()
        (Path(name) / WEIGHTS_FILE).touch()
        if name == "one-run":
            assert objects.only_training() == Path("one-run")
    with refused(UsageError, r"^2 trainings \(one-run, two-run\) in this folder; name one, or say"):
        objects.only_training()
    run, weights = Path("one-run"), Path("w.pth")
    assert objects.training_of(run, None) == objects.training_of(None, run) == run
    assert objects.training_of(None, None) is None
    with refused(UsageError, r"^one-run and --checkpoint w\.pth name two checkpoints; give one"):
        objects.training_of(run, weights)


def test_a_bundle_and_photos_in_any_order(here: Path) -> None:
    named, plain, birds = Path("a.fgd"), Path("unpacked"), Path("birds")
    plain.mkdir()
    (plain / "manifest.json").touch()
    for bundle in (named, plain):
        assert objects.is_bundle(bundle)
        assert objects.bundle_and_photos([bundle, birds], None, None) == (bundle, birds)
        assert objects.bundle_and_photos([birds, bundle], None, None) == (bundle, birds)
        assert objects.bundle_and_photos([birds], bundle, None) == (bundle, birds)
        assert objects.bundle_and_photos([bundle], None, birds) == (bundle, birds)
        assert objects.bundle_and_photos([bundle], None, None) == (bundle, None)
    named.mkdir()
    assert objects.bundle_and_photos([birds], None, None) == (named, birds)
    assert objects.bundle_and_photos([], None, None) == (named, None)


@pytest.mark.parametrize(
    ("words", "bundle", "photos", "pattern"),
    [
        (["a.fgd", "b.fgd"], None, None, r"^a\.fgd and b\.fgd are both bundles; give one, and ph"),
        (["birds", "moths"], None, None, r"^neither birds nor moths is a bundle \(a folder \*\.f"),
        (["a.fgd"], "b.fgd", None, r"^a\.fgd and --bundle b\.fgd name two bundles; give one of"),
        (["birds"], "b.fgd", "moths", r"^birds and --data moths name two places of photos; give"),
        (["birds"], None, None, r"^no bundle in this folder; name one, such as eet\.fgd"),
    ],
)
def test_words_that_mean_the_same_thing(
    here: Path, words: list[str], bundle: str | None, photos: str | None, pattern: str
) -> None:
    def path(name: str | None) -> Path | None:
        return None if name is None else Path(name)

    with refused(UsageError, pattern):
        objects.bundle_and_photos([Path(word) for word in words], path(bundle), path(photos))


# --- as a user types it


def test_the_only_bundle_is_the_default(run: Run, moths: Path, bundle: Path) -> None:
    fails(run("inspect"), 2, "no bundle in this folder; name one, such as eet.fgd")
    shutil.copytree(bundle, "one.fgd")
    assert run("inspect").exit_code == 0
    shutil.copytree(bundle, "two.fgd")
    fails(run("eval", moths), 2, r"2 bundles \(one.fgd, two.fgd\) in this folder; .* --bundle$")


COMMANDS = ("inspect", "pack", "calibrate", "build-engine --int8", "parity")


@pytest.mark.parametrize("command", COMMANDS)
def test_the_bundle_is_the_first_word_and_the_option_of_before(run: Run, command: str) -> None:
    words = command.split()
    for named in (["no.fgd"], ["-b", "no.fgd"], ["--bundle", "no.fgd"], ["no.fgd", "-b", "no.fgd"]):
        fails(run(*words, *named), 1, r"no\.fgd does not exist")
    fails(run(*words, "a.fgd", "-b", "b.fgd"), 2, "name two bundles; give one of them")


@pytest.mark.parametrize("command", ["list", "compact", "verify", "stats"])
def test_the_only_index_is_the_default(run: Run, gallery: Path, command: str) -> None:
    run("index", "compact", "g.fgi")
    assert run("index", command).output == run("index", command, "g.fgi").output
    shutil.copytree(gallery, "h.fgi")
    fails(run("index", command), 2, r"2 indexes \(g\.fgi, h\.fgi\) in this folder")


def test_search_takes_the_only_index(run: Run, gallery: Path) -> None:
    assert run("search", "--id", "1").stdout == run("search", "--id", "1", "-i", "g.fgi").stdout
    shutil.rmtree("g.fgi")
    fails(run("search", "--id", "1"), 2, "no index in this folder; name one with --index")
