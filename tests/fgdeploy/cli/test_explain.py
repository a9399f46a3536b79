"""`fgdeploy explain`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image

from fgdeploy.core import atomic
from tests.fgdeploy.cli.conftest import Run
from tests.fgdeploy.cli.outcome import fails
from tests.fgdeploy.explaining.showing import write_showing_bundle
from tests.fgdeploy.gallery.test_contact_sheet import Page


@pytest.fixture(scope="module")
def showing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that says what it looked at: do not write into it."""
    return write_showing_bundle(tmp_path_factory.mktemp("bundles") / "showing.fgd")


def _first(moths: Path) -> Path:
    return sorted(moths.rglob("*.jpg"))[0]


def test_a_picture_of_kept_patches(run: Run, moths: Path, bundle: Path) -> None:
    done = run("explain", _first(moths), "--model", bundle, "-o", "bird.png")
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr.splitlines()[-1] == "wrote bird.png: PyTorch model of eet.fgd"
    with Image.open("bird.png") as image:
        assert image.width == 3 * 460 + 12  # the photo and two stages


def test_a_page_of_several_photos(run: Run, moths: Path, bundle: Path) -> None:
    shutil.copytree(bundle, "eet.fgd")
    Path("broken.jpg").write_bytes(b"\xff\xd8no photo")
    done = run("explain", _first(moths).parent, "broken.jpg", "--as", "rollout")
    assert done.exit_code == 3
    assert "wrote explained.html: PyTorch model of eet.fgd" in done.stderr
    assert "skipped: broken.jpg is not an image" in done.stderr
    page = Page(Path("explained.html").read_text(encoding="utf-8"))
    assert len(page.images()) == 6 * 2
    assert page.text.count("attention rollout") == 6
    assert f"{_first(moths).name}, {_first(moths).parent.name}" in page.text


def test_a_graph_explains_itself(run: Run, moths: Path, showing: Path) -> None:
    done = run("explain", _first(moths), "-b", showing, "--backend", "onnxruntime")
    assert done.exit_code == 0, done.output
    said = "wrote explained.png: outputs of the graph, onnxruntime fp32"
    assert done.stderr.splitlines()[-1].startswith(said)
    with Image.open("explained.png") as image:
        assert image.width == 3 * 460 + 12  # the photo, similarity and box


def test_only_so_many_photos(run: Run, moths: Path, showing: Path) -> None:
    done = run("explain", moths, "-b", showing, "--images", "5", "-o", "s.html")
    assert "5 of 18 photos; --images takes more" in done.stderr
    page = Page(Path("s.html").read_text(encoding="utf-8"))
    assert sum(tag == "section" for tag, _ in page.tags) == 5
    names = [text.split(", ")[::-1] for text in page.text if ".jpg" in text]
    assert len(names) == 5 and names == sorted(names)


@pytest.mark.parametrize(
    ("words", "code", "pattern"),
    [
        (["none.jpg"], 1, "none.jpg"),
        (["P", "-o", "x.gif"], 2, r"^error: -o x.gif: expected a name that ends in .png or .html$"),
        (
            ["P", "P2", "-o", "x.png"],
            2,
            "shows one photo, and there are 2 photos; give x.html$",
        ),
        (["P", "-o", "no/x.png"], 2, "-o no/x.png: expected a file name in a folder that exists"),
        (["P", "-o", "D.html"], 2, "-o D.html: expected a file name in a folder that exists"),
        (["mine.png", "-o", "mine.png"], 2, "-o mine.png is the photo itself; give another name"),
        (["broken.jpg"], 1, "none of 1 photo can be read; the first: broken.jpg is not an im"),
        (["broken.jpg", "--strict"], 1, "^error: broken.jpg is not an image"),
        (["P", "--as", "all"], 2, "--as all: expected one of tokens, maps, rollout"),
        (["P", "--as", "maps"], 2, "eet.fgd gives no map and no box; take --as rollout"),
        (["P", "--checkpoint", "other.pth"], 1, "other.pth holds other weights than eet.fgd was"),
        (["P", "--threads", "2"], 2, "is told by its PyTorch model, not by an engine"),
        (["P", "--model", "P"], 1, "."),
    ],
)
def test_mistakes(
    run: Run, moths: Path, bundle: Path, words: list[str], code: int, pattern: str
) -> None:
    shutil.copytree(bundle, "eet.fgd")
    Path("D.html").mkdir()
    Path("broken.jpg").write_bytes(b"\xff\xd8no photo")
    Image.new("RGB", (64, 64)).save("mine.png")
    if "other.pth" in words:
        torch.manual_seed(5)
        net = timm.create_model("test_vit", img_size=64, num_classes=0)
        torch.save(net.state_dict(), "other.pth")
    first, second = sorted(moths.rglob("*.jpg"))[:2]
    before = sorted(Path().rglob("*"))
    places = {"P": first, "P2": second}
    fails(run("explain", *(places.get(word, word) for word in words)), code, pattern)
    assert sorted(Path().rglob("*")) == before


def test_a_full_disk_leaves_nothing(
    run: Run, moths: Path, showing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", refuse)
    for target in ("x.png", "x.html"):
        done = run("explain", _first(moths), "-b", showing, "-o", target)
        fails(done, 1, f"{target}: No space left on device; free some space")
    assert list(Path().iterdir()) == []
