"""A timm ViT block in pieces, so that a step can select, merge or add tokens anywhere in it.

timm's `Block.forward` fuses these; here they stand alone:

    project(block, x)      q, k, v of norm1(x); `queries` and `keys_values` of some rows only
    attend(block, x)       ... and the attention output, before `proj`, as `Attended`
    merge(block, x, out)   x + ls1 * proj(out)
    feed_forward(block, x) x + ls2 * mlp(norm2(x))

The last two work row by row, so they commute with taking rows. The functions call timm's own
modules and own no parameters: a state dict keeps timm's names, and `plan` counts rows by these
calls. Drop path and dropouts act as in timm. places: which patches rows are, where positions are
rotary (`rotary`); blocks of other backbones leave them unread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fgdeploy.models.backbone.eva_blocks import EvaProjections

# A timm Block; its class carries no types.
Block = Any


@dataclass(frozen=True)
class Attended:
    """A block after attention and before `proj`.

    x: [B, T, D] residual stream as it entered; q, k, v: [B, H, T, d]; out: [B, T, H*d], the
    attention output with heads side by side; bias: what was added before the softmax.
    """

    x: Tensor
    q: Tensor
    k: Tensor
    v: Tensor
    out: Tensor
    bias: Tensor | None = None

    @property
    def out_by_head(self) -> Tensor:
        """Return `out` as [B, H, T, d]."""
        _, heads, tokens, size = self.v.shape
        return self.out.reshape(-1, tokens, heads, size).transpose(1, 2)

    def cls_attention(self) -> Tensor:
        """Return the attention of the CLS row, [B, H, T], computed beside the main attention.

        Only one row is computed, so the main attention never has to materialise [T, T].
        """
        return softmax_products(self.q[:, :, :1], self.k, self.bias).squeeze(2)

    def cls_log_attention(self) -> Tensor:
        """Return the logarithm of the CLS row's attention, [B, H, T], in float32 at least.

        Without gradient. Finite where the attention itself is too small for float32.
        """
        kind = torch.promote_types(self.q.dtype, torch.float32)
        q, k = self.q[:, :, :1].detach().to(kind), self.k.detach().to(kind)
        return scaled_products(q, k, self.bias).log_softmax(dim=-1).squeeze(2)

    def full_attention(self) -> Tensor:
        """Return the whole attention [B, H, T, T], as the published models materialise it."""
        return softmax_products(self.q, self.k, self.bias)


def enter_attention(block: Block, x: Tensor) -> Tensor:
    """Return the rows y [B, T, D] that attention sees of rows x: norm1, if it lies before it."""
    y: Tensor = x if getattr(block, "post_norm", False) else block.norm1(x)
    return y


def enter_mlp(block: Block, x: Tensor) -> Tensor:
    """Return what the MLP sees of rows x [B, R, D]: norm2, if it lies before it."""
    y: Tensor = x if getattr(block, "post_norm", False) else block.norm2(x)
    return y


def project(block: Block, x: Tensor, places: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Return q, k and v [B, H, T, d] of the rows x [B, T, D], after norm1."""
    return project_normed(block, enter_attention(block, x), places)


def project_normed(
    block: Block, y: Tensor, places: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return q, k and v [B, H, T, d] of the rows y [B, T, D] that norm1 has seen."""
    attn = block.attn
    q, k, v = (_heads(attn, part) for part in _products(attn, y, "qkv"))
    q, k = _turned(attn, places, attn.q_norm(q), attn.k_norm(k))
    return q, k, v


def queries(block: Block, y: Tensor, places: Tensor | None = None) -> Tensor:
    """Return q [B, H, R, d] of some rows y [B, R, D] that norm1 has seen; places: of these."""
    attn = block.attn
    (rows,) = _products(attn, y, "q")
    (q,) = _turned(attn, places, attn.q_norm(_heads(attn, rows)))
    return q


def keys_values(block: Block, y: Tensor, places: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return k and v [B, H, T, d] of the rows y [B, T, D] that norm1 has seen."""
    attn = block.attn
    k, v = (_heads(attn, part) for part in _products(attn, y, "kv"))
    (k,) = _turned(attn, places, attn.k_norm(k))
    return k, v


def _products(attn: Block, y: Tensor, wanted: str) -> Sequence[Tensor]:
    """Return y times the matrices of `wanted` (qkv, q or kv), each [B, R, H*d]."""
    if isinstance(attn, EvaProjections):
        return attn.products(y, wanted)
    if wanted == "qkv":
        parts: Sequence[Tensor] = attn.qkv(y).chunk(3, dim=-1)
        return parts
    size, bias = attn.qkv.weight.shape[0] // 3, attn.qkv.bias
    taken = slice(size) if wanted == "q" else slice(size, None)
    rows = F.linear(y, attn.qkv.weight[taken], None if bias is None else bias[taken])
    return rows.chunk(len(wanted), dim=-1)


def _turned(attn: Block, places: Tensor | None, *parts: Tensor) -> Sequence[Tensor]:
    """Return queries or keys [B, H, R, d] with the positions of their rows, if these are rotary."""
    turn = getattr(attn, "turn", None)
    found: Sequence[Tensor] = parts if turn is None else turn(places, *parts)
    return found


def attend(
    block: Block, x: Tensor, bias: Tensor | None = None, places: Tensor | None = None
) -> Attended:
    """Run norm1, q/k/v and attention; `bias`, as [B, H, T, T], is added before the softmax."""
    q, k, v = project(block, x, places)
    return Attended(x, q, k, v, attention(block, q, k, v, bias), bias)


def has_bias(block: Block) -> bool:
    """Return whether queries, keys and values have biases."""
    attn = block.attn
    return bool(attn.has_bias if isinstance(attn, EvaProjections) else attn.qkv.bias is not None)


def linear_behind_attention(block: Block) -> bool:
    """Return whether all between attention and its sum with the rows that came is linear."""
    return isinstance(block.attn.norm, nn.Identity) and not getattr(block, "post_norm", False)


def _heads(attn: Block, rows: Tensor) -> Tensor:
    """Split rows [B, T, H*d] into heads [B, H, T, d]; only B stays open, so T is a constant."""
    size = rows.shape[2] // attn.num_heads
    return rows.reshape(-1, rows.shape[1], attn.num_heads, size).transpose(1, 2)


def scaled_products(q: Tensor, k: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return q k^T / sqrt(d) + bias, [B, H, Tq, Tk]."""
    scale = float(q.shape[-1]) ** -0.5
    products: Tensor = (q * scale) @ k.transpose(-2, -1)
    return products if bias is None else products + bias


def softmax_products(q: Tensor, k: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return softmax(q k^T / sqrt(d) + bias), [B, H, Tq, Tk]."""
    found: Tensor = scaled_products(q, k, bias).softmax(dim=-1)
    return found


def attention(block: Block, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return the attention output [B, Tq, H*d] of q, k and v, heads side by side."""
    attn = block.attn
    dropout = attn.attn_drop.p if attn.training else 0.0
    if torch.compiler.is_exporting():
        # The same products written out: the exporter turns SDPA into twice the nodes, with shapes
        # computed at run time.
        out = softmax_products(q, k, bias) @ v
    elif _learns_in_bf16(q):
        # SDPA's backward takes 2 to 5 times as long here, and more than in float32.
        out = F.dropout(softmax_products(q, k, bias), dropout) @ v
    else:
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout)
    return out.transpose(1, 2).reshape(-1, q.shape[2], q.shape[1] * q.shape[3])


def _learns_in_bf16(q: Tensor) -> bool:
    """Return whether a backward pass in bfloat16 on a CPU may follow."""
    return q.requires_grad and q.device.type == "cpu" and q.dtype == torch.bfloat16


def merge(block: Block, x: Tensor, out: Tensor, more_bias: Tensor | None = None) -> Tensor:
    """Project attention output `out` [B, R, H*d] and add it to its rows `x` [B, R, D].

    more_bias: [B, 1, 1], how often more than once the bias counts in the last row: a sum of rows
    with weights w has proj's bias sum(w) times.
    """
    projected = block.attn.proj(block.attn.norm(out))
    if more_bias is not None and block.attn.proj.bias is not None:
        last = projected[:, -1:] + more_bias * block.attn.proj.bias
        projected = torch.cat([projected[:, :-1], last], dim=1)
    projected = block.attn.proj_drop(projected)
    merged: Tensor = x + block.drop_path1(block.ls1(projected))
    return merged


def feed_forward(block: Block, x: Tensor) -> Tensor:
    """Add the MLP to the rows `x` [B, R, D]."""
    y: Tensor = x + block.drop_path2(block.ls2(block.mlp(enter_mlp(block, x))))
    return y


def complete(block: Block, attended: Attended) -> Tensor:
    """Finish a block on all its rows, as timm does."""
    return feed_forward(block, merge(block, attended.x, attended.out))


def run_cls_only(
    block: Block, x: Tensor, bias: Tensor | None = None, places: Tensor | None = None
) -> Tensor:
    """Run a block for the CLS row alone and return it as [B, 1, D]; exact, keys use all rows."""
    y = enter_attention(block, x)
    q = queries(block, y[:, :1], None if places is None else places[..., :1])
    k, v = keys_values(block, y, places)
    one = bias if bias is None or bias.shape[2] == 1 else bias[:, :, :1]
    return feed_forward(block, merge(block, x[:, :1], attention(block, q, k, v, one)))


def take_rows(x: Tensor, rows: Tensor, prefix: int, suffix: int = 0) -> Tensor:
    """Return of x [B, T, D] the first `prefix` rows, those at `rows` [B, k] behind them, the last.

    suffix: how many rows at the end stay.
    """
    index = (rows + prefix).unsqueeze(-1).expand(-1, -1, x.shape[-1])
    taken = x.gather(1, index)
    parts = [x[:, :prefix], taken] if prefix else [taken]  # engines know no empty parts
    return torch.cat([*parts, x[:, x.shape[1] - suffix :]] if suffix else parts, dim=1)
