"""Photos: what they are, where lists of them come from, and how one becomes a frame."""

from fgdeploy.photos.decoding import DecodedBatch, batches, decode_all, decode_batches
from fgdeploy.photos.images import Frame, ImageLike, Preprocess, decode
from fgdeploy.photos.listing import read, read_csv
from fgdeploy.photos.photo import Photo, of_split, spread

__all__ = [
    "DecodedBatch",
    "Frame",
    "ImageLike",
    "Photo",
    "Preprocess",
    "batches",
    "decode",
    "decode_all",
    "decode_batches",
    "of_split",
    "read",
    "read_csv",
    "spread",
]
