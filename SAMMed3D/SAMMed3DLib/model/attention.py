"""SAM-Med3D's attention with relative positions, and its padded windows evaluated without their padding.

Source: uni-medical/SAM-Med3D, ``image_encoder3D.py`` (facts only). Two things there are unusual, and the public
weights were trained with both, so they are reproduced exactly:

* The bias is added on the wrong axes. With Q(d, h, w) the unscaled query of a token and R_d, R_h, R_w the tables,

      bias[qd, qh, qw; kd, kh, kw] = Q(qd, qh, qw) . R_d[qd - kw] + Q(qd, qh, kd) . R_h[qh - kw]
                                   + Q(qd, qh, kh) . R_w[kh - kw]

* Windows that stick out of the grid are filled with zero tokens which are **not** masked: they take part as keys
  k = b_k and values v = b_v (the biases of the qkv layer) and, in the second and third term, as queries b_q.

All padding keys of a window have the same k and v. So their joint weight is known in closed form (`_padding_logit`),
and one virtual key that carries it replaces them: 513 keys instead of 2744 for the public model, exactly the same result.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from .linear import Linear

# Logit of a key that is not there; finite, so that no gradient becomes inf - inf.
ABSENT = -1e9
# Largest bias matrix held at a time, in values. 4 M values are 16 MB.
MAX_BIAS_VALUES = 4_194_304


class Attention(nn.Module):
    """Multi-head attention in windows of ``window``^3 tokens that tile the grid from its origin.

    Args:
        dim: channels.
        heads: attention heads.
        window: edge of the windows in tokens; the grid's own edge makes it global attention.
    """

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.window = window
        self.qkv = Linear(dim, 3 * dim)
        self.proj = Linear(dim, dim)
        self.rel_pos_d = nn.Parameter(torch.zeros(2 * window - 1, dim // heads))
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * window - 1, dim // heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * window - 1, dim // heads))

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, H, W, dim) -> the same shape."""
        qkv = self.qkv(x)
        tables = torch.cat([self.rel_pos_d, self.rel_pos_h, self.rel_pos_w])
        bias = self.qkv.bias.to(tables.dtype).view(3, self.heads, -1)
        regions = _regions(x.shape[1:4], self.window)
        if len(regions) == 1:
            return self.proj(self._attend(qkv, regions[0], tables, bias))
        out = torch.empty_like(qkv[..., : x.shape[-1]])
        for region in regions:
            d, h, w = region.slices
            out[:, d, h, w] = self._attend(qkv[:, d, h, w], region, tables, bias)
        return self.proj(out)

    def _attend(self, qkv: Tensor, region: _Region, tables: Tensor, bias: Tensor) -> Tensor:
        """(B, D, H, W, 3 dim) of a region of equal windows -> (B, D, H, W, dim)."""
        batch, (nd, nh, nw), (rd, rh, rw) = qkv.shape[0], region.counts, region.extent
        windows = qkv.reshape(batch, nd, rd, nh, rh, nw, rw, 3, self.heads, -1)
        windows = windows.permute(7, 0, 1, 3, 5, 8, 2, 4, 6, 9).flatten(1, 5)
        if torch.is_grad_enabled() and qkv.requires_grad:
            # The (tokens x tokens) matrices are the bulk of a training step's memory and cheap to compute again.
            out = checkpoint(window_attention, windows, tables, bias, self.window, use_reentrant=False)
        else:
            out = window_attention(windows, tables, bias, self.window)
        out = out.reshape(batch, nd, nh, nw, self.heads, rd, rh, rw, -1)
        return out.permute(0, 1, 5, 2, 6, 3, 7, 4, 8).reshape(batch, nd * rd, nh * rh, nw * rw, -1)


class _Region(NamedTuple):
    """A box of the grid that whole windows of one extent tile."""

    slices: tuple[slice, slice, slice]
    counts: tuple[int, int, int]
    extent: tuple[int, int, int]


def _regions(grid: tuple[int, ...], window: int) -> list[_Region]:
    """Up to eight regions: along each axis the full windows, then what the last one has of real tokens."""
    axes = []
    for size in grid:
        full = size // window * window
        parts = [(slice(0, full), size // window, window)] if full else []
        if size > full:
            parts.append((slice(full, size), 1, size - full))
        axes.append(parts)
    return [
        _Region((d[0], h[0], w[0]), (d[1], h[1], w[1]), (d[2], h[2], w[2]))
        for d in axes[0] for h in axes[1] for w in axes[2]
    ]


def window_attention(qkv: Tensor, tables: Tensor, bias: Tensor, window: int) -> Tensor:
    """Attention in windows of the real extent (rd, rh, rw), each at most ``window``, padding included exactly.

    Args:
        qkv: (3, windows * heads, rd, rh, rw, c); windows and heads in this order.
        tables: (3 * (2 * window - 1), c), the rows of R_d, R_h, R_w.
        bias: (3, heads, c), what the qkv layer makes of a zero token.
        window: nominal edge of the windows.

    Returns:
        (windows * heads, rd, rh, rw, c).
    """
    q, k, v = qkv
    groups, rd, rh, rw, channels = q.shape
    tokens = rd * rh * rw
    bias_q, bias_k, bias_v = bias.repeat(1, groups // bias.shape[1], 1)
    terms = _relative_terms(q.to(tables.dtype), bias_q, tables, window)
    padded = tokens < window**3
    k, v = k.reshape(groups, tokens, channels), v.reshape(groups, tokens, channels)
    if padded:
        k = torch.cat([k, bias_k[:, None].to(k.dtype)], 1)
        v = torch.cat([v, bias_v[:, None].to(v.dtype)], 1)
        pad_logit = _padding_logit(*terms)
    step_d = min(rd, max(1, MAX_BIAS_VALUES // (rh * rw * tokens)))
    step_g = max(1, MAX_BIAS_VALUES // (step_d * rh * rw * tokens)) if step_d == rd else 1
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    for g0 in range(0, groups, step_g):
        g = slice(g0, g0 + step_g)
        for d0 in range(0, rd, step_d):
            d = slice(d0, d0 + step_d)
            logits = _bias_matrix(*(term[g, d] for term in terms), rd)
            if padded:
                logits = torch.cat([logits, pad_logit[g, d].flatten(1, 3)[..., None]], -1)
            part = F.scaled_dot_product_attention(
                q[g, d].flatten(1, 3)[None], k[None, g], v[None, g], attn_mask=logits[None].to(q.dtype)
            )
            out[g, d] = part[0].view(q[g, d].shape)
    return out


def _relative_terms(q: Tensor, bias_q: Tensor, tables: Tensor, window: int) -> tuple[Tensor, Tensor, Tensor]:
    """The three dot products of the bias, for all ``window`` positions of the key's last axis.

    Returns:
        first: (G, rd, rh, rw, window), indexed by (query d, h, w; key w).
        second, third: (G, rd, rh, window, window), indexed by (query d, h; key d respectively h; key w).
    """
    groups, rd, rh, rw, channels = q.shape
    index = torch.arange(window, device=q.device)
    index = index[:, None] - index[None, :] + window - 1
    table_d, table_h, table_w = tables.view(3, 2 * window - 1, channels)
    r_d, r_h, r_w = table_d[index[:rd]], table_h[index[:rh]], table_w[index]
    first = torch.einsum("gdhwc,dkc->gdhwk", q, r_d)
    second = torch.einsum("gdhwc,hkc->gdhwk", q, r_h)
    third = torch.einsum("gdhwc,wkc->gdhwk", q, r_w[:rw])
    if rw < window:
        pad_second = torch.einsum("gc,hkc->ghk", bias_q, r_h)[:, None, :, None]
        pad_third = torch.einsum("gc,wkc->gwk", bias_q, r_w[rw:])[:, None, None]
        second = torch.cat([second, pad_second.expand(groups, rd, rh, window - rw, window)], 3)
        third = torch.cat([third, pad_third.expand(groups, rd, rh, window - rw, window)], 3)
    return first, second, third


def _bias_matrix(first: Tensor, second: Tensor, third: Tensor, rd: int) -> Tensor:
    """The bias between real tokens: (G, queries, rd * rh * rw)."""
    rh, rw = first.shape[2:4]
    first, second, third = first[..., :rw], second[..., :rd, :rw], third[..., :rh, :rw]
    rows = second[..., :, None, :] + third[..., None, :, :]
    return (first[..., None, None, :] + rows[:, :, :, None]).flatten(4).flatten(1, 3)


def _padding_logit(first: Tensor, second: Tensor, third: Tensor) -> Tensor:
    """Logsumexp of the bias over all padding keys: (G, rd, rh, rw)."""
    rd, rh, rw = first.shape[1:4]
    real_second, pad_second = _logsumexp(second[..., :rd, :]), _logsumexp(second[..., rd:, :])
    real_third, pad_third = _logsumexp(third[..., :rh, :]), _logsumexp(third[..., rh:, :])
    all_third = torch.logaddexp(real_third, pad_third)
    # A key whose last coordinate is inside is padding when one of the others is outside; else it always is.
    inside = torch.logaddexp(real_second + pad_third, pad_second + all_third)[..., :rw]
    outside = (torch.logaddexp(real_second, pad_second) + all_third)[..., rw:]
    return torch.logsumexp(first + torch.cat([inside, outside], -1)[..., None, :], -1)


def _logsumexp(terms: Tensor) -> Tensor:
    """Over the last but one axis, ABSENT where that is empty."""
    if terms.shape[-2] == 0:
        return terms.new_full((*terms.shape[:-2], terms.shape[-1]), ABSENT)
    return torch.logsumexp(terms, -2)
