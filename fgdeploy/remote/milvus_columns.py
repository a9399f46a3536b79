"""Items as fields of a Milvus collection, and back.

An id, the code as a vector, a checksum, and each text as VARCHAR. Before 2.5 no field can be NULL,
so `missing` has a bit for each text that there is none of, and the text is "".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fgdeploy.core.codes import UInt8Array
from fgdeploy.retrieval.store.items import Row, row_checksum

TEXTS = ("path", "label", "sha256", "time", "json")
MAY_MISS = ("path", "label", "sha256", "json")  # the bits of `missing`, from the lowest
MOST_TEXT = 65_535  # bytes of a VARCHAR

_BITS = (*(1 << bit for bit in range(3)), 0, 1 << 3)  # of TEXTS; time is never missing


@dataclass(frozen=True)
class VectorForm:
    """How a code lies in a collection. words: of a record; kind: of pymilvus' DataType."""

    words: str
    kind: str
    index: str
    metric: str

    def vectors(self, codes: Sequence[bytes]) -> list[Any]:
        """Return codes as the client takes them."""
        return list(codes)

    def code(self, value: Any) -> bytes:
        """Return the code that a vector of the server is. Raises ValueError for none."""
        first = value[0] if isinstance(value, (list, tuple)) and len(value) == 1 else value
        return bytes(first)

    def distance(self, score: float, bits: int) -> int:
        """Return the Hamming distance that a score of the server means."""
        return int(score)


class SignForm(VectorForm):
    """Bits as +1 and -1: their inner product is bits - 2 * distance, exact in float32.

    L2 would be off by rounding.
    """

    def vectors(self, codes: Sequence[bytes]) -> list[Any]:
        """Return codes as lists of floats."""
        packed = np.frombuffer(b"".join(codes), np.uint8).reshape(len(codes), -1)
        signs = np.unpackbits(packed, axis=1).astype(np.float32) * 2 - 1
        return list(signs.tolist())

    def code(self, value: Any) -> bytes:
        """Return the code that a vector of the server is. Raises ValueError for none."""
        return np.packbits(np.asarray(value, np.float32) > 0).tobytes()

    def distance(self, score: float, bits: int) -> int:
        """Return the Hamming distance that an inner product means."""
        return round((bits - score) / 2)


BINARY = VectorForm("binary vectors, Hamming", "BINARY_VECTOR", "BIN_FLAT", "HAMMING")
SIGNS = SignForm(
    "floats +1 and -1, inner product, as the server has no binary vectors",
    *("FLOAT_VECTOR", "FLAT", "IP"),
)
FORMS = {form.kind: form for form in (BINARY, SIGNS)}


def columns_of(rows: Sequence[Row], form: VectorForm) -> dict[str, list[Any]]:
    """Return rows as columns by the name of their field."""
    numbers, codes, *texts = (list(column) for column in zip(*rows, strict=True))
    missing = [
        sum(bit for bit, text in zip(_BITS, row[2:], strict=True) if text is None) for row in rows
    ]
    return {
        "id": numbers,
        "code": form.vectors(codes),
        "crc": [row_checksum(row) for row in rows],
        "missing": missing,
        **{
            name: ["" if text is None else text for text in column]
            for name, column in zip(TEXTS, texts, strict=True)
        },
    }


def row_in(found: Mapping[str, Any], form: VectorForm) -> Row:
    """Return the row that the server gave. Raises ValueError, TypeError or KeyError for none."""
    missing = int(found["missing"])
    path, label, sha256, time, json = (
        None if missing & bit else str(found[name]) for name, bit in zip(TEXTS, _BITS, strict=True)
    )
    return (int(found["id"]), form.code(found["code"]), path, label, sha256, time or "", json)


def packed(codes: UInt8Array) -> list[bytes]:
    """Return codes (N, bytes) as bytes."""
    return [code.tobytes() for code in codes]
