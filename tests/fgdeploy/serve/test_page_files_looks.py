"""How the page looks and reads: widths, contrast, schemes, motion, accessibility rules."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fgdeploy.hasher import load
from fgdeploy.photos import thumbnail
from fgdeploy.retrieval import Index, Item
from fgdeploy.serve.serve_settings import ServeSettings
from fgdeploy.serve.service import Service
from tests.fgdeploy.serve.asking import photo
from tests.fgdeploy.serve.browsing import Visit, chromium, listening, visit

LABELS = ("owl", "a_rather_long_label_of_a_sub_species_that_somebody_wrote", None, "jay")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def address(
    browser: Any, toy_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    hasher = load(toy_bundle, "onnxruntime", threads=1)
    index = Index.create(
        tmp_path_factory.mktemp("looks") / "g.fgi", hasher.fingerprint, hasher.bits
    )
    index.thumbnails.keep()
    codes = hasher.encode([photo(seed) for seed in range(12)])
    items = [Item(f"cam://{n}", codes[n].tobytes(), LABELS[n % 4]) for n in range(12)]
    index.add(items, thumbnails=[None if n == 3 else thumbnail(photo(n)) for n in range(12)])
    service = Service(hasher, index, ServeSettings(filters=True))
    with service, listening(service) as found:
        yield found


# Every text that is seen, with the ratio of its colour to the ground on which it stands.
_CONTRASTS = """() => {
  const numbers = (text) => text.match(/[0-9.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    const [x, y, z] = [r, g, b].map((c) => linear(c / 255));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const ground = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const colour = numbers(getComputedStyle(one).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const element = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || !element.checkVisibility()) continue;
    if (element.closest(':disabled, .skip, noscript, script')) continue;
    const [a, b] = [numbers(getComputedStyle(element).color), ground(element)].map(light);
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    found.push([walk.currentNode.data.trim().slice(0, 30), ratio]);
  }
  return found;
}"""


def _states(seen: Visit) -> Iterator[str]:
    """Bring the page into each of its states."""
    seen.settled()
    yield "all"
    seen.page.click(".more summary")
    seen.choose(photo(3))
    yield "photo"
    given = {"name": "x.jpg", "mimeType": "image/jpeg", "buffer": b"no photo"}
    seen.page.set_input_files("#file", given)
    seen.page.wait_for_selector("#trouble:not([hidden])")
    yield "trouble"
    seen.page.click("#clear")
    seen.titled("All items")
    seen.page.click(".card .remove")
    yield "dialog"
    seen.page.keyboard.press("Escape")
    seen.page.fill("#label", "none of these")
    seen.page.keyboard.press("Enter")
    seen.page.wait_for_selector("#empty:not([hidden])")
    yield "empty"


@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1600, "light")])
def test_every_text_can_be_read_and_nothing_is_cut_off(
    browser: Any, address: str, width: int, scheme: str
) -> None:
    with visit(browser, address, width, refusals=True, color_scheme=scheme) as seen:
        for state in _states(seen):
            found = seen.page.evaluate(_CONTRASTS)
            assert len(found) > 20
            assert [one for one in found if one[1] < 4.5] == [], state
            wide = seen.page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, (state, wide)
        dark = seen.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (dark == "rgb(18, 22, 29)") == (scheme == "dark")


def test_the_rules_of_axe(browser: Any, address: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    with visit(browser, address, refusals=True, bypass_csp=True) as seen:
        for state in _states(seen):
            broken = axe.run(seen.page).response["violations"]
            told = [(one["id"], [node["html"][:90] for node in one["nodes"]]) for one in broken]
            assert told == [], state


def test_nothing_moves_for_those_who_want_no_motion(browser: Any, address: str) -> None:
    moving = """[...document.querySelectorAll('*')].filter((one) => {
      const style = getComputedStyle(one);
      return style.transitionDuration !== '0s' || style.animationName !== 'none';
    }).length"""
    for motion, expected in (("reduce", False), ("no-preference", True)):
        with visit(browser, address, reduced_motion=motion) as seen:
            seen.settled()
            assert (seen.page.evaluate(moving) > 0) == expected


def test_landmarks_and_live_regions(browser: Any, address: str) -> None:
    with visit(browser, address) as seen:
        seen.settled()
        for selector in ("main", "header", "[role=search]", "[role=status]", "[role=alert]", "h1"):
            assert seen.page.locator(selector).count() == 1, selector
        unnamed = """[...document.querySelectorAll('input, select, button')].filter(
          (one) => !one.labels?.length && !one.textContent.trim() && !one.ariaLabel).length"""
        assert seen.page.evaluate(unnamed) == 0
        assert seen.text("#said").startswith("12 items")
