"""The page when texts are hostile, requests refused, keys asked for, and the service gone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from fgdeploy.hasher import load
from fgdeploy.photos import thumbnail
from fgdeploy.retrieval import Index, Item
from fgdeploy.serve.serve_settings import ServeSettings
from fgdeploy.serve.service import Service
from tests.fgdeploy.serve.asking import JPEG, WAIT, photo
from tests.fgdeploy.serve.browsing import Visit, chromium, listening, visit

KEY = "0123456789abcdef"
TEXTS = (
    "<img src=x onerror=window.hit=1>",
    '"><script>window.hit=1</script>',
    "javascript:window.hit=1//",
    "</title></bdi></li><svg onload=window.hit=1>",
    "${window.hit=1} {{window.hit=1}} <%= window.hit=1 %>",
    "' onmouseover='window.hit=1",
    "owl\u202egpj.exe\u202c \u2066x",
    "&lt;b&gt; &amp;amp;",
    "x" * 2000,
    "  two  spaces\tand\nlines  ",
)
URIS = ("javascript://%0awindow.hit=1", "data://text/html,<script>window.hit=1</script>")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


def _service(bundle: Path, folder: Path, **settings: Any) -> Service:
    hasher = load(bundle, "onnxruntime", threads=1)
    index = Index.create(folder / "g.fgi", hasher.fingerprint, hasher.bits)
    index.thumbnails.keep()
    code = hasher.encode([photo(0)])[0].tobytes()
    paths = [*URIS, *TEXTS]
    labels = [*TEXTS, *TEXTS][: len(paths)]
    items = [Item(path, code, label) for path, label in zip(paths, labels, strict=True)]
    index.add(items, thumbnails=[thumbnail(photo(0))] * len(items))
    return Service(hasher, index, ServeSettings(**settings))


@pytest.fixture(scope="module")
def address(
    browser: Any, toy_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("hostile")
    with _service(toy_bundle, folder) as service, listening(service) as found:
        yield found


def _unharmed(seen: Visit) -> None:
    assert seen.page.evaluate("window.hit === undefined")
    assert (
        seen.page.evaluate("document.querySelectorAll('main script, svg, [onerror]').length") == 0
    )
    assert seen.page.evaluate("document.querySelectorAll('a:not(.skip)').length") == 0


def test_texts_are_shown_as_they_are_and_never_run(browser: Any, address: str) -> None:
    items = httpx.get(f"{address}/items", timeout=WAIT).json()["items"]
    with visit(browser, address) as seen:
        seen.settled()
        for item in items:
            card = f'.card[data-id="{item["id"]}"]'
            assert seen.text(f"{card} .label") == item["label"]
            assert seen.text(f"{card} .path") == item["path"]
        options = seen.page.eval_on_selector_all("#labels option", "all => all.map(x => x.value)")
        assert set(TEXTS) - {TEXTS[-1]} <= set(options)
        isolated = "all => all.every(one => getComputedStyle(one).unicodeBidi === 'isolate')"
        assert seen.page.eval_on_selector_all(".label, .path", isolated)
        for item in items[:4]:
            seen.page.click(f'.card[data-id="{item["id"]}"] .remove')
            assert item["label"] in seen.text("#removing-words")
            seen.page.keyboard.press("Escape")
            seen.page.click(f'.card[data-id="{item["id"]}"] .like')
            seen.titled(f"Like item {item['id']}, {item['label'][:20]}")
        seen.choose(photo(0), TEXTS[0])
        assert seen.text("#query-name") == TEXTS[0]
        _unharmed(seen)
        widest = seen.page.evaluate("document.documentElement.scrollWidth")
        assert widest <= 1200  # long labels and paths break


def test_refusals_are_told_as_text(browser: Any, address: str) -> None:
    with visit(browser, address, refusals=True) as seen:
        seen.settled()
        seen.choose(photo(1))
        seen.page.fill("#new-uri", "<img src=x onerror=window.hit=1>")
        seen.page.click("#enrol button")
        seen.page.wait_for_selector("#trouble:not([hidden])")
        assert "<img src=x onerror=window.hit=1>" in seen.text("#trouble-words")
        assert seen.page.get_attribute("#trouble", "role") == "alert"
        assert seen.page.is_hidden("#again")  # the same again would not help
        seen.page.click("#trouble-close")
        given = {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no photo"}
        seen.page.set_input_files("#file", given)
        seen.page.wait_for_selector("#trouble:not([hidden])")
        assert "image" in seen.text("#trouble-words")
        assert seen.ids() == []  # no answers of another photo stand there
        _unharmed(seen)


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (429, "busy", "32 frames wait"),
        (503, "engine", "<b>engine</b>"),
        (500, "internal", "failed"),
    ],
)
def test_what_may_pass_can_be_tried_again(
    browser: Any, address: str, status: int, kind: str, words: str
) -> None:
    with visit(browser, address, refusals=True) as seen:
        seen.settled()
        answer = {"status": status, "body": json.dumps({"error": words, "kind": kind})}
        seen.page.route("**/search?*", lambda route: route.fulfill(**answer))
        given = {"name": "owl.jpg", "mimeType": "image/jpeg", "buffer": photo(2)}
        seen.page.set_input_files("#file", given)
        seen.page.wait_for_selector("#trouble:not([hidden])")
        assert words.lower() in seen.text("#trouble-words").lower()
        assert seen.page.is_visible("#again") == (status != 500)
        seen.page.unroute("**/search?*")
        if status != 500:
            seen.page.click("#again")
            seen.titled("Like your photo")
            assert len(seen.ids()) == len(TEXTS) + len(URIS)
            assert seen.page.is_hidden("#trouble")


def test_a_service_that_went_away_and_one_that_is_not_ready(browser: Any, address: str) -> None:
    with visit(browser, address, refusals=True) as seen:
        seen.settled()
        seen.page.route("**/search?*", lambda route: route.abort())
        given = {"name": "owl.jpg", "mimeType": "image/jpeg", "buffer": photo(2)}
        seen.page.set_input_files("#file", given)
        seen.page.wait_for_selector("#trouble:not([hidden])")
        assert "cannot be reached" in seen.text("#trouble-words")
        body = json.dumps({"error": "the engine failed and stopped", "kind": "not_ready"})
        seen.page.route("**/readyz", lambda route: route.fulfill(status=503, body=body))
        seen.page.reload()
        seen.page.wait_for_selector("#state[data-state=down]")
        assert seen.text("#state") == "Not ready: the engine failed and stopped"


def test_a_photo_that_is_too_long_is_not_sent(
    browser: Any, toy_bundle: Path, tmp_path: Path
) -> None:
    service = _service(toy_bundle, tmp_path, upload_bytes=1000)
    with service, listening(service) as address, visit(browser, address) as seen:
        seen.settled()
        given = {"name": "big.jpg", "mimeType": "image/jpeg", "buffer": b"x" * 1001}
        seen.page.set_input_files("#file", given)
        seen.page.wait_for_selector("#trouble:not([hidden])")
        assert "big.jpg has 1,001 bytes" in seen.text("#trouble-words")
        assert not any("/search" in url for url in seen.asked)


def test_without_an_index_it_hashes(browser: Any, toy_bundle: Path) -> None:
    service = Service(load(toy_bundle, "onnxruntime", threads=1))
    with service, listening(service) as address, visit(browser, address) as seen:
        seen.settled()
        assert "no index" in seen.text("#empty") and seen.page.is_hidden("#filters")
        given = {"name": "owl.jpg", "mimeType": "image/jpeg", "buffer": photo(2)}
        seen.page.set_input_files("#file", given)
        seen.titled("Its code")
        expected = httpx.post(f"{address}/hash", content=photo(2), headers=JPEG, timeout=WAIT)
        assert seen.text("#empty code") == expected.json()["code"]
        assert seen.page.is_hidden("#enrol") and seen.page.is_disabled("#explain")
        assert "without --explain" in seen.text("#legend")


def test_the_key_is_asked_for_once_and_sent_as_a_header(
    browser: Any, toy_bundle: Path, tmp_path: Path
) -> None:
    service = _service(toy_bundle, tmp_path, api_key=KEY)
    with service, listening(service) as address, visit(browser, address, refusals=True) as seen:
        seen.page.wait_for_selector("#asking-key[open]")
        assert seen.ids() == []
        seen.page.keyboard.press("Escape")
        seen.page.wait_for_selector("#trouble:not([hidden])")
        assert "API key" in seen.text("#trouble-words")
        seen.page.click("#again")
        seen.page.fill("#key", "wrong-key-wrong-key")
        seen.page.keyboard.press("Enter")
        seen.until("document.querySelector('#key-words').textContent.startsWith('That is not')")
        seen.page.fill("#key", KEY)
        seen.page.keyboard.press("Enter")
        seen.page.wait_for_selector(".card")
        seen.settled()
        seen.until("document.querySelector('.card img').naturalWidth > 0")
        assert seen.page.get_attribute(".card img", "src").startswith("blob:")
        assert not any(KEY in url for url in seen.asked)
        seen.page.reload()
        seen.page.wait_for_selector(".card")  # this tab still has it
        assert not seen.page.is_visible("#asking-key")
        assert seen.page.evaluate("Object.keys(localStorage).length + document.cookie.length") == 0
