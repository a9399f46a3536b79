"""Checksums: one item's alone, and another for every other content."""

from __future__ import annotations

from fgdeploy.retrieval.store import checksums

TIME = "2026-01-31T12:00:00+00:00"


def test_a_checksum_belongs_to_one_item_alone() -> None:
    codes = {checksums.code_checksum(number, bytes(4)) for number in range(1, 1000)}
    texts = {
        checksums.text_checksum(number, checksums.text_of(path, "owl", None, TIME, None))
        for number in range(1, 1000)
        for path in (None, "/a.jpg")
    }
    assert (len(codes), len(texts)) == (999, 2 * 999)
    assert all(0 <= crc < 1 << 32 for crc in codes)


def test_a_checksum_of_text_tells_apart_what_is_where() -> None:
    given = [None, "", "a", "b", "None", "'a'", "a', 'b"]
    rows = [(p, q, s, t, j) for p in given for q in given for s in given for t in "ab"
            for j in given]  # fmt: skip
    found = {checksums.text_checksum(1, checksums.text_of(*row)) for row in rows}
    assert len(found) == len(rows)
    assert all(0 <= crc < 1 << 31 for crc in found)


def test_values_are_told_apart_by_type() -> None:
    """A flipped bit makes text of the same bytes a blob, or a whole number one with a point."""
    values = ["7", b"7", 7, 7.0, True, None]
    found = {
        checksums.text_checksum(1, checksums.text_of(None, value, None, TIME, None))
        for value in values
    }
    assert len(found) == len(values)


def test_a_checksum_fits_an_integer_of_the_database() -> None:
    assert checksums.checksum(2**32 - 1, 2**31 - 1) == 2**63 - 1
    whole = checksums.checksum(
        checksums.code_checksum(5, b"abc"),
        checksums.text_checksum(5, checksums.text_of("p", None, None, TIME, None)),
    )
    assert checksums.is_code(5, b"abc", whole)
    assert not checksums.is_code(6, b"abc", whole)
    assert checksums.is_text(whole, 5, "p", None, None, TIME, None)
    assert not checksums.is_text(whole, 6, "p", None, None, TIME, None)
    assert not checksums.is_text(whole, 5, "q", None, None, TIME, None)
