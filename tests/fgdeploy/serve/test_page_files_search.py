"""The page in a browser: search, look, filter, add, remove; with and without a mouse."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import httpx
import pytest

from fgdeploy.hasher import load
from fgdeploy.photos import thumbnail
from fgdeploy.retrieval import Index, Item
from fgdeploy.serve.explainer import Explainer
from fgdeploy.serve.serve_settings import ServeSettings
from fgdeploy.serve.service import Service
from tests.fgdeploy.explaining.showing import write_showing_bundle
from tests.fgdeploy.serve.asking import JPEG, WAIT, photo
from tests.fgdeploy.serve.browsing import Visit, chromium, listening, visit

ITEMS = 80
BEGIN = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@dataclass
class Site:
    """A service with a gallery, and its address."""

    service: Service
    address: str

    def search(self, image: bytes, query: str = "k=60") -> list[dict[str, Any]]:
        """Return the hits that the API gives."""
        url = f"{self.address}/search?{query}"
        answer = httpx.post(url, content=image, headers=JPEG, timeout=WAIT)
        found: list[dict[str, Any]] = answer.json()["hits"]
        return found


@pytest.fixture(scope="module")
def site(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Noise in four kinds, an hour between one and the next, with thumbnails."""
    folder = tmp_path_factory.mktemp("page")
    hasher = load(write_showing_bundle(folder / "showing.fgd"), "onnxruntime", threads=1, batch=4)
    index = Index.create(folder / "g.fgi", hasher.fingerprint, hasher.bits)
    index.thumbnails.keep()
    photos = [photo(seed) for seed in range(ITEMS)]
    codes = hasher.encode(photos)
    index.add(
        [
            Item(
                f"cam://{n}",
                codes[n].tobytes(),
                f"kind{n % 4}",
                f"{n:064x}",
                time=(BEGIN + timedelta(hours=n)).isoformat(),
            )
            for n in range(ITEMS)
        ],
        thumbnails=[thumbnail(image) for image in photos],
    )
    settings = ServeSettings(filters=True)
    with (
        Service(hasher, index, settings, explainer=Explainer.open(hasher)) as service,
        listening(service) as address,
    ):
        yield Site(service, address)


def test_a_chosen_photo_gives_what_the_api_gives(browser: Any, site: Site) -> None:
    with visit(browser, site.address) as seen:
        seen.settled()
        assert seen.ids() == list(range(1, 61))
        assert seen.text("#facts").startswith(f"Items{ITEMS}")
        seen.choose(photo(500))
        hits = site.search(photo(500))
        assert seen.ids() == [hit["id"] for hit in hits]
        order = [(hit["distance"], hit["id"]) for hit in hits]
        assert order == sorted(order) and len(order) == 60
        bits = seen.page.eval_on_selector_all(".distance", "all => all.map(x => x.textContent)")
        assert bits == [f"{d} bit" if d == 1 else f"{d} bits" for d, _ in order]
        card = seen.text(f'.card[data-id="{hits[0]["id"]}"]')
        for said in (hits[0]["label"], hits[0]["path"], f"id {hits[0]['id']}", "2026"):
            assert said in card
        for stage in ("Decode", "Queue", "Inference", "Search", "Service", "Seen here"):
            assert f"{stage}" in seen.text("#times")
        seen.page.click("#clear")
        seen.titled("All items")


_GIVE = """([name, data, kind]) => {
  const bytes = Uint8Array.from(atob(data), (one) => one.charCodeAt(0));
  const given = new DataTransfer();
  given.items.add(new File([bytes], name, { type: 'image/jpeg' }));
  const event = kind === 'drop'
    ? new DragEvent('drop', { dataTransfer: given, bubbles: true, cancelable: true })
    : new ClipboardEvent('paste', { clipboardData: given, bubbles: true, cancelable: true });
  document.querySelector('#drop').dispatchEvent(event);
  return event.defaultPrevented;
}"""


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_a_photo_is_dropped_or_pasted(browser: Any, site: Site, way: str) -> None:
    with visit(browser, site.address) as seen:
        seen.settled()
        data = base64.b64encode(photo(501)).decode()
        prevented = seen.page.evaluate(_GIVE, [f"{way}.jpg", data, way])
        assert prevented == (way == "drop")  # else the browser would leave for the photo
        seen.titled("Like your photo")
        assert seen.ids() == [hit["id"] for hit in site.search(photo(501))]
        assert seen.text("#query-name") == f"{way}.jpg"


def _apply(seen: Visit, **fields: str) -> None:
    for name, value in fields.items():
        seen.page.fill(f"#{name}", value)
    with seen.page.expect_response(lambda answer: "full=true" in answer.url):
        seen.page.click("#filters button[type=submit]")
    seen.settled()


def test_filters(browser: Any, site: Site) -> None:
    image = photo(502)
    with visit(browser, site.address, timezone_id="Asia/Tokyo") as seen:
        seen.settled()
        offered = seen.page.eval_on_selector_all(
            "#labels option", "all => all.map(one => [one.value, one.label])"
        )
        assert offered == [[f"kind{n}", f"kind{n} ({ITEMS // 4})"] for n in range(4)]
        _apply(seen, label="kind2")
        assert seen.ids() == list(range(3, ITEMS, 4))
        seen.choose(image)
        expected = site.search(image, "k=60&label=kind2")
        assert seen.ids() == [hit["id"] for hit in expected]
        radius = expected[3]["distance"]
        _apply(seen, radius=str(radius), k="50")
        within = site.search(image, f"k=50&label=kind2&radius={radius}")
        assert seen.ids() == [hit["id"] for hit in within]
        assert "all within the radius" in seen.text("#said")
        _apply(seen, k="1")
        assert seen.ids() == [within[0]["id"]] and "There are more" in seen.text("#said")
        seen.page.click(".more summary")
        # 21:00 in Tokyo is noon UTC, the time of the first item
        _apply(seen, label="", radius="", k="60", since="2026-01-31T22:00")
        assert len(seen.ids()) == 60 and 1 not in seen.ids()
        _apply(seen, until="2026-02-01T00:00")
        assert sorted(seen.ids()) == [2, 3]
        _apply(seen, where="id = 3")
        assert seen.ids() == [3]
        seen.page.click("#filters button[type=reset]")
        seen.until("document.querySelectorAll('.card').length === 60")
        _apply(seen, label="none of these")
        assert seen.page.is_visible("#empty") and seen.ids() == []


def test_like_this_and_pages(browser: Any, site: Site) -> None:
    with visit(browser, site.address) as seen:
        seen.settled()
        seen.page.click("#on")
        seen.until("document.querySelector('.card').dataset.id === '61'")
        assert seen.ids() == list(range(61, ITEMS + 1)) and seen.page.is_disabled("#on")
        seen.page.click("#back")
        seen.until("document.querySelector('.card').dataset.id === '1'")
        seen.page.click('.card[data-id="7"] .like')
        seen.titled("Like item 7")
        answer = httpx.post(f"{site.address}/search?k=60", json={"id": 7}, timeout=WAIT)
        assert seen.ids() == [hit["id"] for hit in answer.json()["hits"]] and 7 not in seen.ids()


def test_what_the_network_looked_at_is_laid_over_the_photo(browser: Any, site: Site) -> None:
    with visit(browser, site.address) as seen:
        seen.settled()
        seen.choose(photo(503))
        seen.page.check("#explain")
        seen.page.wait_for_selector("#overlay:not([hidden])")
        answer = httpx.post(
            f"{site.address}/explain", content=photo(503), headers=JPEG, timeout=WAIT
        ).json()
        captions = seen.page.eval_on_selector_all("#view option", "a => a.map(x => x.textContent)")
        assert captions[1:] == [panel["caption"] for panel in answer["panels"][1:]]
        for place in (1, 2):
            seen.page.select_option("#view", str(place))
            assert seen.page.get_attribute("#overlay", "src") == answer["panels"][place]["picture"]
        assert seen.text("#legend") == answer["legend"] != ""
        seen.page.uncheck("#explain")
        seen.page.wait_for_selector("#overlay", state="hidden")


def test_adding_and_removing_change_the_index(browser: Any, site: Site) -> None:
    index = site.service.index
    with visit(browser, site.address) as seen:
        seen.settled()
        seen.choose(photo(504))
        seen.page.fill("#new-label", "new kind")
        seen.page.fill("#new-uri", "cam://new")
        seen.page.click("#enrol button")
        seen.until("document.querySelector('#said').textContent.includes('added')")
        item = index.by_path(["cam://new"])["cam://new"]
        assert item.label == "new kind" and len(index) == ITEMS + 1
        assert seen.ids()[0] == item.id and index.thumbnails.has([item.id or 0])
        seen.until(
            "count => document.querySelector('#facts').textContent.includes(`Items${count}`)",
            arg=ITEMS + 1,
        )
        seen.page.click(f'.card[data-id="{item.id}"] .remove')
        assert "new kind" in seen.text("#removing-words")
        seen.page.click("#removing [value=cancel]")
        assert index.by_path(["cam://new"])
        seen.page.click(f'.card[data-id="{item.id}"] .remove')
        seen.page.click("#removing [value=remove]")
        seen.until("document.querySelector('#said').textContent.includes('remov')")
        assert not index.by_path(["cam://new"]) and item.id not in seen.ids()
        assert len(index) == ITEMS


def _tab_to(seen: Visit, selector: str, most: int = 40) -> None:
    for _ in range(most):
        if seen.page.evaluate("wanted => document.activeElement.matches(wanted)", selector):
            return
        seen.page.keyboard.press("Tab")
    pytest.fail(f"{selector} is not reached with the Tab key")


def test_a_dialog_that_is_opened_again_at_once_is_answered_anew(browser: Any, site: Site) -> None:
    with visit(browser, site.address) as seen:
        seen.settled()
        number = seen.page.evaluate(
            """() => {
                const card = document.querySelector(".card");
                const all = "#removing [value=";
                const press = (value) => document.querySelector(`${all}${value}]`).click();
                card.querySelector(".remove").click();
                press("cancel");
                card.querySelector(".remove").click();
                press("remove");
                return Number(card.dataset.id);
            }"""
        )
        seen.until(f"!document.querySelector('[data-id=\"{number}\"]')")
        assert not site.service.index.by_id([number])


def test_all_of_it_without_a_mouse(browser: Any, site: Site, tmp_path: Path) -> None:
    (tmp_path / "owl.jpg").write_bytes(photo(505))
    index = site.service.index
    with visit(browser, site.address) as seen:
        chosen = tmp_path / "owl.jpg"
        seen.page.on("filechooser", lambda chooser: chooser.set_files(chosen))
        seen.settled()
        keys = seen.page.keyboard
        _tab_to(seen, ".skip", 2)
        _tab_to(seen, "#file", 2)
        outline = seen.page.evaluate(
            "getComputedStyle(document.querySelector('#file + label')).outlineStyle"
        )
        assert outline == "solid"  # the button shows the focus of what it stands for
        keys.press("Enter")
        seen.titled("Like your photo")
        _tab_to(seen, "#explain")
        keys.press("Space")
        seen.page.wait_for_selector("#overlay:not([hidden])")
        _tab_to(seen, "#new-label")
        keys.type("by keys")
        keys.press("Enter")
        seen.until("document.querySelector('#said').textContent.includes('added')")
        (added,) = index.items("label = 'by keys'")
        _tab_to(seen, "#label")
        keys.type("by keys")
        keys.press("Enter")
        seen.until("document.querySelectorAll('.card').length === 1")
        _tab_to(seen, ".remove")
        keys.press("Enter")
        assert seen.page.evaluate("document.activeElement.value") == "cancel"  # the safe one
        keys.press("Escape")
        assert not seen.page.is_visible("#removing") and index.by_id([added.id or 0])
        assert seen.page.evaluate("document.activeElement.matches('.remove')")  # where it was
        keys.press("Enter")
        keys.press("Tab")
        keys.press("Enter")
        seen.until("document.querySelector('#said').textContent.includes('remov')")
        assert not index.by_id([added.id or 0])
        assert seen.page.evaluate("document.activeElement.id") == "results"  # nothing else is left
        keys.press("Escape")
        seen.titled("Items that pass")  # back to all that pass
        assert seen.page.is_hidden("#query")


_SHIFTS = """
window.shifts = 0;
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shifts += entry.value;
}).observe({ type: 'layout-shift', buffered: false });
"""


def test_thumbnails_come_when_they_are_near_and_nothing_jumps(browser: Any, site: Site) -> None:
    with visit(browser, site.address, width=360) as seen:
        seen.settled()
        seen.choose(photo(506))
        images = seen.page.eval_on_selector_all(
            ".card img", "all => all.map(x => [x.loading, x.width > 0, x.getAttribute('width')])"
        )
        assert images == [["lazy", True, "160"]] * 60
        seen.page.wait_for_load_state("networkidle")
        loaded = {url for url in seen.asked if "/thumbnail" in url}
        missing = "[...document.querySelectorAll('.card img')].filter(x => !x.complete).length"
        assert seen.page.evaluate(missing) > 0 and len(loaded) > 0
        place = "document.querySelector('.card:last-child').offsetTop"
        before = seen.page.evaluate(place)
        seen.page.evaluate(_SHIFTS)
        for _ in range(15):
            seen.page.mouse.wheel(0, 1500)
            seen.page.wait_for_timeout(20)
        seen.until(f"{missing} === 0")
        assert seen.page.evaluate(place) == before
        assert seen.page.evaluate("window.shifts") < 0.01


def test_the_first_paint_is_within_a_second(browser: Any, site: Site) -> None:
    with visit(browser, site.address) as seen:
        seen.settled()
        paints = "performance.getEntriesByType('paint').map(one => [one.name, one.startTime])"
        times = dict(seen.page.evaluate(paints))
        assert 0 < times["first-contentful-paint"] < 1000, times
