"""Photos: what they are, where lists of them come from, and how one becomes a frame."""

from fgdeploy.photos.images import Frame, ImageLike, Preprocess, decode
from fgdeploy.photos.listing import read, read_csv
from fgdeploy.photos.photo import Photo, batches, of_split, spread

__all__ = [
    "Frame",
    "ImageLike",
    "Photo",
    "Preprocess",
    "batches",
    "decode",
    "of_split",
    "read",
    "read_csv",
    "spread",
]
