"""Is a JPEG all there? By its markers, as decoders fill what is missing and say nothing.

The markers: ITU-T T.81, Annex B. Nothing is decoded: 200 kB take about 0.2 ms. So one whose encoder
wrote an end marker behind half a picture passes, as it does in every decoder.
"""

from __future__ import annotations

_START, _END, _SCAN = 0xD8, 0xD9, 0xDA
_ALONE = frozenset({0x01, *range(0xD0, 0xD8)})  # markers without a length
# What follows 0xFF in entropy-coded data and is no marker: a stuffed zero, a restart.
_DATA = frozenset({0x00, *range(0xD0, 0xD8)})
_PADDING = b"\x00\r\n \xff"  # what cameras fill a part or buffer up with


def damage(jpeg: bytes) -> str | None:
    """Return what is wrong with a JPEG's markers, None for one whole picture and padding."""
    if jpeg[:2] != b"\xff\xd8":
        return "it does not begin as a JPEG" if jpeg else "it is empty"
    place, scans = 2, 0
    while True:
        place = _after_data(jpeg, place) if scans else place
        if place >= len(jpeg) - 1:
            return "it is cut short"
        if jpeg[place] != 0xFF:
            return "it is garbled"
        marker, place = jpeg[place + 1], place + 2
        if marker == _END:
            break
        if marker == _START:
            return "another picture begins inside it"
        if marker == 0xFF:  # fills up
            place -= 1
        elif marker not in _ALONE:
            size = int.from_bytes(jpeg[place : place + 2], "big")
            if place + max(size, 2) > len(jpeg):
                return "it is cut short"
            if size < 2 or marker == 0:
                return "it is garbled"
            place += size
            scans += marker == _SCAN
    if not scans:
        return "it ends before its pixels"
    if rest := len(jpeg[place:].strip(_PADDING)):
        return f"{rest} bytes follow its end"
    return None


def _after_data(jpeg: bytes, place: int) -> int:
    """Return where the next marker begins, the length of all where there is none."""
    last = len(jpeg) - 1
    while 0 <= (place := jpeg.find(0xFF, place)) < last:
        if jpeg[place + 1] not in _DATA:
            return place
        place += 2
    return len(jpeg)
