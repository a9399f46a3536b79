"""The routes: what they answer, held to the library."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fgdeploy.hasher import load
from tests.fgdeploy.serve.asking import photo, told
from tests.fgdeploy.serve.conftest import Served

MakeService = Callable[..., Served]
AS_JSON = {"content_type": "application/json"}


def _fill(served: Served, count: int = 5) -> None:
    for seed in range(count):
        answer = served.ask.image(f"/items?label=kind{seed % 2}&uri=cam://{seed}", photo(seed))
        assert answer.status_code == 201, answer.text


def test_hash_gives_the_codes_of_the_library(served: Served, toy_bundle: Path) -> None:
    photos = [photo(seed) for seed in range(6)]
    with load(toy_bundle, "onnxruntime") as hasher:
        codes = hasher.encode(photos)
        for image, code in zip(photos, codes, strict=True):
            answer = served.ask.image("/hash", image)
            assert answer.status_code == 200
            assert answer.json() == {
                "code": code.tobytes().hex(),
                "bits": hasher.bits,
                "model": hasher.fingerprint,
            }


def test_search_gives_the_hits_of_the_library(served: Served) -> None:
    _fill(served)
    image = photo(3)
    found = served.ask.image("/search?k=4", image).json()
    code = np.frombuffer(bytes.fromhex(found["code"]), np.uint8)
    (hits,) = served.service.index.search(code[None], 4)
    expected = [
        {"rank": h.rank, "distance": h.distance, "id": h.id, "label": h.label, "path": h.path}
        for h in hits
    ]
    assert found["hits"] == expected
    assert found["hits"][0]["distance"] == 0
    again = served.ask("POST", "/search?k=4", json.dumps({"code": found["code"]}), **AS_JSON)
    assert again.json() == found
    like = served.ask("POST", "/search?k=9", json.dumps({"id": hits[0].id}), **AS_JSON).json()
    assert [hit["id"] for hit in like["hits"]][:3] == [hit.id for hit in hits[1:]]
    assert len(like["hits"]) == 4  # all but itself


def test_a_radius_cuts_and_says_whether_that_is_all(served: Served) -> None:
    _fill(served)
    image = photo(3)
    all_of_them = served.ask.image("/search?k=5", image).json()["hits"]
    radius = all_of_them[2]["distance"]
    within = [hit for hit in all_of_them if hit["distance"] <= radius]
    found = served.ask.image(f"/search?k=1000&radius={radius}", image).json()
    assert found["hits"] == within and found["complete"] is True
    cut = served.ask.image(f"/search?k=1&radius={radius}", image).json()
    assert cut["hits"] == within[:1] and cut["complete"] is False


def test_labels_filter(served: Served) -> None:
    _fill(served)
    found = served.ask.image("/search?label=kind1", photo(0)).json()["hits"]
    assert {hit["label"] for hit in found} == {"kind1"} and len(found) == 2
    listed = served.ask("GET", "/items?label=kind1").json()["items"]
    assert sorted(hit["id"] for hit in found) == [item["id"] for item in listed]


def test_expressions_only_where_allowed(serve: MakeService) -> None:
    closed = serve()
    told(closed.ask("GET", "/items?where=id%3E2"), 403, "where", "--allow-where")
    told(closed.ask.image("/search?where=id%3E2", photo(0)), 403, "where")
    closed.service.close()
    served = serve(filters=True)
    _fill(served)
    ids = [item["id"] for item in served.ask("GET", "/items?where=id%3E2").json()["items"]]
    assert ids == [3, 4, 5]
    both = served.ask("GET", "/items?where=id%3E2%20or%20id%3D1&label=kind0").json()["items"]
    assert [item["id"] for item in both] == [1, 3, 5]
    told(served.ask("GET", "/items?where=1;drop%20table%20items"), 422, "usage", "not allowed")
    told(served.ask("GET", "/items?where=(select%201)"), 422, "usage", "^where")


def test_times_filter(served: Served) -> None:
    _fill(served)
    times = ["2026-01-31T12:00:00Z", "2026-01-31T13:00:00+01:00", "2026-01-31T12:00:00.5Z"]
    index = served.service.index
    items = [
        dataclasses.replace(one, time=two) for one, two in zip(index.items(), times, strict=False)
    ]
    index.remove([item.id or 0 for item in index.items()])
    index.add(items)

    def found(filters: str) -> list[int]:
        listed = [one["id"] for one in served.ask("GET", f"/items?{filters}").json()["items"]]
        hits = served.ask.image(f"/search?{filters}", photo(0)).json()["hits"]
        assert sorted(hit["id"] for hit in hits) == listed
        return listed

    assert found("since=2026-01-31T12:00:00Z") == [1, 2, 3]
    assert found("since=2026-01-31T12:00:00.1Z") == [3]
    assert found("until=2026-01-31T12:00:00.5Z") == [1, 2]
    assert found("until=2026-01-31T12:00:00Z") == []
    assert found("since=2026-01-31&until=2026-02-01&label=kind1") == [2]
    for name in ("since", "until"):
        told(served.ask("GET", f"/items?{name}=noon"), 422, "usage", f"^{name}: .*is not a time")
        told(served.ask.image(f"/search?{name}=2026-99-01", photo(0)), 422, "usage", "not a time")


def test_hits_with_their_items(served: Served) -> None:
    _fill(served)
    plain = served.ask.image("/search", photo(1)).json()["hits"]
    listed = served.ask("GET", "/items?full=true").json()["items"]
    full = served.ask.image("/search?full=true", photo(1)).json()["hits"]
    for one, more in zip(plain, full, strict=True):
        item = served.ask("GET", f"/items/{one['id']}").json()
        told_more = {"time": item["time"], "sha256": item["sha256"], "thumbnail": False}
        assert more == {**one, **told_more}
        assert {**item, "thumbnail": False} in listed


def test_an_answer_says_how_long_each_stage_took(served: Served) -> None:
    stages = {"decode", "queue", "inference", "total"}
    for path, more in (("/hash", set()), ("/search", {"search"}), ("/items", set())):
        told_so = served.ask.image(path, photo(1)).headers["server-timing"]
        times = dict(part.split(";dur=") for part in told_so.split(", "))
        assert set(times) == stages | more
        assert all(float(value) >= 0 for value in times.values())
        assert float(times["total"]) >= float(times["inference"])


def test_an_item_is_added_found_and_removed(served: Served) -> None:
    image = photo(1)
    added = served.ask.image("/items?label=owl&uri=camera://yard/1", image)
    assert added.status_code == 201
    item = added.json()["item"]
    assert added.json()["status"] == "new"
    assert (item["label"], item["path"]) == ("owl", "camera://yard/1")
    assert served.ask("GET", f"/items/{item['id']}").json() == item
    again = served.ask.image("/items?label=owl&uri=camera://yard/1", image)
    assert (again.status_code, again.json()) == (200, {"status": "known", "item": item})
    changed = served.ask.image("/items?label=jay&uri=camera://yard/1", image)
    assert (changed.status_code, changed.json()["status"]) == (200, "changed")
    assert changed.json()["item"]["label"] == "jay"
    assert served.ask("DELETE", f"/items/{item['id']}").json()["id"] == item["id"]
    told(served.ask("DELETE", f"/items/{item['id']}"), 404, "unknown_id", str(item["id"]))
    told(served.ask("GET", f"/items/{item['id']}"), 404, "unknown_id")
    assert served.ask("GET", "/items").json() == {"items": [], "next": None}


def test_a_copy_is_known_and_another_label_for_it_refused(served: Served) -> None:
    first = served.ask.image("/items?label=owl", photo(1)).json()["item"]
    copy = served.ask.image("/items?label=owl", photo(1))
    assert (copy.status_code, copy.json()) == (200, {"status": "known", "item": first})
    told(served.ask.image("/items?label=jay", photo(1)), 409, "other_label", "label owl")


def test_paths_of_the_machine_are_no_uris(served: Served) -> None:
    for uri in ("/etc/passwd", "photo.jpg", "file:///etc/passwd", "a b://c"):
        told(
            served.ask.image(f"/items?uri={uri}", photo(0)), 422, "usage", "uri .*expected one such"
        )


def test_pages_of_items(served: Served) -> None:
    _fill(served)
    ids, after = [], -1
    while after is not None:
        page = served.ask("GET", f"/items?limit=2&after={after}").json()
        ids += [item["id"] for item in page["items"]]
        after = page["next"]
    assert ids == [1, 2, 3, 4, 5]


def test_without_an_index_it_only_hashes(serve: MakeService) -> None:
    served = serve(index=False)
    assert served.ask.image("/hash", photo(0)).status_code == 200
    told(served.ask.image("/search", photo(0)), 404, "no_index", "--index")
    told(served.ask.image("/items", photo(0)), 404, "no_index")
    told(served.ask("GET", "/items"), 404, "no_index")
    assert served.ask("GET", "/readyz").json()["items"] is None


_WRONG = {
    "/search?k=0": "k: .*greater than or equal to 1",
    "/search?k=1001": "k: .*1000",
    "/search?K=3": "unknown parameter 'K'; known are: full, k, label, radius, since, until, where",
    "/search?k=3&k=4": "more than once",
    "/search?radius=-1": "radius: ",
    "/hash?k=3": "known are: none",
}


def test_wrong_parameters(served: Served) -> None:
    for path, words in _WRONG.items():
        told(served.ask.image(path, photo(0)), 422, "usage", words)


_NO_QUERIES = (
    *("", "[]", "{", "{}", '{"id": true}', '{"id": -1}', '{"id": 1.5}', '{"code": 7}', "null"),
    *('{"id": 1, "code": "00"}', '{"id": 1e400}', "[" * 60_000, '{"id": 4611686018427387905}'),
)


def test_wrong_json(served: Served) -> None:
    for body in _NO_QUERIES:
        told(served.ask("POST", "/search", body, **AS_JSON), 422, "usage", "expected")


def test_wrong_codes(served: Served) -> None:
    for code, words in (("zz", "expected 4 hex digits"), ("000f", "bits behind bit 12")):
        answer = served.ask("POST", "/search", json.dumps({"code": code}), **AS_JSON)
        told(answer, 422, "usage", f"^code.*{words}")
    told(served.ask("POST", "/search", '{"id": 9}', **AS_JSON), 404, "unknown_id", "item 9")


def test_unknown_routes_and_methods(served: Served) -> None:
    told(served.ask("GET", "/docs"), 404, "unknown_route", "openapi.json")
    told(served.ask("GET", "/page/none.js"), 404, "unknown_route")
    answer = served.ask("PUT", "/hash")
    told(answer, 405, "method")
    assert answer.headers["allow"] == "POST"
    told(served.ask("GET", "/items/abc"), 422, "usage", "number: ")


def test_the_document_has_an_example_of_every_answer_and_loads_nothing(served: Served) -> None:
    document = served.ask("GET", "/openapi.json").json()
    assert set(document["paths"]) == {
        "/hash",
        "/search",
        "/items",
        "/items/{number}",
        "/healthz",
        "/readyz",
        "/metrics",
        "/",
        "/about",
        "/explain",
        "/items/{number}/thumbnail",
        "/labels",
        "/page/{name}",
    }
    for path, methods in document["paths"].items():
        for method, route in methods.items():
            for status, answer in route["responses"].items():
                for kind, content in answer.get("content", {}).items():
                    told_so = "example" in content or kind != "application/json"
                    assert told_so, (path, method, status)
    assert "cdn" not in json.dumps(document)
