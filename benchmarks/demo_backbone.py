"""Pretrain the small ViT that `fgdeploy demo` starts from, as others start from ImageNet.

    .venv/bin/python benchmarks/demo_backbone.py fgdeploy/demo/backbone.safetensors

8,000 drawn moths with random traits, none with the traits of a species that the demo can draw with
its default seed; the ViT learns to tell the eight traits (spots, band, antenna, ...), never a
species. About 15 minutes on one core. Writes half precision, 0.6 MB.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fgdeploy.demo.moths import MothSpecies, draw_moth, species
from fgdeploy.demo.tour import BACKBONE, IMAGE_SIZE
from fgdeploy.models.backbone import vit
from fgdeploy.models.backbone.embedding import normalisation
from fgdeploy.models.encoder import Encoder

VALUES = [get_args(hint) for hint in get_type_hints(MothSpecies).values()][1:]
HELD_OUT = 400
BATCH, RATE, WARMUP = 64, 2e-3, 100


def draw(count: int) -> tuple[Tensor, Tensor]:
    """Return images uint8 (N, 3, S, S) and trait numbers (N, 8)."""
    taken = {kind.traits for kind in species(200)}
    chooser = np.random.default_rng(10_000)
    images, traits = [], []
    for index in range(count):
        while True:
            numbers = [int(chooser.integers(len(value))) for value in VALUES]
            chosen = tuple(value[n] for value, n in zip(VALUES, numbers, strict=True))
            if chosen not in taken:
                break
        kind = MothSpecies("other", *chosen)
        moth = draw_moth(kind, np.random.default_rng([77, index]), IMAGE_SIZE)
        images.append(np.asarray(moth))
        traits.append(numbers)
        if index % 1000 == 999:
            print(f"{index + 1} of {count} drawn", flush=True)
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    return pixels, torch.tensor(traits)


def sinusoidal(grid: int, width: int) -> Tensor:
    """Return position rows [1, grid * grid, width]: without places a small ViT learns nothing."""
    rates = 1 / 10000 ** (torch.arange(width // 4) / (width // 4))
    line = torch.arange(grid).float()[:, None] * rates
    waves = torch.cat([torch.sin(line), torch.cos(line)], dim=1)
    across = waves[None].expand(grid, grid, -1)
    down = waves[:, None].expand(grid, grid, -1)
    return 0.5 * torch.cat([across, down], dim=-1).reshape(1, grid * grid, width)


def pretrain(images: Tensor, traits: Tensor, epochs: int) -> nn.Module:
    """Return the ViT after `epochs` passes; prints the accuracy per trait on held-out moths."""
    torch.manual_seed(0)
    net = vit.create(BACKBONE, IMAGE_SIZE)
    shape = vit.geometry(net)
    with torch.no_grad():
        net.pos_embed[:, 1:] = sinusoidal(math.isqrt(shape.patches), shape.width)
    encoder = Encoder(net, normalisation(net))
    head = nn.Linear(shape.width, sum(map(len, VALUES)))
    weights = [*encoder.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=RATE, weight_decay=0.03)
    count = len(images) - HELD_OUT
    steps = count // BATCH

    def forward(pixels: Tensor) -> tuple[Tensor, ...]:
        with torch.autocast("cpu", torch.bfloat16):
            embedding = encoder((pixels - 127.5) / 127.5).embedding
        logits: Tensor = head(embedding.float())
        return logits.split([len(value) for value in VALUES], dim=1)

    for epoch in range(epochs):
        order = torch.randperm(count)
        for step in range(steps):
            rows = order[step * BATCH : (step + 1) * BATCH]
            pixels = images[rows].float()
            if torch.rand(1) < 0.5:
                pixels = pixels.flip(3)
            pixels = pixels.roll(torch.randint(-6, 7, (2,)).tolist(), (2, 3))
            pixels = pixels * (0.8 + 0.4 * torch.rand(len(rows), 1, 1, 1))
            pixels = pixels * (0.9 + 0.2 * torch.rand(len(rows), 3, 1, 1))
            done = epoch * steps + step
            rate = RATE * min(1, (done + 1) / WARMUP)
            rate *= 0.5 * (1 + math.cos(math.pi * done / (epochs * steps)))
            for group in optimizer.param_groups:
                group["lr"] = rate
            losses = [F.cross_entropy(x, traits[rows, i]) for i, x in enumerate(forward(pixels))]
            optimizer.zero_grad()
            torch.stack(losses).sum().backward()
            nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
        with torch.no_grad():
            told = forward(images[count:].float())
        right = [(x.argmax(1) == traits[count:, i]).float().mean() for i, x in enumerate(told)]
        print(f"epoch {epoch + 1}: " + " ".join(f"{value:.2f}" for value in right), flush=True)
    return net


def main() -> None:
    """Draw, pretrain, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("target", type=Path)
    parser.add_argument("--moths", type=int, default=8000)
    parser.add_argument("--epochs", type=int, default=30)
    options = parser.parse_args()
    torch.set_num_threads(1)
    net = pretrain(*draw(options.moths), options.epochs)
    halves = {key: value.half().contiguous() for key, value in net.state_dict().items()}
    options.target.write_bytes(safetensors.torch.save(halves, metadata={"format": "pt"}))


if __name__ == "__main__":
    main()
