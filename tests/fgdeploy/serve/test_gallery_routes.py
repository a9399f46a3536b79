"""Thumbnails, labels, what is on offer: held to the index."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fgdeploy.retrieval import Item
from tests.fgdeploy.serve.asking import photo, told
from tests.fgdeploy.serve.conftest import Served

MakeService = Callable[..., Served]


@pytest.fixture
def kept(served: Served) -> Served:
    """A service whose index keeps thumbnails, with two items."""
    served.service.index.thumbnails.keep()
    for seed in (0, 1):
        answer = served.ask.image(f"/items?label=owl&uri=cam://{seed}", photo(seed))
        assert answer.status_code == 201
    return served


def test_a_thumbnail_is_the_one_that_the_index_keeps(kept: Served) -> None:
    answer = kept.ask("GET", "/items/1/thumbnail")
    assert answer.status_code == 200
    assert answer.content == kept.service.index.thumbnails.read([1])[1]
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "private, no-cache"
    listed = kept.ask("GET", "/items?full=true").json()["items"]
    assert [item["thumbnail"] for item in listed] == [True, True]
    tag = answer.headers["etag"]
    again = kept.ask("GET", "/items/1/thumbnail", if_none_match=tag)
    assert (again.status_code, again.content) == (304, b"")
    other = kept.ask("GET", "/items/2/thumbnail", if_none_match=tag)
    assert other.status_code == 200 and other.headers["etag"] != tag


def test_the_thumbnail_of_one_photo_is_kept_for_ever(kept: Served) -> None:
    path = f"/items/1/thumbnail?sha256={kept.ask('GET', '/items/1').json()['sha256']}"
    answer = kept.ask("GET", path)
    assert answer.status_code == 200 and "immutable" in answer.headers["cache-control"]
    assert kept.ask.image("/items?uri=cam://0", photo(7)).json()["status"] == "changed"
    told(kept.ask("GET", path), 404, "no_thumbnail", "of that photo for item 1")
    assert kept.ask("GET", "/items/1/thumbnail").content != answer.content
    told(kept.ask("GET", "/items/1/thumbnail?sha256=../etc"), 422, "usage", "sha256")


def test_no_photo_is_opened_by_its_path(kept: Served, tmp_path: Path) -> None:
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(photo(9))
    index = kept.service.index
    code = index.get([1])[0].code
    index.add([Item(str(secret), code), Item("../secret.jpg", code)])
    for number in (3, 4):
        told(kept.ask("GET", f"/items/{number}/thumbnail"), 404, "no_thumbnail")
    told(kept.ask("GET", "/items/99/thumbnail"), 404, "unknown_id")
    for path in ("/items/../thumbnail", "/items/%2e%2e%2f1/thumbnail", "/items/-1/thumbnail"):
        assert kept.ask("GET", path).status_code in (404, 422)


def test_labels_are_counted_the_most_frequent_first(served: Served) -> None:
    index = served.service.index
    names = ["owl"] * 2 + ["jay"] * 3 + ["auk"] * 2 + [None]
    width = (index.bits + 7) // 8
    index.add([Item(f"cam://{n}", bytes(width), name) for n, name in enumerate(names)])
    expected = [("jay", 3), ("auk", 2), ("owl", 2)]
    found = served.ask("GET", "/labels").json()
    assert [(one["label"], one["items"]) for one in found["labels"]] == expected
    assert (found["unlabelled"], found["more"]) == (1, False)
    first = served.ask("GET", "/labels?limit=1").json()
    assert first["labels"] == found["labels"][:1] and first["more"] is True
    served.ask("DELETE", "/items/3")  # a jay
    assert served.ask("GET", "/labels").json()["labels"][0] == {"label": "auk", "items": 2}


def test_what_is_on_offer(serve: MakeService) -> None:
    served = serve()
    expected = {
        **{"method": "toy", "bits": 12, "index": True, "thumbnails": False, "where": False},
        **{"unexplained": "the service was started without --explain", "upload_bytes": 20_000_000},
    }
    assert served.ask("GET", "/about").json() == expected
    served.service.index.thumbnails.keep()
    assert served.ask("GET", "/about").json() == {**expected, "thumbnails": True}
    served.service.close()
    hashes = serve(index=False, filters=True)
    assert hashes.ask("GET", "/about").json() == {**expected, "index": False, "where": True}
    told(hashes.ask("GET", "/labels"), 404, "no_index")
    told(hashes.ask("GET", "/items/1/thumbnail"), 404, "no_index")
