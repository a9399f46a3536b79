"""Proves a reduction, alone and in CLCA, in float64 against the plain reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor

from fgdeploy.models.backbone import vit as backbones
from fgdeploy.models.methods import registry
from fgdeploy.models.simplify import declared, simplified
from tests.models.reduce import reference
from tests.models.reduce.reference import Cache, Reduce
from tests.models.samples import NORM, images, size_of

BLOCKS = (2, 3, 5)  # two that follow each other, one that does not
SMALL = "deit_tiny_patch16_224"  # cut to 6 blocks of width 64; 16 patches at 64 pixels

# (stage from 1, rows that entered the first block) -> the reference's reduction.
Make = Callable[[int, int], Reduce]


def narrow(backbone: str, size: int, width: int = 64, depth: int = 6) -> Any:
    """Return a timm ViT made small, in float64, whose every parameter matters."""
    net = timm.create_model(
        backbone,
        img_size=size,
        num_classes=0,
        global_pool="token",
        dynamic_img_size=False,
        embed_dim=width,
        depth=depth,
        num_heads=2,
    ).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in net.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(noise / parameter.shape[-1] ** 0.5 + (parameter.ndim == 1))
    return net.eval().requires_grad_(False)


def encoder(
    method: str, given: Mapping[str, str], backbone: str = SMALL, blocks: Sequence[int] = BLOCKS
) -> Any:
    """Return a method's encoder in float64 whose every weight matters; given: as after --set."""
    chosen, net = registry.get(method), narrow(backbone, size_of(backbone))
    options = chosen.options.parse({"blocks": ",".join(map(str, blocks)), **given})
    made = chosen.build(net, NORM, options.resolved(backbones.geometry(net))).double().eval()
    generator, held = torch.Generator().manual_seed(3), made.state()
    with torch.no_grad():
        for name in sorted(made.own()):
            if held[name].dtype.is_floating_point:
                noise = torch.randn(held[name].shape, generator=generator, dtype=torch.float64)
                held[name].add_(noise.abs() if "running_var" in name else noise, alpha=0.3)
    return made.requires_grad_(False)


def expected(
    made: Any, photos: Tensor, reducing: Make, cache: Cache | None, blocks: Sequence[int]
) -> Tensor:
    """Return what the reference gives for an encoder's weights, [B, width]."""
    state = {name: value.numpy() for name, value in made.state().items()}
    vit = made.vit
    start = vit.patch_embed.num_patches + vit.num_prefix_tokens + len(state.get("clr", [[]])[0])
    steps = {block: reducing(stage, start) for stage, block in enumerate(blocks, start=1)}
    heads, patch, found = vit.blocks[0].attn.num_heads, vit.patch_embed.patch_size[0], []
    eps = vit.blocks[0].norm1.eps
    for image in photos.numpy():
        run = reference.forward(state, image, heads, patch, steps, cache, eps)
        cla = [run.rows[block - 1] for block in (*blocks, len(vit.blocks))]
        found.append(run.embedding if made.aggregate is None else reference.aggregated(state, cla))
    return torch.from_numpy(np.stack(found))


def check(
    name: str,
    reducing: Make,
    given: Mapping[str, str],
    backbone: str = SMALL,
    blocks: Sequence[int] = BLOCKS,
    clca: Mapping[str, Any] | None = None,
) -> None:
    """Prove the reduction `name` as a method of its own, or in CLCA with these options.

    Published and deployed forward within 1e-11 of the reference, each simplification alone within
    1e-12 of the published one, relative to its greatest value.
    """
    photos = images(2, size_of(backbone))
    cache = None
    if clca is not None:
        given = {"reduction": name, **given, **{k: str(v).lower() for k, v in clca.items()}}
        kept = {k: v for k, v in clca.items() if k in Cache.__dataclass_fields__}
        cache = Cache(**kept) if clca.get("cache", True) else None
    made = encoder("clca" if clca is not None else name, given, backbone, blocks)
    want = expected(made, photos, reducing, cache, blocks)
    names = frozenset(declared(made)) - {"fold-normalisation"}  # takes other pixels
    published = simplified(made, frozenset())(photos).embedding
    close(published, want, 1e-11)
    close(simplified(made, names)(photos).embedding, want, 1e-11)
    for one in names:
        close(simplified(made, frozenset({one}))(photos).embedding, published, 1e-12)


def close(got: Tensor, want: Tensor, tolerance: float) -> None:
    """Fail unless two tensors are equal but for `tolerance` times the greatest value."""
    assert got.shape == want.shape
    error = float((got - want).abs().max() / want.abs().max())
    assert error <= tolerance, f"{error:.1e} apart, allowed {tolerance:.0e}"
