"""SAM-Med3D's attention with relative positions, and its padded windows evaluated without their padding.

Source: uni-medical/SAM-Med3D, ``image_encoder3D.py`` (facts only). Two things there are unusual, and the public
weights were trained with both, so they are reproduced exactly:

* The bias is added on the wrong axes. With Q(d, h, w) the unscaled query of a token and R_d, R_h, R_w the tables,

      bias[qd, qh, qw; kd, kh, kw] = Q(qd, qh, qw) . R_d[qd - kw]      "first"
                                   + Q(qd, qh, kd) . R_h[qh - kw]      "second"
                                   + Q(qd, qh, kh) . R_w[kh - kw]      "third"

* Windows that stick out of the grid are filled with zero tokens which are **not** masked: they take part as keys b_k
  and values b_v (the biases of the qkv layer) and, in the second and third term, as queries b_q.

How it is evaluated: only the first term depends on qw, and only through kw. So it becomes ``window`` more channels of
the query, matched by a one-hot code of kw in the key, and what is added to the logits is the same for a whole row
(qd, qh). All padding keys of one plane kw have the same key, value and first term; the logsumexp of their second and
third terms is known in closed form (`_padding_bias`). So ``window`` virtual keys, one a plane, stand for all of them:
512 + 14 keys instead of 2744 in the public model, and exactly the same result.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from .linear import Linear, linear

# Logits held at a time, in values; on a GPU larger pieces are faster.
CPU_LOGITS = 2_097_152
GPU_LOGITS = 33_554_432
# Smallest sum of exponentials: below every real one, above the first number whose logarithm is -inf.
TINY = 1e-37


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
        tables = torch.stack([self.rel_pos_d, self.rel_pos_h, self.rel_pos_w])
        bias = self.qkv.bias.to(tables.dtype).view(3, self.heads, -1)
        regions = _regions(x.shape[1:4], self.window)
        if len(regions) == 1:
            return self.proj(self._attend(qkv, regions[0], tables, bias))
        out = torch.empty_like(qkv[..., : x.shape[-1]])
        for region in regions:
            d, h, w = region.slices
            out[:, d, h, w] = self._attend(qkv[:, d, h, w], region, tables, bias).to(out.dtype)
        return self.proj(out)

    def _attend(self, qkv: Tensor, region: _Region, tables: Tensor, bias: Tensor) -> Tensor:
        """(B, D, H, W, 3 dim) of a region of equal windows -> (B, D, H, W, dim)."""
        batch, (nd, nh, nw), (rd, rh, rw) = qkv.shape[0], region.counts, region.extent
        windows = qkv.reshape(batch, nd, rd, nh, rh, nw, rw, 3, self.heads, -1)
        windows = windows.permute(7, 0, 1, 3, 5, 2, 4, 6, 8, 9).flatten(1, 4).to(tables.dtype)
        if torch.is_grad_enabled() and (qkv.requires_grad or tables.requires_grad):
            # The (tokens x tokens) matrices are the bulk of a training step's memory and cheap to compute again.
            out = checkpoint(
                window_attention, windows, tables, bias, self.window, use_reentrant=False, preserve_rng_state=False
            )
        else:
            out = window_attention(windows, tables, bias, self.window)
        out = out.reshape(batch, nd, nh, nw, rd, rh, rw, -1)
        return out.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(batch, nd * rd, nh * rh, nw * rw, -1)


class _Region(NamedTuple):
    """A box of the grid that whole windows of one real extent tile."""

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
        for d in axes[0]
        for h in axes[1]
        for w in axes[2]
    ]


def window_attention(qkv: Tensor, tables: Tensor, bias: Tensor, window: int) -> Tensor:
    """Attention in windows of the real extent (rd, rh, rw), each at most ``window``, padding included exactly.

    Args:
        qkv: (3, windows, rd, rh, rw, heads, c).
        tables: (3, 2 * window - 1, c), the rows of R_d, R_h, R_w; the one of query i and key j is i - j + window - 1.
        bias: (3, heads, c), what the qkv layer makes of a zero token.
        window: nominal edge of the windows.

    Returns:
        (windows, rd * rh * rw, heads * c).
    """
    if torch.is_autocast_enabled(qkv.device.type):  # sums of exponentials need the range
        with torch.autocast(qkv.device.type, enabled=False):
            return window_attention(qkv, tables, bias, window)
    q, k, v = qkv
    windows, rd, rh, rw, heads, channels = q.shape
    first, second, third = _relative_terms(q, bias[0], tables, window)
    rows = (second[..., :rd, None, :rw] + third[..., None, :rh, :rw]).flatten(4).flatten(1, 2)
    planes = torch.eye(window, device=q.device, dtype=q.dtype)
    codes = planes[:rw].repeat(rd * rh, 1)
    k, v = k.flatten(1, 3), v.flatten(1, 3)
    if min(rd, rh, rw) < window:
        rows = torch.cat([rows, _padding_bias(second, third, (rd, rh, rw))], -1)
        codes = torch.cat([codes, planes])
        k = torch.cat([k, bias[1].expand(windows, window, -1, -1)], 1)
        v = torch.cat([v, bias[2].expand(windows, window, -1, -1)], 1)
    k = torch.cat([k.transpose(1, 2), codes.expand(windows, heads, -1, -1)], -1)
    q = torch.cat([q * channels**-0.5, first], -1).flatten(1, 3)
    out = [_attend_rows(*window_parts, rw) for window_parts in zip(q, k, v.permute(0, 2, 3, 1), rows, strict=True)]
    return torch.stack(out).flatten(2)


def _attend_rows(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, row_length: int) -> Tensor:
    """softmax(q k^T + bias) v, some rows at a time so that the logits stay small.

    q (rows * row_length, heads, e), k (heads, keys, e), v (heads, c, keys), bias (rows, heads, keys), the same for all
    queries of a row -> (rows * row_length, heads, c).
    """
    k, v = k.contiguous(), v.contiguous()
    budget = CPU_LOGITS if q.device.type == "cpu" else GPU_LOGITS
    step = max(1, budget // (row_length * bias[0].numel()))
    parts = []
    for row in range(0, len(bias), step):
        logits = _products(q[row * row_length : (row + step) * row_length], k)
        logits.unflatten(0, (-1, row_length)).add_(bias[row : row + step, None])
        parts.append(_products(torch.softmax(logits, -1), v))
    return torch.cat(parts)


def _products(a: Tensor, b: Tensor) -> Tensor:
    """(N, G, K) and (G, M, K) -> (N, G, M), the product a b^T of every group."""
    direct = a.device.type == "cpu" and a.dtype == torch.float32 and not torch.is_grad_enabled()
    if direct and torch.backends.mkldnn.is_available():
        # A grouped 1x1 convolution reaches oneDNN in one call and needs no transposition; see linear.py for the gain.
        n, groups, channels = a.shape
        pixels = a.reshape(1, n, 1, groups * channels).permute(0, 3, 1, 2)
        return F.conv2d(pixels, b.reshape(-1, channels, 1, 1), groups=groups).permute(0, 2, 3, 1).view(n, groups, -1)
    return torch.einsum("ngk,gmk->ngm", a, b)


def _relative_terms(q: Tensor, bias_q: Tensor, tables: Tensor, window: int) -> tuple[Tensor, Tensor, Tensor]:
    """The three dot products of the bias, for all ``window`` positions of the key's last axis.

    Returns:
        first: (W, rd, rh, rw, heads, window), indexed by (query d, h, w; key w).
        second, third: (W, rd, rh, heads, window, window), indexed by (query d, h; key d respectively h; key w).
    """
    windows, rd, rh, rw, heads, _ = q.shape
    # With the rows reversed, key j of query i is at j - i + window - 1.
    tables = tables.flip(1)
    products = linear(q, tables.flatten(0, 1), None).unflatten(-1, (3, -1))
    first = _shear(products[..., 0, :], 1, window)
    second = _shear(products[..., 1, :], 2, window).transpose(3, 4)
    third = _shear(products[..., 2, :], 3, window).transpose(3, 4)
    if rw < window:  # the queries beyond the grid
        products = torch.einsum("gc,tlc->tgl", bias_q, tables[1:])
        index = torch.arange(window, device=q.device)
        index = index - index[:, None] + window - 1
        shape = (windows, rd, rh, heads, window - rw, window)
        second = torch.cat([second, products[0][:, index[:rh]].transpose(0, 1)[:, :, None].expand(shape)], 4)
        third = torch.cat([third, products[1][:, index[rw:]].expand(shape)], 4)
    return first, second, third


def _shear(products: Tensor, axis: int, window: int) -> Tensor:
    """View of (..., 2 * window - 1) whose last axis is, at position i of ``axis``, the ``window`` values from
    window - 1 - i on."""
    strides = list(products.stride())
    strides[axis] -= strides[-1]
    offset = products.storage_offset() + (window - 1) * strides[-1]
    return products.as_strided((*products.shape[:-1], window), strides, offset)


def _padding_bias(second: Tensor, third: Tensor, extent: tuple[int, int, int]) -> Tensor:
    """Logsumexp of second + third over the padding keys of every plane kw: (W, rd * rh, heads, window)."""
    rd, rh, rw = extent
    top_second, top_third = second.amax(4, keepdim=True), third.amax(4, keepdim=True)
    exp_second, exp_third = (second - top_second).exp(), (third - top_third).exp()
    real_second, pad_second = exp_second[..., :rd, :].sum(4), exp_second[..., rd:, :].sum(4)
    real_third, pad_third = exp_third[..., :rh, :].sum(4), exp_third[..., rh:, :].sum(4)
    all_third = real_third + pad_third
    # In a plane inside the grid a key is padding when kd or kh is outside; in the others every key is.
    inside = (real_second * pad_third + pad_second * all_third)[..., :rw]
    outside = ((real_second + pad_second) * all_third)[..., rw:]
    sums = torch.cat([inside, outside], -1).clamp_min(TINY)
    return (sums.log() + (top_second + top_third).squeeze(4)).flatten(1, 2)
