"""Small building blocks shared by the encoder and the decoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .linear import Activation, Linear, linear


class LayerNorm3d(nn.Module):
    """LayerNorm over the channels of (B, C, D, H, W): biased variance, eps 1e-6, affine."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return self.channels_last(x.movedim(1, -1)).movedim(-1, 1)

    def channels_last(self, x: Tensor) -> Tensor:
        """The same for (..., C)."""
        return F.layer_norm(x.to(self.weight.dtype), self.weight.shape, self.weight, self.bias, self.eps)


class MLPBlock(nn.Module):
    """Linear, activation, linear: (..., C) -> (..., C)."""

    def __init__(self, dim: int, hidden: int, activation: Activation = "gelu") -> None:
        super().__init__()
        self.lin1 = Linear(dim, hidden)
        self.lin2 = Linear(hidden, dim)
        self.activation: Activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return self.lin2(self.lin1(x, self.activation))


class MLP(nn.Module):
    """``depth`` linear layers with ReLU between them: (..., input_dim) -> (..., output_dim)."""

    def __init__(self, input_dim: int, hidden: int, output_dim: int, depth: int) -> None:
        super().__init__()
        sizes = [input_dim, *[hidden] * (depth - 1), output_dim]
        self.layers = nn.ModuleList(Linear(a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = layer(x, "relu")
        return self.layers[-1](x)


class PatchConv3d(nn.Conv3d):
    """A convolution whose stride is its kernel, evaluated as one matrix product (bf16 conv3d is 10 times slower)."""

    def __init__(self, in_channels: int, out_channels: int, patch: int) -> None:
        super().__init__(in_channels, out_channels, patch, patch)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) -> channels last (B, D/p, H/p, W/p, out_channels)."""
        batch, channels = x.shape[:2]
        p = self.kernel_size[0]
        grid = [size // p for size in x.shape[2:]]
        x = x.to(self.weight.dtype).reshape(batch, channels, grid[0], p, grid[1], p, grid[2], p)
        x = x.permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(batch, *grid, -1)
        return linear(x, self.weight.flatten(1), self.bias)


class UpConv3d(nn.ConvTranspose3d):
    """ConvTranspose3d with kernel and stride 2 as one matrix product per voxel; the eight children stay apart."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 2, 2)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]  # no output_size: it is always twice
        """(..., in_channels) -> (..., 8, out_channels), the children in the order (d, h, w) = 000, 001, ... 111."""
        weight = self.weight.flatten(2).permute(2, 1, 0).flatten(0, 1)
        bias = None if self.bias is None else self.bias.repeat(8)
        return linear(x, weight, bias).unflatten(-1, (8, -1))
