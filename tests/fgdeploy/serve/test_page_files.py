"""The files of the page: what is in them, and how they are sent."""

from __future__ import annotations

import re

from fgdeploy.serve.page_files import files, is_of_page
from tests.fgdeploy.serve.asking import told
from tests.fgdeploy.serve.conftest import Served


def test_the_page_and_its_files_are_sent_with_a_strict_policy(served: Served) -> None:
    kinds = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg"}
    for path, name in (("/", "index.html"), *((f"/page/{name}", name) for name in files())):
        answer = served.ask("GET", path)
        assert answer.status_code == 200 and answer.content == files()[name]
        assert answer.headers["content-type"].startswith(kinds[name.rpartition(".")[2]])
        assert answer.headers["x-content-type-options"] == "nosniff"
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy
        assert "script-src 'self';" in policy and "frame-ancestors 'none'" in policy
        again = served.ask("GET", path, if_none_match=answer.headers["etag"])
        assert (again.status_code, again.content) == (304, b"")


def test_nothing_else_is_sent(served: Served) -> None:
    names = ("..%2fapp.py", "%2e%2e/app.py", "app.py", "index.htm", "page_files.py")
    for name in names:
        told(served.ask("GET", f"/page/{name}"), 404, "unknown_route")
    assert not is_of_page("/page/../app.py") and is_of_page("/page/app.js")


def test_the_files_name_no_other_host_and_hold_no_script_in_markup() -> None:
    for name, body in files().items():
        text = body.decode("utf-8")
        hosts = re.findall(r"https?://[^\s\"')]+", text)
        assert set(hosts) <= {"http://www.w3.org/2000/svg"}, name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text)
        assert len(text.splitlines()) <= 400, name
    markup = files()["index.html"].decode("utf-8")
    assert not re.search(r"\son\w+=|style=|<style|<script(?![^>]*\ssrc=)", markup)
    for source in re.findall(r"(?:src|href)=\"([^\"]+)\"", markup):
        assert source.startswith("#") or source.removeprefix("page/") in files(), source
