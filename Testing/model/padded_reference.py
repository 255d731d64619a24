"""SAM-Med3D's image encoder written out plainly, with real padding: what the fast one is checked and timed against.

It takes the weights of an ``ImageEncoderViT3D`` and shares no code with it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def padded_encode(encoder: nn.Module, image: Tensor) -> Tensor:
    """(B, C, D, H, W) -> embedding (B, out, g, g, g)."""
    projection = encoder.patch_embed.proj
    x = F.conv3d(image, projection.weight, projection.bias, stride=projection.stride)
    x = x.permute(0, 2, 3, 4, 1) + encoder.pos_embed
    for block in encoder.blocks:
        x = x + windowed(block.attn, layer_norm(block.norm1, x))
        hidden = F.gelu(F.linear(layer_norm(block.norm2, x), block.mlp.lin1.weight, block.mlp.lin1.bias))
        x = x + F.linear(hidden, block.mlp.lin2.weight, block.mlp.lin2.bias)
    conv1, norm1, conv2, norm2 = encoder.neck
    x = F.conv3d(x.permute(0, 4, 1, 2, 3), conv1.weight)
    x = F.conv3d(channel_norm(norm1, x), conv2.weight, padding=1)
    return channel_norm(norm2, x)


def layer_norm(norm: nn.Module, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, 1e-6)


def channel_norm(norm: nn.Module, x: Tensor) -> Tensor:
    mean = x.mean(1, keepdim=True)
    variance = (x - mean).square().mean(1, keepdim=True)
    shape = (1, -1, 1, 1, 1)
    return norm.weight.view(shape) * (x - mean) / (variance + 1e-6).sqrt() + norm.bias.view(shape)


def windowed(attention: nn.Module, x: Tensor) -> Tensor:
    """Zero padding at the end of each axis to whole windows, attention in each of them, padding cut off."""
    n = attention.window
    batch, d, h, w, dim = x.shape
    x = F.pad(x, (0, 0, 0, -w % n, 0, -h % n, 0, -d % n))
    out = torch.zeros_like(x)
    for i in range(0, x.shape[1], n):
        for j in range(0, x.shape[2], n):
            for k in range(0, x.shape[3], n):
                box = (slice(None), slice(i, i + n), slice(j, j + n), slice(k, k + n))
                out[box] = attend(attention, x[box])
    return out[:, :d, :h, :w]


def attend(attention: nn.Module, x: Tensor) -> Tensor:
    """Attention among all n^3 tokens of a window (B, n, n, n, dim), none of them masked."""
    n, heads = attention.window, attention.heads
    batch, dim = x.shape[0], x.shape[-1]
    qkv = F.linear(x.reshape(batch, n**3, dim), attention.qkv.weight, attention.qkv.bias)
    q, k, v = qkv.view(batch, n**3, 3, heads, dim // heads).permute(2, 0, 3, 1, 4)
    logits = (q * (dim // heads) ** -0.5) @ k.transpose(-2, -1)
    index = torch.arange(n)[:, None] - torch.arange(n)[None, :] + n - 1
    grid_q = q.reshape(batch, heads, n, n, n, -1)
    first = torch.einsum("bgdhwc,dkc->bgdhwk", grid_q, attention.rel_pos_d[index])
    second = torch.einsum("bgdhwc,hkc->bgdhwk", grid_q, attention.rel_pos_h[index])
    third = torch.einsum("bgdhwc,wkc->bgdhwk", grid_q, attention.rel_pos_w[index])
    logits = logits.view(batch, heads, n, n, n, n, n, n)
    logits = logits + first[:, :, :, :, :, None, None, :]  # query (d, h, w); key's last axis
    logits = logits + second[:, :, :, :, None, :, None, :]  # the query at (d, h, key's first axis)
    logits = logits + third[:, :, :, :, None, None, :, :]  # the query at (d, h, key's second axis)
    weights = logits.view(batch, heads, n**3, n**3).softmax(-1)
    out = (weights @ v).transpose(1, 2).reshape(batch, n, n, n, dim)
    return F.linear(out, attention.proj.weight, attention.proj.bias)
