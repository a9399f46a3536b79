"""Formats that need an extra or are not read, and decoders that write to the terminal."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fgdeploy.core.errors import ImageError
from fgdeploy.photos import formats
from fgdeploy.photos.images import decode
from tests.checks import refused
from tests.fgdeploy.pictures import pixels, smooth

_HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


def test_heic_without_the_extra_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "has_heif", lambda: False)
    (tmp_path / "a.jpg").write_bytes(_HEIC)  # phones rename them
    with refused(
        ImageError, r'a\.jpg \(HEIC\) .* pillow-heif; run: pip install "fgdeploy\[heif\]"'
    ):
        decode(tmp_path / "a.jpg")
    with refused(ImageError, r"the image in memory \(HEIC\) needs the package pillow-heif"):
        decode(_HEIC)


def test_heic_with_the_extra(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif", reason="the extra heif is not installed")
    photo = smooth(64, 48)
    for turn in (1, 6):
        exif = Image.Exif()
        exif[0x0112] = turn
        made = heif.from_pillow(Image.fromarray(photo))
        made.save(tmp_path / f"{turn}.heic", quality=95, exif=exif.tobytes())
        wanted = photo if turn == 1 else np.rot90(photo, -1)
        found = pixels(decode(tmp_path / f"{turn}.heic")).astype(int)
        assert found.shape == wanted.shape
        assert np.abs(found - wanted).mean() < 4
    with refused(ImageError, "is (damaged|not an image)"):
        decode(_HEIC)


def test_avif_is_read(tmp_path: Path) -> None:
    Image.fromarray(smooth(64, 48)).save(tmp_path / "a.avif", quality=95)
    assert decode(tmp_path / "a.avif").size == (64, 48)


@pytest.mark.parametrize("suffix", ["NEF", "dng", "cr2"])
def test_raw_camera_data_is_refused_though_pillow_finds_a_thumbnail(
    tmp_path: Path, suffix: str
) -> None:
    source = tmp_path / f"a.{suffix}"
    Image.fromarray(smooth(16, 12)).save(source, "TIFF")
    with refused(ImageError, rf"a\.{suffix} is raw camera data, which is not read; develop it"):
        decode(source)
    with refused(ImageError, rf"no\.{suffix}: no such file"):
        decode(tmp_path / f"no.{suffix}")


def test_a_dng_under_another_name_is_refused() -> None:
    stream = io.BytesIO()
    Image.fromarray(smooth(16, 12)).save(stream, "TIFF", tiffinfo={50706: b"\1\4\0\0"})
    with refused(ImageError, "the image in memory is raw camera data, which is not read"):
        decode(stream.getvalue())


def test_every_suffix_is_of_one_kind() -> None:
    assert all(formats.unreadable(suffix) is None for suffix in formats.SUFFIXES - formats._HEIF)
    assert formats.unreadable(".NEF") is not None
    assert formats.unreadable(".txt") is formats.unreadable("") is None


def test_decoders_write_nothing_to_the_terminal(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    for kind in ("tiff_lzw", "tiff_adobe_deflate"):
        Image.fromarray(noise).save(tmp_path / f"{kind}.tif", compression=kind)
        content = bytearray((tmp_path / f"{kind}.tif").read_bytes())
        content[200:260] = b"\xff" * 60
        (tmp_path / f"{kind}.tif").write_bytes(content)
    script = (
        "import sys\n"
        "from fgdeploy.core.errors import ImageError\n"
        "from fgdeploy.photos import decode\n"
        "for path in sys.argv[1:]:\n"
        "    try:\n"
        "        decode(path)\n"
        "    except ImageError as error:\n"
        "        print(error)\n"
    )
    content = bytearray((tmp_path / "tiff_lzw.tif").read_bytes())
    directory = int.from_bytes(content[4:8], "little")
    at = content.index(
        b"\x15\x01", directory
    )  # the tag of samples per pixel, whose value Pillow logs
    content[at + 8 : at + 10] = b"\xff\xff"
    (tmp_path / "samples.tif").write_bytes(content)
    paths = [str(path) for path in sorted(tmp_path.glob("*.tif"))]
    done = subprocess.run([sys.executable, "-c", script, *paths], capture_output=True, text=True)
    assert done.stderr == ""
    assert [line.split(" is ")[0] for line in done.stdout.splitlines()] == paths
