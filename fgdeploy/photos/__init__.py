"""Photos: what they are, where lists of them come from, and how one becomes a frame."""

from fgdeploy.photos.decoding import (
    DecodedBatch,
    Decoders,
    DecodersClosed,
    batches,
    decode_all,
    decode_batches,
)
from fgdeploy.photos.finding import Photos, find_photos, named_or_found
from fgdeploy.photos.images import Frame, ImageLike, Preprocess, decode
from fgdeploy.photos.listing import read, read_csv
from fgdeploy.photos.photo import Photo, of_split, spread

__all__ = [
    "DecodedBatch",
    "Decoders",
    "DecodersClosed",
    "Frame",
    "ImageLike",
    "Photo",
    "Photos",
    "Preprocess",
    "batches",
    "decode",
    "decode_all",
    "decode_batches",
    "find_photos",
    "named_or_found",
    "of_split",
    "read",
    "read_csv",
    "spread",
]
