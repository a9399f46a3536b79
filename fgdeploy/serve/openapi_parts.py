"""What the OpenAPI document says of bodies and answers, with examples that a client can send."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_CODE = "9f1c03a77be24d58"
_MODEL = "6c0d5a1e" * 8
_TIME = "2026-01-31T12:00:00+00:00"
_ITEM = {
    "id": 7,
    "label": "owl",
    "path": "camera://yard/2026-01-31T12:00:00Z",
    "time": _TIME,
    "sha256": "0f" * 32,
    "code": _CODE,
}
_HIT = {"rank": 1, "distance": 3, "id": 7, "label": "owl", "path": _ITEM["path"]}

STRING = _TEXT = {"type": "string"}
_MAYBE = {"type": ["string", "null"]}
_THUMBNAIL = {"type": "boolean", "description": "With full=true: whether there is one."}
_COUNT = {"type": "integer", "minimum": 0}
_ID = {"type": "integer", "minimum": 0, "maximum": 2**62}


def _object(example: Any, optional: tuple[str, ...] = (), **fields: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": fields,
        "required": [name for name in fields if name not in optional],
        "additionalProperties": False,
        "example": example,
    }


SCHEMAS: Mapping[str, Any] = {
    "Error": _object(
        {"error": "there is no item 7", "kind": "unknown_id"},
        error={**_TEXT, "description": "What failed, in one line."},
        kind={**_TEXT, "description": "The same word for the same kind of failure."},
    ),
    "Code": _object(
        {"code": _CODE, "bits": 64, "model": _MODEL},
        code={**_TEXT, "pattern": "^([0-9a-f]{2})+$", "description": "Hex digits."},
        bits={"type": "integer", "minimum": 1},
        model={**_TEXT, "description": "Codes of the same model can be compared."},
    ),
    "Hit": _object(
        _HIT,
        optional=("time", "sha256", "thumbnail"),
        rank={"type": "integer", "minimum": 1},
        distance={"type": "integer", "minimum": 0, "description": "Bits that differ."},
        id=_ID,
        label=_MAYBE,
        path=_MAYBE,
        time={**_MAYBE, "description": "With full=true, as sha256; null for one removed since."},
        sha256=_MAYBE,
        thumbnail=_THUMBNAIL,
    ),
    "Nearest": _object(
        {"code": _CODE, "hits": [_HIT]},
        optional=("complete",),
        code=_TEXT,
        hits={"type": "array", "items": {"$ref": "#/components/schemas/Hit"}},
        complete={
            "type": "boolean",
            "description": "With a radius: whether these are all within it.",
        },
    ),
    "Item": _object(
        _ITEM,
        optional=("thumbnail",),
        id=_ID,
        label=_MAYBE,
        path=_MAYBE,
        time=_TEXT,
        sha256=_TEXT,
        code=_TEXT,
        thumbnail=_THUMBNAIL,
    ),
    "Enrolled": _object(
        {"status": "new", "item": _ITEM},
        status={"enum": ["new", "changed", "known"]},
        item={"$ref": "#/components/schemas/Item"},
    ),
    "Items": _object(
        {"items": [_ITEM], "next": None},
        items={"type": "array", "items": {"$ref": "#/components/schemas/Item"}},
        next={
            "type": ["integer", "null"],
            "description": "Give it as `after` for the next page; null at the end.",
        },
    ),
    "State": _object(
        {"state": "ready", "model": _MODEL, "engine": "openvino int8", "items": 1000},
        optional=("model", "engine", "items"),
        state=_TEXT,
        model=_TEXT,
        engine=_TEXT,
        items={"type": ["integer", "null"]},
    ),
    "Labels": _object(
        {"labels": [{"label": "owl", "items": 12}], "unlabelled": 0, "more": False},
        labels={
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"label": _TEXT, "items": _COUNT},
                "required": ["label", "items"],
                "additionalProperties": False,
            },
        },
        unlabelled=_COUNT,
        more={"type": "boolean", "description": "Whether there are further labels."},
    ),
    "Explained": _object(
        {"panels": [{"caption": "photo", "picture": "data:image/jpeg;base64,..."}], "legend": ""},
        panels={
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "caption": _TEXT,
                    "picture": {**_TEXT, "description": "A data URI of a JPEG."},
                },
                "required": ["caption", "picture"],
                "additionalProperties": False,
            },
        },
        legend={**_TEXT, "description": "What the pictures mean."},
    ),
    "About": _object(
        {
            **{"method": "topmost", "bits": 64, "index": True, "thumbnails": True, "where": False},
            **{"unexplained": None, "upload_bytes": 20_000_000},
        },
        method=_TEXT,
        bits=_COUNT,
        index={"type": "boolean", "description": "Whether it can search and add."},
        thumbnails={"type": "boolean", "description": "Whether the index keeps thumbnails."},
        where={"type": "boolean", "description": "Whether `where` is allowed."},
        unexplained={
            **_MAYBE,
            "description": "Why POST /explain does not answer, or null.",
        },
        upload_bytes=_COUNT,
    ),
    "ByCode": _object({"code": _CODE}, code={**_TEXT, "description": "A code in hex digits."}),
    "ById": _object({"id": 7}, id={**_ID, "description": "An item, which is no answer itself."}),
}

_REFUSALS = {
    400: ("The request cannot be read, or was cut off.", "the body was cut off", "cut"),
    401: ("No API key, or a wrong one.", "expected the service's API key", "api_key"),
    403: ("Not allowed.", "pages of other sites may not use the service", "cross_site"),
    404: ("Unknown id, or the service has no index.", "there is no item 7", "unknown_id"),
    408: ("The body came too slowly.", "the body did not arrive within 30 s", "slow"),
    409: ("There already with another label.", "this image is item 7", "other_label"),
    413: ("The body is too long.", "expected a body of at most 20,000,000 bytes", "too_long"),
    415: ("No image.", "expected an image as the body", "media_type"),
    421: ("The service has another name.", "the service is not known by this name", "host"),
    422: ("A damaged image, or a wrong value.", "k: expected 1 to 1000", "usage"),
    429: ("Too many at once; see Retry-After.", "32 frames wait for the engine", "busy"),
    500: ("A fault of the service.", "the service failed; its log says why", "internal"),
    503: ("Not now: engine, index or time-out.", "the engine cannot answer now", "engine"),
}


def answers(good: Mapping[int, tuple[str, str]], *refused: int) -> dict[int | str, Any]:
    """Return a route's `responses`. good: status -> what it means, and the schema's name."""
    found: dict[int | str, Any] = {
        status: _json(what, {"$ref": f"#/components/schemas/{name}"}, SCHEMAS[name]["example"])
        for status, (what, name) in good.items()
    }
    for status in sorted({*refused, 400, 401, 403, 421, 422, 500}):
        what, message, kind = _REFUSALS[status]
        error = {"error": message, "kind": kind}
        found[status] = _json(what, {"$ref": "#/components/schemas/Error"}, error)
        if status == 429:
            found[status]["headers"] = {
                "Retry-After": {"schema": {"type": "integer"}, "description": "Seconds to wait."}
            }
    return found


def _json(what: str, schema: Any, example: Any) -> dict[str, Any]:
    return {
        "description": what,
        "content": {"application/json": {"schema": schema, "example": example}},
    }


KEYS: Mapping[str, Any] = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
_BYTES = {"schema": {"type": "string", "format": "binary"}}
IMAGE: Mapping[str, Any] = {
    kind: _BYTES for kind in ("image/jpeg", "image/png", "image/webp", "application/octet-stream")
}
_WAYS = ("ByCode", "ById")


def image_body(also_json: bool = False) -> dict[str, Any]:
    """Return the `openapi_extra` of a route that takes one image, or a query in JSON."""
    content = dict(IMAGE)
    if also_json:
        content["application/json"] = {
            "schema": {"oneOf": [{"$ref": f"#/components/schemas/{name}"} for name in _WAYS]},
            "examples": {name: {"value": SCHEMAS[name]["example"]} for name in _WAYS},
        }
    return {"requestBody": {"required": True, "content": content}}
