"""The crop as two products: the same as cutting and resizing, and with fixed shapes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fgdeploy.models.looks.crop import Crop
from tests.models.methods.reference_looks import cut_and_resized

SIDE = 40
# Top, left, bottom, right: everything, a corner, a thin one, one pixel high, one alone.
BOXES = ((0, 0, 40, 40), (24, 24, 40, 40), (3, 5, 20, 9), (7, 0, 8, 40), (39, 39, 40, 40))


@pytest.mark.parametrize("size", [1, 2, 17, 40, 64])
def test_it_is_the_part_cut_out_and_resized(size: int) -> None:
    torch.manual_seed(0)
    pixels = torch.randn(len(BOXES), 3, SIDE, SIDE, dtype=torch.float64)
    made = Crop(SIDE, size)(pixels, torch.tensor(BOXES).double())
    assert made.shape == (len(BOXES), 3, size, size)
    for image, (top, left, bottom, right), crop in zip(pixels, BOXES, made, strict=True):
        part = image[None, :, top:bottom, left:right]
        expected = F.interpolate(part, size=(size, size), mode="bilinear", align_corners=True)
        assert (crop - expected[0]).abs().max() < 1e-12
        if size > 1:
            plain = cut_and_resized(image.numpy(), (top, left, bottom, right), size)
            assert np.abs(crop.numpy() - plain).max() < 1e-12


def test_a_size_that_is_not_named_is_the_image_s() -> None:
    pixels = torch.randint(0, 256, (2, 3, 48, 48)).float()
    made = Crop(48)(pixels, torch.tensor([[0.0, 0, 48, 48]] * 2))
    assert (made - pixels).abs().max() < 1e-2  # of 255, in float32


def test_under_autocast_it_stays_in_float32() -> None:
    pixels, box = torch.rand(1, 3, 48, 48), torch.tensor([[3.0, 5, 44, 48]])
    crop = Crop(48, 32)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(crop(pixels, box), Crop(48, 32)(pixels, box))
        assert crop(pixels, box).dtype == torch.float32
