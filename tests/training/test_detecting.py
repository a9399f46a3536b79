"""Boxes found by a detector: written whole, gone on with, and by real models of transformers."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import ExifTags, Image

from fgdeploy import photos
from fgdeploy.core.errors import CheckpointError, DataError, MissingDependency, UsageError
from fgdeploy.photos.boxes import Box, read_boxes
from fgdeploy.training import detecting
from fgdeploy.training.detecting import Detector, Wanted, detect, part_of
from tests.checks import refused
from tests.fgdeploy.photos.datasets import draw

BIRD = Wanted("birds", "bird", 0.3)
GREY = (90, 90, 90)


class _Reds:
    """In place of a detector: finds the red half of a photo, left or right."""

    seen: list[int]
    fails_at = -1

    def __init__(self, wanted: Wanted) -> None:
        assert wanted == BIRD

    def surest(self, images: Sequence[Image.Image]) -> list[Any]:
        """Return the half that is red."""
        if len(self.seen) == self.fails_at:
            raise KeyboardInterrupt
        self.seen.append(len(images))
        return [self._half(image) for image in images]

    @staticmethod
    def _half(image: Image.Image) -> Any:
        for left in (0.0, 0.5):
            colour = image.getpixel((int((left + 0.25) * image.width), image.height // 2))
            assert isinstance(colour, tuple)
            if colour[0] > 150 > colour[1]:
                return [left, 0.0, left + 0.5, 1.0], 0.75
        return None


@pytest.fixture
def reds(monkeypatch: pytest.MonkeyPatch) -> type[_Reds]:
    monkeypatch.setattr(detecting, "Detector", _Reds)
    monkeypatch.setattr(_Reds, "seen", [], raising=False)
    monkeypatch.setattr(_Reds, "fails_at", -1)
    return _Reds


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    """Six photos, of which 3 has no object and 4 is turned by its EXIF."""
    root = tmp_path / "birds"
    draw(root, "a/0.jpg")
    for number in range(1, 6):
        image = Image.new("RGB", (40, 20), GREY)
        exif = Image.Exif()
        if number == 4:  # upright its right half is red: of the stored one, the upper one
            image.paste((220, 20, 20), (0, 0, 40, 10))
            exif[ExifTags.Base.Orientation] = 6
        elif number != 3:
            image.paste((220, 20, 20), (20, 0, 40, 20))
        image.save(root / "a" / f"{number}.png", exif=exif)
    (root / "a" / "0.jpg").unlink()
    return root


def _run(birds: Path, target: Path, **how: Any) -> detecting.Detected:
    return detect(photos.read(birds), birds, BIRD, target, batch=2, **how)


def test_the_file_is_what_a_training_reads(reds: type[_Reds], birds: Path, tmp_path: Path) -> None:
    ticks: list[tuple[int, int]] = []
    done = _run(birds, tmp_path / "b.csv", progress=lambda *tick: ticks.append(tick))
    assert (done.boxes, done.without, done.skipped) == (4, 1, ())
    assert reds.seen == [2, 2, 1] and ticks == [(2, 5), (4, 5), (5, 5)]
    text = (tmp_path / "b.csv").read_text(encoding="utf-8")
    assert text == (
        "path,x0,y0,x1,y1,score\na/1.png,20.0,0.0,40.0,20.0,0.75\na/2.png,20.0,0.0,40.0,20.0,0.75\n"
        "a/4.png,10.0,0.0,20.0,40.0,0.75\na/5.png,20.0,0.0,40.0,20.0,0.75\n"
    )
    found = read_boxes(tmp_path / "b.csv", photos.read(birds), birds)
    right = Box(0.5, 0, 1, 1)
    assert found.of == (right, right, None, right, right)
    assert not part_of(tmp_path / "b.csv").exists()


def test_a_run_that_was_interrupted_goes_on(reds: type[_Reds], birds: Path, tmp_path: Path) -> None:
    target = tmp_path / "b.csv"
    reds.fails_at = 2
    with pytest.raises(KeyboardInterrupt):
        _run(birds, target)
    assert not target.exists() and part_of(target).exists()
    reds.fails_at = -1
    with refused(DataError, r"b.csv.part is of a run that was interrupted; pass --resume"):
        _run(birds, target)
    with open(part_of(target), "a", encoding="utf-8") as stream:
        stream.write('["a/5.png", [1')  # as a kill leaves it
    assert _run(birds, target, resume=True).boxes == 4
    assert reds.seen == [2, 2, 1]
    whole = tmp_path / "whole.csv"
    _run(birds, whole)
    assert whole.read_bytes() == target.read_bytes()


def test_another_run_is_not_gone_on_with(reds: type[_Reds], birds: Path, tmp_path: Path) -> None:
    part = part_of(tmp_path / "b.csv")
    part.write_text('{"detector": "cars", "prompt": "car", "threshold": 0.3}\n["a/1.png", null]\n')
    with refused(DataError, "is of a run with other options .*cars.*; give the same to --resume"):
        _run(birds, tmp_path / "b.csv", resume=True)
    part.write_text("no\nJSON\n")
    with refused(DataError, "b.csv.part is damaged; pass --overwrite to start anew"):
        _run(birds, tmp_path / "b.csv", resume=True)
    assert _run(birds, tmp_path / "b.csv", overwrite=True).boxes == 4
    with refused(DataError, "b.csv is there already; pass --overwrite, or another -o"):
        _run(birds, tmp_path / "b.csv")


def test_photos_that_cannot_be_read_are_told(
    reds: type[_Reds], birds: Path, tmp_path: Path
) -> None:
    (birds / "a" / "1.png").write_bytes((birds / "a" / "2.png").read_bytes()[:60])
    done = _run(birds, tmp_path / "b.csv")
    assert (done.boxes, done.without) == (3, 1)
    assert len(done.skipped) == 1 and "1.png is damaged" in done.skipped[0]


def test_what_cannot_be_is_said(reds: type[_Reds], birds: Path, tmp_path: Path) -> None:
    with refused(UsageError, "b.txt: expected a name ending in .csv in a folder that exists"):
        _run(birds, tmp_path / "b.txt")
    with refused(UsageError, "threshold 1.5: expected a number from 0 to 1"):
        Wanted("birds", threshold=1.5)
    with refused(UsageError, "--prompt: expected a word or two"):
        Wanted("birds", " ")
    for path in (birds / "a").glob("[1245].png"):
        path.unlink()
    with refused(DataError, "no bird found in 1 of the photos of .*; try another --prompt or a"):
        _run(birds, tmp_path / "b.csv")
    assert not part_of(tmp_path / "b.csv").exists()


@pytest.mark.skipif(
    importlib.util.find_spec("transformers") is not None, reason="transformers is installed"
)
def test_without_the_library_its_extra_is_named() -> None:
    with refused(MissingDependency, r'package transformers, .* pip install "fgdeploy\[detect\]"'):
        Detector(BIRD)


# --- the library itself, where it is installed: small random models of each kind


@pytest.fixture(scope="module")
def yolos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector of birds and sea lions that sees a bird in the middle of all it is shown."""
    library = pytest.importorskip("transformers", reason="transformers is not installed (detect)")
    folder = tmp_path_factory.mktemp("yolos")
    names = {0: "bird", 1: "sea lion"}
    config = library.YolosConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=[64, 64],
        patch_size=16,
        num_detection_tokens=3,
        id2label=names,
        label2id={name: number for number, name in names.items()},
    )
    model = library.YolosForObjectDetection(config)
    with torch.no_grad():
        for last, bias in (
            (model.class_labels_classifier.layers[-1], [2.0, 0.0, 0.0]),
            (model.bbox_predictor.layers[-1], [0.0, 0.0, 0.0, 0.0]),
        ):
            last.weight.zero_()
            last.bias.copy_(torch.tensor(bias))
    model.save_pretrained(folder)
    library.YolosImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


def test_a_detector_of_classes(yolos: Path) -> None:
    images = [Image.new("RGB", (90, 60), GREY), Image.new("RGB", (50, 80), GREY)]
    chance = float(torch.tensor([2.0, 0.0, 0.0]).softmax(0)[0])
    for prompt in ("bird", None):
        for box, score in filter(None, Detector(Wanted(str(yolos), prompt)).surest(images)):
            assert box == pytest.approx([0.25, 0.25, 0.75, 0.75], abs=0.01)
            assert score == pytest.approx(chance, abs=1e-5)
    assert Detector(Wanted(str(yolos), "sea lion")).surest(images) == [None, None]
    assert Detector(Wanted(str(yolos), "bird", 0.9)).surest(images) == [None, None]
    with refused(UsageError, "--prompt cat: the detector knows 2 names .* bird, sea lion, and not"):
        Detector(Wanted(str(yolos), "cat"))


def test_a_detector_that_is_none(yolos: Path, tmp_path: Path) -> None:
    with refused(CheckpointError, "--detector .*: transformers cannot read it .*; give a folder"):
        Detector(Wanted(str(tmp_path), "bird"))
    library = pytest.importorskip("transformers")
    library.ViTConfig().save_pretrained(tmp_path)
    with refused(CheckpointError, "is a vit, which detects no objects; choose one such as"):
        Detector(Wanted(str(tmp_path), "bird"))


def test_a_detector_that_is_told_what_to_find(tmp_path: Path) -> None:
    """GroundingDINO, small and random: boxes lie in their photos, in batches of any sizes."""
    library = pytest.importorskip("transformers", reason="transformers is not installed (detect)")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "bird", "?"]
    text = {"model_type": "bert", "vocab_size": len(words), "max_position_embeddings": 64}
    small = {"hidden_size": 32, "num_hidden_layers": 1, "intermediate_size": 32}
    swin = library.SwinConfig(
        image_size=64,
        embed_dim=16,
        depths=[1, 1, 1, 1],
        num_heads=[1, 2, 2, 2],
        window_size=2,
        out_features=["stage2", "stage3", "stage4"],
    )
    config = library.GroundingDinoConfig(
        backbone_config=swin,
        text_config={**text, **small, "num_attention_heads": 2},
        num_queries=10,
        encoder_layers=1,
        decoder_layers=2,
        d_model=32,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
    )
    torch.manual_seed(0)
    library.GroundingDinoForObjectDetection(config).save_pretrained(tmp_path)
    reader = library.GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})
    tokens = library.BertTokenizer(vocab={word: place for place, word in enumerate(words)})
    library.GroundingDinoProcessor(image_processor=reader, tokenizer=tokens).save_pretrained(
        tmp_path
    )
    images = [Image.new("RGB", size, GREY) for size in ((90, 60), (50, 80), (64, 64))]
    found = Detector(Wanted(str(tmp_path), "Bird.", 0.0)).surest(images)
    assert len(found) == 3
    for box, score in filter(None, found):
        assert 0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1 and 0 < score <= 1
    assert any(found)
    assert Detector(Wanted(str(tmp_path), "bird", 1.0)).surest(images[:1]) == [None]
    with refused(UsageError, "looks for what it is told; add --prompt, such as --prompt bird"):
        Detector(Wanted(str(tmp_path)))
