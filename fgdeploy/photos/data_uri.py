"""A picture inside a page."""

from __future__ import annotations

import base64
import io

from PIL import Image


def jpeg_uri(image: Image.Image) -> str:
    """Return an image as a data URI of a JPEG."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
