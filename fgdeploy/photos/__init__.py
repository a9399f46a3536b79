"""Photos: what they are, where lists of them come from, and how one becomes a frame."""

from fgdeploy.photos.decoding import (
    DecodedBatch,
    Decoders,
    DecodersClosed,
    batches,
    decode_all,
    decode_batches,
)
from fgdeploy.photos.finding import SPLIT_FILE, Photos, find_photos, named_or_found, own_split
from fgdeploy.photos.given import ImageLike
from fgdeploy.photos.images import Frame, Preprocess, decode
from fgdeploy.photos.listing import Listing, read, read_csv, skipped_of
from fgdeploy.photos.photo import Photo, of_split, spread
from fgdeploy.photos.pixels import Reading
from fgdeploy.photos.repeats import Repeats, find_repeats
from fgdeploy.photos.shrinking import thumbnail
from fgdeploy.photos.table import Columns

__all__ = [
    "SPLIT_FILE",
    "Columns",
    "DecodedBatch",
    "Decoders",
    "DecodersClosed",
    "Frame",
    "ImageLike",
    "Listing",
    "Photo",
    "Photos",
    "Preprocess",
    "Reading",
    "Repeats",
    "batches",
    "decode",
    "decode_all",
    "decode_batches",
    "find_photos",
    "find_repeats",
    "named_or_found",
    "of_split",
    "own_split",
    "read",
    "read_csv",
    "skipped_of",
    "spread",
    "thumbnail",
]
