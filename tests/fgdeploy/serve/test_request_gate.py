"""Who may ask: names, origins, keys; and what becomes of faults."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future

import pytest
from fastapi import FastAPI

from fgdeploy.core.errors import EngineError, IndexStoreError
from fgdeploy.serve.service import HashedUpload
from tests.fgdeploy.serve.asking import Inside, photo, told
from tests.fgdeploy.serve.conftest import Served

KEY = "0123456789abcdef"


def test_names_of_this_machine(served: Served) -> None:
    for host in ("localhost", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST:1"):
        assert served.ask("GET", "/readyz", host=host).status_code == 200


def test_other_names_are_refused(served: Served) -> None:
    for host in ("evil.example", "evil.example:8000", "127.0.0.1.evil", "", "[x]"):
        told(served.ask("GET", "/items", host=host), 421, "host")


def test_any_name_where_all_are_allowed(serve: Callable[..., Served]) -> None:
    served = serve(hosts=None, api_key=KEY)
    answer = served.ask("GET", "/readyz", host="camera.example", x_api_key=KEY)
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
    ],
)
def test_pages_of_other_sites_change_nothing(served: Served, headers: dict[str, str]) -> None:
    item = served.ask.image("/items", photo(0)).json()["item"]
    told(served.ask("DELETE", f"/items/{item['id']}", **headers), 403, "cross_site")
    told(served.ask("POST", "/items", photo(1), **headers), 403, "cross_site")
    assert len(served.service.index) == 1
    for path in ("/items", "/items/1/thumbnail", "/labels", "/page/app.js", "/healthz"):
        told(served.ask("GET", path, **headers), 403, "cross_site")  # pictures that load tell too


def test_a_link_on_another_site_leads_to_the_page_and_nowhere_else(served: Served) -> None:
    followed = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"}
    assert served.ask("GET", "/", **followed).status_code == 200
    for path in ("/items", "/page/app.js", "/metrics", "/?x=1"):
        answer = served.ask("GET", path, **followed)
        assert answer.status_code == (422 if "?" in path else 403), path
    told(served.ask("POST", "/", **followed), 403, "cross_site")
    told(
        served.ask("GET", "/", sec_fetch_site="cross-site", sec_fetch_mode="cors"),
        403,
        "cross_site",
    )


def test_the_page_needs_no_key_and_can_be_switched_off(serve: Callable[..., Served]) -> None:
    served = serve(api_key=KEY)
    for path in ("/", "/page/app.js", "/page/style.css"):
        assert served.ask("GET", path).status_code == 200
    for path in ("/page/none", "/page/", "/about", "/labels", "/items/1/thumbnail"):
        told(served.ask("GET", path), 401, "api_key")
    told(served.ask("POST", "/"), 401, "api_key")
    served.service.close()
    served = serve(page=False)
    for path in ("/", "/page/app.js"):
        told(served.ask("GET", path), 404, "unknown_route")
    assert "/" not in served.ask("GET", "/openapi.json").json()["paths"]
    assert served.ask("GET", "/labels").status_code == 200


def test_the_page_in_another_application(serve: Callable[..., Served]) -> None:
    whole = FastAPI()
    whole.mount("/birds", serve(api_key=KEY).ask.app)
    ask = Inside(whole)
    assert ask("GET", "/birds/").status_code == 200
    assert ask("GET", "/birds/page/app.js").status_code == 200
    told(ask("GET", "/birds/items"), 401, "api_key")
    assert ask("GET", "/birds/items", x_api_key=KEY).status_code == 200


def test_its_own_pages_may(served: Served) -> None:
    own = {"origin": "http://127.0.0.1:8000", "sec_fetch_site": "same-origin"}
    answer = served.ask("POST", "/hash", photo(0), content_type="image/jpeg", **own)
    assert answer.status_code == 200


def test_a_key_is_asked_for_everywhere_but_healthz(serve: Callable[..., Served]) -> None:
    served = serve(api_key=KEY)
    routes = [("GET", "/items"), ("POST", "/hash"), ("GET", "/metrics"), ("GET", "/readyz")]
    for method, path in [*routes, ("GET", "/openapi.json"), ("GET", "/nowhere")]:
        answer = served.ask(method, path)
        told(answer, 401, "api_key")
        assert answer.headers["www-authenticate"] == "Bearer"
    for given in ({"x_api_key": KEY[:-1]}, {"authorization": f"Basic {KEY}"}, {"x_api_key": ""}):
        told(served.ask("GET", "/items", **given), 401, "api_key")
    for given in ({"x_api_key": KEY}, {"authorization": f"Bearer {KEY}"}):
        assert served.ask("GET", "/items", **given).status_code == 200
    assert served.ask("GET", "/healthz").status_code == 200


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (EngineError("/secret/eet.fgd: device lost"), 503, "engine"),
        (IndexStoreError("/secret/g.fgi: the disk is full"), 503, "index"),
        (ZeroDivisionError("/secret"), 500, "internal"),
    ],
)
def test_faults_go_to_the_log_and_not_to_clients(
    served: Served,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    status: int,
    kind: str,
) -> None:
    def fail(image: bytes) -> Future[HashedUpload]:
        future: Future[HashedUpload] = Future()
        future.set_exception(error)
        return future

    monkeypatch.setattr(served.service, "hash", fail)
    with caplog.at_level(logging.ERROR, "fgdeploy.live"):
        answer = served.ask.image("/hash", photo(0))
    told(answer, status, kind, "log says why")
    assert "secret" not in answer.text
    (line,) = caplog.messages
    assert line.startswith("request_failed") and "secret" in line
