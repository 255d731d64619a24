"""The image encoder of SAM-Med3D: a plain 3-D vision transformer with windowed attention.

Source of every shape and constant: uni-medical/SAM-Med3D, ``segment_anything/modeling/image_encoder3D.py`` (facts
only).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from .attention import Attention
from .linear import LayerNorm3d, MLPBlock, PatchConv3d, linear

LAYER_NORM_EPS = 1e-6


class EncoderBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); (B, D, H, W, dim)."""

    def __init__(self, dim: int, heads: int, window: int, mlp_ratio: int = 4) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.attn = Attention(dim, heads, window)
        self.norm2 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.mlp = MLPBlock(dim, mlp_ratio * dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        y = self.norm2(x)
        if torch.is_grad_enabled() and y.requires_grad:
            # The four times wider hidden layer is nearly half of what a training step would keep.
            return x + checkpoint(self.mlp, y, use_reentrant=False, preserve_rng_state=False)
        return x + self.mlp(y)


class PatchEmbed(nn.Module):
    """(B, C, D, H, W) -> (B, D/p, H/p, W/p, dim)."""

    def __init__(self, in_channels: int, dim: int, patch: int) -> None:
        super().__init__()
        self.proj = PatchConv3d(in_channels, dim, patch)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


class NeckConv3d(nn.Conv3d):
    """A 3x3x3 or 1x1x1 convolution of a channels-last grid as matrix products (bf16 conv3d is much slower)."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int) -> None:
        super().__init__(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, H, W, in) -> (B, D, H, W, out)."""
        kernel = self.kernel_size[0]
        if kernel == 1:
            return linear(x, self.weight.flatten(1), None)
        return F.conv3d(x.movedim(-1, 1).to(self.weight.dtype), self.weight, padding=1).movedim(1, -1)


class ImageEncoderViT3D(nn.Module):
    """(B, in_channels, image_size^3) float32 -> embedding (B, out_channels, grid^3) with grid = image_size / patch.

    Args:
        image_size: edge of the cubic input in voxels.
        dim, depth, heads: size of the transformer.
        global_blocks: indices of the blocks with global attention; the others have windows of ``window`` tokens.
        window: edge of a window in tokens.
        patch: edge of a patch in voxels.
        in_channels, out_channels: channels of the image and of the embedding.
    """

    def __init__(
        self,
        image_size: int,
        dim: int,
        depth: int,
        heads: int,
        global_blocks: tuple[int, ...],
        *,
        window: int = 14,
        patch: int = 16,
        in_channels: int = 1,
        out_channels: int = 384,
    ) -> None:
        super().__init__()
        grid = image_size // patch
        self.image_size = image_size
        self.in_channels = in_channels
        self.pos_embed = nn.Parameter(torch.zeros(1, grid, grid, grid, dim))
        self.patch_embed = PatchEmbed(in_channels, dim, patch)
        self.blocks = nn.ModuleList(
            EncoderBlock(dim, heads, grid if index in global_blocks else window) for index in range(depth)
        )
        self.neck = nn.Sequential(
            NeckConv3d(dim, out_channels, 1),
            LayerNorm3d(out_channels),
            NeckConv3d(out_channels, out_channels, 3),
            LayerNorm3d(out_channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        expected = (self.in_channels, *[self.image_size] * 3)
        if tuple(x.shape[1:]) != expected:
            raise ValueError(f"the encoder takes (B, {', '.join(map(str, expected))}), not {tuple(x.shape)}")
        x = self.patch_embed(x) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        neck: Any = self.neck
        conv1, norm1, conv2, norm2 = neck
        x = norm1.channels_last(conv1(x))
        return norm2.channels_last(conv2(x)).movedim(-1, 1)

    def set_compute_dtype(self, dtype: torch.dtype) -> None:
        """Keep the large weights in ``dtype`` and compute with them; norms, positions and residuals stay float32."""
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Conv3d)):
                module.to(dtype)
