"""File formats: which are read, which only with an extra, and what is said of the others."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import io
import logging
import os

from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from fgdeploy.core.errors import ImageError

# Formats whose decoders run in process; PostScript and friends, which start programs, stay out.
# Pillow's JPEG opener takes MPO, the cameras' JPEG with several pictures, along.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF")
SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .jif .png .apng .webp .bmp .gif .tif .tiff .ppm .pgm .pbm .pnm "  # noqa: SIM905
    ".jp2 .j2k .j2c .jpc .jpf .jpx .avif .avifs .mpo .heic .heif .hif .heics .heifs".split()
)

_HEIF = frozenset(".heic .heif .hif .heics .heifs".split())  # noqa: SIM905
_RAW = frozenset(
    ".3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .fff .gpr .iiq .k25 .kdc .mdc .mef .mos .mrw "  # noqa: SIM905
    ".nef .nrw .orf .pef .raf .raw .rw2 .rwl .rwz .sr2 .srf .srw .x3f".split()
)
_OTHER = frozenset(
    ".jxl .jxr .wdp .hdp .jls .jpm .jph .bpg .flif .qoi .psd .psb .xcf .kra .tga .dib .pcx .ico "  # noqa: SIM905
    ".icns .dds .exr .pfm .pam .sgi .xbm .xpm .fits .dcm .svg .eps".split()
)
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_EXTRA = 'needs the package pillow-heif; run: pip install "fgdeploy[heif]"'
_DEVELOP = "is raw camera data, which is not read; develop it to JPEG or TIFF"
_DNG_VERSION = 50706  # TIFF tag

logging.getLogger("PIL").addHandler(logging.NullHandler())  # else Python prints what it logs


def unreadable(suffix: str) -> str | None:
    """Return why files with an image's suffix (`.nef`, any case) cannot be read here, else None.

    None as well for suffixes that are no image's.
    """
    suffix = suffix.lower()
    if suffix in _RAW:
        return _DEVELOP
    if suffix in _HEIF and not has_heif():
        return f"(HEIC) {_EXTRA}"
    if suffix in _OTHER:
        return f"is of a format that is not read ({suffix[1:]}); convert it to JPEG or PNG"
    return None


def open_image(file: str | os.PathLike[str] | io.BytesIO, name: str) -> ImageFile:
    """Open an image file, its pixels not read yet.

    Raises ImageError for raw camera data, of which Pillow would read a thumbnail, and for formats
    that need an extra; UnidentifiedImageError for what is no image; OSError.
    """
    if not isinstance(file, io.BytesIO) and _suffix(file) in _RAW:
        os.stat(file)  # one that is not there is told first
        raise ImageError(f"{name} {_DEVELOP}")
    try:
        image = Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:
        image = _open_other(file, name)
    if isinstance(image, TiffImageFile):
        if _DNG_VERSION in image.tag_v2:
            image.close()
            raise ImageError(f"{name} {_DEVELOP}")
        silence_libtiff()
    return image


def _suffix(file: str | os.PathLike[str]) -> str:
    return os.path.splitext(file)[1].lower()


def _open_other(file: str | os.PathLike[str] | io.BytesIO, name: str) -> ImageFile:
    head = _head(file)
    if not head:
        raise ImageError(
            f"{name} is damaged or unreadable: it is empty (0 bytes); replace the file"
        )
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS:
        if not has_heif():
            raise ImageError(f"{name} (HEIC) {_EXTRA}")
        _register_heif()
        return Image.open(file, formats=("HEIF",))
    if head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis"):
        raise ImageError(f"{name} is AVIF, which this Pillow does not read; install Pillow's wheel")
    raise UnidentifiedImageError


def _head(file: str | os.PathLike[str] | io.BytesIO) -> bytes:
    if isinstance(file, io.BytesIO):
        return file.getvalue()[:12]
    with open(file, "rb") as stream:
        return stream.read(12)


@functools.cache
def has_heif() -> bool:
    return importlib.util.find_spec("pillow_heif") is not None


@functools.cache
def _register_heif() -> None:
    import pillow_heif

    pillow_heif.register_heif_opener(thumbnails=False)


@functools.cache
def silence_libtiff() -> None:
    """Keep libtiff from writing to stderr itself: the photo's own error says that it is damaged."""
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
            places = {line.split(maxsplit=5)[-1].strip() for line in maps if "libtiff" in line}
        for place in places:
            for handler in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
                function = getattr(ctypes.CDLL(place), handler)
                function.argtypes, function.restype = (ctypes.c_void_p,), ctypes.c_void_p
                function(None)
    except (OSError, AttributeError):  # another libtiff than Linux has: its lines are only noise
        return
