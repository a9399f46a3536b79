"""Keys against the plugin's documented list, values against the manifest."""

from __future__ import annotations

import configparser
import dataclasses

import pytest

from fgdeploy.bundle import Bundle
from fgdeploy.photos import Preprocess
from fgdeploy.triton import nvinfer_config

# The keys of [property] in DeepStream 9.2, gstnvinfer_property_parser.h
_KEYS = """
gie-unique-id process-mode interval labelfile-path gpu-id secondary-reinfer-interval
output-tensor-meta disable-output-host-copy auto-inc-mem max-gpu-mem-per enable-dla use-dla-core
batch-size network-mode model-engine-file int8-calib-file workspace-size output-blob-names
network-type force-implicit-batch-dim infer-dims output-io-formats layer-device-precision
model-color-format net-scale-factor offsets mean-file maintain-aspect-ratio symmetric-padding
scaling-filter scaling-compute-hw network-input-order input-tensor-from-meta custom-lib-path
onnx-file num-detected-classes cluster-mode crop-objects-to-roi-boundary strongly-typed
classifier-type classifier-threshold classifier-async-mode operate-on-gie-id
operate-on-class-ids filter-out-class-ids input-object-min-width input-object-min-height
"""
DOCUMENTED = set(_KEYS.split())


def test_the_file_is_what_the_documentation_knows(eet: Bundle) -> None:
    text = nvinfer_config.to_ini(eet.manifest, ["hash", "embedding"], 4)
    parser = configparser.ConfigParser()
    parser.read_string(text)
    assert parser.sections() == ["property"]
    held = dict(parser["property"])
    assert set(held) <= DOCUMENTED
    assert held["infer-dims"] == "3;64;64" and held["batch-size"] == "4"
    assert held["output-blob-names"] == "hash;embedding"
    assert (held["network-type"], held["output-tensor-meta"]) == ("100", "1")
    # Raw pixels: mean and std lie in the graph
    assert (float(held["net-scale-factor"]), held["offsets"]) == (1.0, "0;0;0")
    assert (held["model-color-format"], held["network-input-order"]) == ("0", "0")
    assert "onnx-file" not in held
    assert "never run on hardware" in text and eet.manifest.fingerprint in text


@pytest.mark.parametrize(
    ("steps", "expected", "said"),
    [
        (Preprocess(224, 256, "bicubic", (0.5,) * 3, (0.5,) * 3), (487, 67, 945, 945), 4),
        (Preprocess(224, 224, "bilinear", (0.5,) * 3, (0.5,) * 3), (420, 0, 1080, 1080), 3),
        (Preprocess(448, 512, "bilinear", (0.5,) * 3, (0.5,) * 3, True), (120, 67, 1680, 945), 3),
        (Preprocess(448, 448, "bilinear", (0.5,) * 3, (0.5,) * 3, True), (0, 0, 1920, 1080), 2),
    ],
)
def test_what_differs_is_said(
    steps: Preprocess, expected: tuple[int, ...], said: int, eet: Bundle
) -> None:
    manifest = dataclasses.replace(eet.manifest, preprocess=steps)
    assert nvinfer_config.crop(manifest, 1920, 1080) == expected
    lines = nvinfer_config.differences(manifest)
    assert len(lines) == said and any(steps.interpolation in line for line in lines)
    assert all(f"# {line}\n" in nvinfer_config.to_ini(manifest, ["hash"], 1) for line in lines)
