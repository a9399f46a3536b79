"""The network of a method without its head: pixels in, features out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from fgdeploy.core.errors import UsageError
from fgdeploy.models.backbone import rotary
from fgdeploy.models.backbone.embedding import Embedding, Normalisation
from fgdeploy.models.backbone.vit import ViT
from fgdeploy.models.heads.base import Features
from fgdeploy.models.walk import Observer, Step, Walk

# Where a tensor lies in an encoder, and how it is called in a checkpoint: timm's names first.
_PREFIXES = ("vit.", "walk.", "embed.")


class Encoder(nn.Module):
    """A timm ViT with a method's steps in its blocks; its embedding is the normalised CLS row.

    Methods that look twice, observe blocks or own further parameters make a subclass with a
    `forward` of its own; whatever modules and parameters it holds belong to the network.
    unused: names of the backbone's tensors that the method leaves out. explains: somebody wants to
    see what decided, so extras that are for nothing else are made too.
    """

    unused: frozenset[str] = frozenset()
    explains: bool = False

    def __init__(
        self,
        vit: ViT,
        norm: Normalisation,
        steps: Mapping[int, Step] | None = None,
        suffix: nn.Parameter | None = None,
    ) -> None:
        super().__init__()
        for name in ("head", "head_dist"):  # a class head of timm's is no part of an encoder
            if hasattr(vit, name):
                setattr(vit, name, nn.Identity())
        self.vit = vit
        self.embed = Embedding(vit, norm, suffix)
        self.walk = Walk(len(vit.blocks), steps or {})
        self._check_places()

    def _check_places(self) -> None:
        if not rotary.is_in(self.vit):
            return
        for module in self.walk.modules():
            if isinstance(module, Step) and not module.carries_places:
                raise UsageError(
                    f"the backbone's positions are rotary, and {type(module).__name__} makes rows "
                    "of several patches, which have no one position; choose a method that keeps "
                    "or drops rows, as the default does, or another --backbone"
                )

    def forward(self, pixels: Tensor, observers: Sequence[Observer] = ()) -> Features:
        """Return the features of normalised pixels [B, 3, S, S]."""
        tokens = self.walk(self.vit.blocks, self.embed(pixels), observers)
        embedding = self.vit.norm(tokens.x)[:, 0]
        return Features(embedding, penalties=tokens.penalties, readouts=tokens.readouts)

    @property
    def width(self) -> int:
        """Return how wide an embedding is, D."""
        return int(self.vit.embed_dim)

    def begin(self) -> None:
        """Start the method's own weights from those of the backbone, which came without them."""

    def fitted(self, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return a checkpoint's tensors with the method's own fitted to this image size."""
        return dict(given)

    def deciding(self) -> dict[str, Tensor]:
        """Return the tensors of `state` that decide an embedding as it is deployed."""
        return self.state()

    def state(self) -> dict[str, Tensor]:
        """Return every tensor by the name that checkpoints have for it, each once, not copied."""
        found: dict[str, Tensor] = {}
        seen: set[int] = set()
        for key, value in self.state_dict(keep_vars=True).items():
            if id(value) in seen:  # the embedding holds the same ViT
                continue
            seen.add(id(value))
            name = self._name(key)
            if name in found:
                raise ValueError(f"two tensors of the network are called {name}")
            found[name] = value
        return found

    def _name(self, key: str) -> str:
        """Return what checkpoints call the tensor that lies at `key`."""
        start = next((prefix for prefix in _PREFIXES if key.startswith(prefix)), "")
        return key.removeprefix(start)

    def own(self) -> set[str]:
        """Return the names of the tensors that are the method's and not the backbone's."""
        held = {id(value) for value in self.vit.state_dict(keep_vars=True).values()}
        return {name for name, value in self.state().items() if id(value) not in held}

    def frozen(self) -> set[str]:
        """Return the names of the tensors that no training changes."""
        return set()
