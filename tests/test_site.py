"""The documentation's site: complete, every link checked, nothing from other hosts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mkdocs")
pytest.importorskip("material")
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(target)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return target


def test_every_page_is_on_the_site_and_in_its_navigation(site: Path) -> None:
    from docs.site_pages import PLACES

    pages = [path.relative_to(ROOT / "docs").as_posix() for path in ROOT.glob("docs/**/*.md")]
    pages += PLACES.values()
    assert len(pages) > 30 and "notebooks/search-and-look.md" in pages
    index = (site / "index.html").read_text(encoding="utf-8")
    for page in pages:
        name = re.sub(r"(^|/)README\.md$", r"\1index.md", page).removesuffix(".md") + ".html"
        assert (site / name).is_file(), page
        assert f'href="{name}"' in index, page


def test_nothing_is_fetched_from_another_host(site: Path) -> None:
    fetched = re.compile(
        r"""<(?:script|img|iframe|source)\b[^>]*\bsrc=["']?(?:https?:)?//[^>]*"""
        r"""|<link\b(?![^>]*rel=["']?canonical)[^>]*\bhref=["']?(?:https?:)?//[^>]*"""
    )
    for page in site.rglob("*.html"):
        assert not fetched.findall(page.read_text(encoding="utf-8")), page
    for sheet in site.rglob("*.css"):
        text = sheet.read_text(encoding="utf-8")
        assert not re.search(r"""url\(["']?(?:https?:)?//|@import""", text), sheet
    assert not list(site.rglob("*.py"))


def test_links_lead_to_the_sites_pages_or_to_files_of_the_repository() -> None:
    from docs.site_pages import links_turned

    page = (
        "[a](../benchmarks/README.md#retrieval) [b](retrieval/guide.md) [`run`](../.ci/run)\n"
        "[c](#here) [d](https://example.org/x) `[e](nowhere.md)` ![f](images/explained.jpg)\n"
        "[g](../examples/camera_app.py) [h](../CONTRIBUTING.md)\n\n    [i](code.md)\n"
    )
    plain = links_turned(page, "camera.md", None)
    assert "[a](benchmarks/README.md#retrieval) [b](retrieval/guide.md) `run` (`.ci/run`)" in plain
    assert page.splitlines()[1] in plain and "    [i](code.md)" in plain
    assert "g (`examples/camera_app.py`) [h](contributing.md)" in plain
    linked = links_turned(page, "camera.md", "https://example.org/f/")
    assert "[g](https://example.org/f/blob/main/examples/camera_app.py)" in linked
    deep = links_turned(
        "[a](../../benchmarks/README.md) [b](../cli.md)", "retrieval/guide.md", None
    )
    assert deep == "[a](../benchmarks/README.md) [b](../cli.md)"
    outside = links_turned("[a](../docs/proof.md#x) [b](training.py)", "benchmarks/README.md", None)
    assert outside == "[a](../proof.md#x) b (`benchmarks/training.py`)"


@pytest.mark.parametrize("target", ["nowhere.md", "../nowhere.py", "../../outside.md"])
def test_a_link_to_nothing_ends_the_build(target: str) -> None:
    from mkdocs.exceptions import PluginError

    from docs.site_pages import links_turned

    with pytest.raises(PluginError, match=r"docs/camera\.md: a link leads to .* not there"):
        links_turned(f"[a]({target})", "camera.md", None)
