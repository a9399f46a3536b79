"""A timm ViT block in pieces, so that a method can select, merge or add tokens inside it.

timm's `Block.forward` fuses five steps; here they stand alone:

    attend(block, x)      a. norm, q, k, v   b. attention output, before `proj`
    <the method's step>   c. on `Attended`: keep, fuse or merge rows
    merge(block, x, out)  d. x + ls1 * proj(out)
    feed_forward(...)     e. x + ls2 * mlp(norm2(x))

d and e work row by row, so they commute with taking rows. The functions read timm's own modules
and own no parameters: a state dict keeps timm's names. Drop path and dropouts act as in timm.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# A timm Block; its class carries no types.
Block = Any


@dataclass(frozen=True)
class Attended:
    """A block after attention and before `proj`.

    x: [B, T, D] residual stream as it entered; q, k, v: [B, H, T, d]; out: [B, T, H*d], the
    attention output with heads side by side.
    """

    x: Tensor
    q: Tensor
    k: Tensor
    v: Tensor
    out: Tensor

    @property
    def out_by_head(self) -> Tensor:
        """Return `out` as [B, H, T, d]."""
        _, heads, tokens, size = self.v.shape
        return self.out.reshape(-1, tokens, heads, size).transpose(1, 2)

    def cls_attention(self) -> Tensor:
        """Return the attention of the CLS row, [B, H, T], computed beside the main attention.

        Only one row is computed, so the main attention never has to materialise [T, T].
        """
        return _softmax_products(self.q[:, :, :1], self.k).squeeze(2)

    def full_attention(self) -> Tensor:
        """Return the whole attention [B, H, T, T], as the published models materialise it."""
        return _softmax_products(self.q, self.k)


# A method's step: completes a block from its attended state and returns x of the next block.
Complete = Callable[[Block, Attended], Tensor]


def attend(block: Block, x: Tensor, bias: Tensor | None = None) -> Attended:
    """Run norm1, q/k/v and attention; `bias` [B or 1, H or 1, T, T] is added before the softmax."""
    attn = block.attn
    q, k, v = (_heads(attn, part) for part in attn.qkv(block.norm1(x)).chunk(3, dim=-1))
    q, k = attn.q_norm(q), attn.k_norm(k)
    return Attended(x, q, k, v, _attention(attn, q, k, v, bias))


def _heads(attn: Block, rows: Tensor) -> Tensor:
    """Split rows [B, T, H*d] into heads [B, H, T, d]; only B stays open, so T is a constant."""
    size = rows.shape[2] // attn.num_heads
    return rows.reshape(-1, rows.shape[1], attn.num_heads, size).transpose(1, 2)


def _softmax_products(q: Tensor, k: Tensor) -> Tensor:
    scale = float(q.shape[-1]) ** -0.5
    attention: Tensor = ((q * scale) @ k.transpose(-2, -1)).softmax(dim=-1)
    return attention


def _attention(attn: Block, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    dropout = attn.attn_drop.p if attn.training else 0.0
    if bias is None and torch.compiler.is_exporting():
        # The same products written out: the exporter turns SDPA into twice the nodes, with shapes
        # computed at run time.
        out = _softmax_products(q, k) @ v
    else:
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout)
    return out.transpose(1, 2).reshape(-1, q.shape[2], q.shape[1] * q.shape[3])


def merge(block: Block, x: Tensor, out: Tensor) -> Tensor:
    """Project attention output `out` [B, R, H*d] and add it to its rows `x` [B, R, D]."""
    projected = block.attn.proj_drop(block.attn.proj(block.attn.norm(out)))
    merged: Tensor = x + block.drop_path1(block.ls1(projected))
    return merged


def feed_forward(block: Block, x: Tensor) -> Tensor:
    """Add the MLP to the rows `x` [B, R, D]."""
    y: Tensor = x + block.drop_path2(block.ls2(block.mlp(block.norm2(x))))
    return y


def complete(block: Block, attended: Attended) -> Tensor:
    """Finish a block on all its rows, as timm does."""
    return feed_forward(block, merge(block, attended.x, attended.out))


def run(block: Block, x: Tensor, step: Complete = complete) -> Tensor:
    """Run one block with a method's step in place of the plain ending."""
    completed: Tensor = step(block, attend(block, x))
    return completed


def run_cls_only(block: Block, x: Tensor) -> Tensor:
    """Run a block for the CLS row alone and return it as [B, 1, D]; exact, keys use all rows."""
    attn = block.attn
    y = block.norm1(x)
    weight, bias = attn.qkv.weight, attn.qkv.bias
    size = weight.shape[0] // 3
    row = F.linear(y[:, :1], weight[:size], None if bias is None else bias[:size])
    both = F.linear(y, weight[size:], None if bias is None else bias[size:])
    q, k, v = (_heads(attn, part) for part in (row, *both.chunk(2, dim=-1)))
    q, k = attn.q_norm(q), attn.k_norm(k)
    return feed_forward(block, merge(block, x[:, :1], _attention(attn, q, k, v, None)))


def take_rows(x: Tensor, rows: Tensor, prefix: int) -> Tensor:
    """Return of x [B, T, D] the first `prefix` rows and those at `rows` [B, k] behind them."""
    index = (rows + prefix).unsqueeze(-1).expand(-1, -1, x.shape[-1])
    return torch.cat([x[:, :prefix], x.gather(1, index)], dim=1)
