"""The page in headless Chromium, and all that it loads and complains of."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest
import uvicorn

from fgdeploy.serve.app import create_app
from fgdeploy.serve.http_server import address_of, bound
from fgdeploy.serve.service import Service
from tests.fgdeploy.serve.asking import WAIT

CHROMIUM = shutil.which("chromium")
ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--no-first-run"),
)
WAIT_MS = 15_000


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """Run a browser. Skips the test where there is none."""
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("there is no chromium on this machine; apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def listening(service: Service) -> Iterator[str]:
    """Serve from a thread of this process, so that a test sees the index too; gives the address."""
    with bound("127.0.0.1", 0) as line:
        config = uvicorn.Config(
            create_app(service), log_config=None, lifespan="off", timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [line]}, daemon=True)
        thread.start()
        try:
            yield address_of(line)
        finally:
            server.should_exit = True
            thread.join(WAIT)
            assert not thread.is_alive()


@dataclass
class Visit:
    """A page that is open. errors: of scripts and the console; asked: what it requested."""

    page: Any
    errors: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def text(self, selector: str) -> str:
        """Return the text that stands there."""
        return str(self.page.text_content(selector))

    def ids(self) -> list[int]:
        """Return the ids of the cards, in order."""
        found = self.page.eval_on_selector_all(".card", "all => all.map(one => one.dataset.id)")
        return [int(number) for number in found]

    def until(self, script: str, arg: Any = None) -> None:
        """Wait until an expression, or a function of arg, holds.

        Playwright's own wait_for_function calls eval within the page, which the page forbids.
        """
        end = time.monotonic() + WAIT_MS / 1000
        while not self.page.evaluate(script, arg):
            assert time.monotonic() < end, script
            self.page.wait_for_timeout(20)

    def settled(self) -> None:
        """Wait until nothing is asked of the service."""
        self.until("document.querySelector('#results').getAttribute('aria-busy') === 'false'")

    def titled(self, words: str) -> None:
        """Wait until the results have this title."""
        self.until(
            "words => document.querySelector('#results-title').textContent.startsWith(words)",
            arg=words,
        )
        self.settled()

    def choose(self, image: bytes, name: str = "owl.jpg") -> None:
        """Choose a photo with the button."""
        given = {"name": name, "mimeType": "image/jpeg", "buffer": image}
        self.page.set_input_files("#file", given)
        self.titled("Like your photo")


@contextlib.contextmanager
def visit(
    browser: Any, address: str, width: int = 1200, refusals: bool = False, **options: Any
) -> Iterator[Visit]:
    """Open the page; at the end nothing may have gone wrong, nor gone to another host.

    refusals: whether the service may refuse requests, which the console then tells.
    """
    context = browser.new_context(viewport={"width": width, "height": 900}, **options)
    context.set_default_timeout(WAIT_MS)
    found = Visit(context.new_page())

    def noted(message: Any) -> None:
        refused = refusals and message.text.startswith("Failed to load resource")
        if message.type in ("error", "warning") and not refused:
            found.errors.append(message.text)

    found.page.on("console", noted)
    found.page.on("pageerror", lambda error: found.errors.append(str(error)))
    found.page.on("request", lambda request: found.asked.append(request.url))
    found.page.on("dialog", lambda dialog: found.errors.append(f"dialog: {dialog.message}"))
    try:
        found.page.goto(f"{address}/")
        yield found
        assert found.errors == []
        own = urlsplit(address).netloc
        foreign = [url for url in found.asked if urlsplit(url).netloc not in ("", own)]
        assert foreign == []
    finally:
        context.close()
