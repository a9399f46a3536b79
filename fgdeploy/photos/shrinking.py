"""A photo as a thumbnail: a small JPEG that a later model can hash where the photo is no more."""

from __future__ import annotations

import io

from PIL import Image

from fgdeploy.core.errors import ImageError
from fgdeploy.photos.given import ImageLike
from fgdeploy.photos.images import decode
from fgdeploy.photos.pixels import AS_STORED, Reading

# Measured by benchmarks/retrieval/thumbnails.py: what models of 224 pixels need.
SIDE, QUALITY = 256, 90
MOST_BYTES = 1 << 16
_LONGEST = 4 * SIDE
# Of a photo that may be kept as it is: no EXIF, XMP or comment, which may say where it was taken.
_SEGMENTS = {"APP0", "APP2", "APP14"}
_LOWER = (80, 60, 40, 20, 5)  # qualities for a picture that would be larger than MOST_BYTES


def thumbnail(
    source: ImageLike, reading: Reading = AS_STORED, side: int = SIDE, quality: int = QUALITY
) -> bytes:
    """Return a photo, upright and in RGB, as a JPEG with `side` pixels on its short side.

    A smaller photo keeps its size; of a very long one the long side has 4 * SIDE pixels at most.
    The JPEG has MOST_BYTES at most, of a lower quality where it must be. JPEG bytes that are all
    this already, and carry nothing but the picture, come back as they are. Raises ImageError.
    """
    if isinstance(source, bytes) and _is_small(source, side):
        return source
    image = decode(source, 2 * side, reading)
    scale = min(1.0, side / min(image.size), _LONGEST / max(image.size))
    if scale < 1:
        width, height = (max(1, round(length * scale)) for length in image.size)
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    image.info = {}  # Pillow writes the comment of a photo into what is saved of it
    for attempt in (quality, *_LOWER):
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=attempt, subsampling=0)
        if stream.tell() <= MOST_BYTES:
            break
    return stream.getvalue()


def _is_small(content: bytes, side: int) -> bool:
    """Return whether a photo can be its own thumbnail."""
    if len(content) > MOST_BYTES // 4 or not content.startswith(b"\xff\xd8\xff"):
        return False
    try:
        decode(content)  # all of it can be read
        with Image.open(io.BytesIO(content)) as image:
            segments = {name for name, _ in getattr(image, "applist", [("none", b"")])}
            return (
                image.format == "JPEG"
                and segments <= _SEGMENTS
                and min(image.size) <= side
                and max(image.size) <= _LONGEST
            )
    except (ImageError, OSError):
        return False
