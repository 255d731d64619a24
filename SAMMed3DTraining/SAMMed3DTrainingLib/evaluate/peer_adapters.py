"""SAM-Med2D's adapter beside the MLP of every block of the image encoder.

Facts from OpenGVLab/SAM-Med2D (``segment_anything/modeling/image_encoder.py``) and Cheng et al., arXiv:2308.16184:
a channel gate, then a convolution down and up again, added to its input and normalized.
"""

from __future__ import annotations

import sys

from torch import Tensor, nn

_REDUCTION = 4


class Adapter(nn.Module):
    """(B, H, W, C) to the same; the names of its parts are those of the public weights."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.channel = nn.Sequential(
            nn.Linear(dim, dim // _REDUCTION, bias=False), nn.ReLU(),
            nn.Linear(dim // _REDUCTION, dim, bias=False), nn.Sigmoid(),
        )
        self.spatial = nn.Sequential(
            nn.Conv2d(dim, dim, kernel_size=3, stride=2, padding=1, bias=False), nn.ReLU(),
            nn.ConvTranspose2d(dim, dim, kernel_size=4, stride=2, padding=1, bias=False), nn.ReLU(),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        gated = tokens * self.channel(tokens.mean(dim=(1, 2)))[:, None, None]
        refined = self.spatial(gated.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.norm(tokens + refined)


class AdapterBlock(nn.Module):
    """A block of the image encoder whose MLP has an adapter beside it; it takes over the block's parts."""

    def __init__(self, block: nn.Module, dim: int) -> None:
        super().__init__()
        self.norm1, self.attn, self.norm2, self.mlp = block.norm1, block.attn, block.norm2, block.mlp
        self.window_size = block.window_size
        self.Adapter = Adapter(dim)
        # The functions that cut windows live in the module of the block's class.
        module = sys.modules[type(block).__module__]
        self._partition, self._unpartition = module.window_partition, module.window_unpartition

    def forward(self, tokens: Tensor) -> Tensor:
        attended = self.norm1(tokens)
        if self.window_size > 0:
            size = attended.shape[1:3]
            windows, padded = self._partition(attended, self.window_size)
            attended = self._unpartition(self.attn(windows), self.window_size, padded, size)
        else:
            attended = self.attn(attended)
        tokens = tokens + attended
        normed = self.norm2(tokens)
        return tokens + self.mlp(normed) + self.Adapter(normed)


def add_adapters(image_encoder: nn.Module, dim: int) -> None:
    """Gives every block of an image encoder its adapter."""
    image_encoder.blocks = nn.ModuleList(AdapterBlock(block, dim) for block in image_encoder.blocks)
