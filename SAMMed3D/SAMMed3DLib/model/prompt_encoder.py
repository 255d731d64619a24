"""The prompt encoder of SAM-Med3D: points, boxes and low-resolution masks.

Source: uni-medical/SAM-Med3D, ``segment_anything/modeling/prompt_encoder3D.py``; boxes as its CVPR25 branch has them
(corners (-1, 2, 3), labels 2 and 3). Facts only.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .linear import LayerNorm3d, PatchConv3d, linear

NOT_A_POINT, NEGATIVE, POSITIVE = -1, 0, 1


class PositionEmbeddingRandom3D(nn.Module):
    """Random Fourier features of coordinates in [0, 1]^3: [sin, cos, sin]; the second sine is a quirk of the source."""

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(3, features))

    def encode(self, coords: Tensor) -> Tensor:
        """(..., 3) in [0, 1] -> (..., 3 * features)."""
        phase = 2 * math.pi * ((2 * coords - 1) @ self.positional_encoding_gaussian_matrix)
        sine = phase.sin()
        return torch.cat([sine, phase.cos(), sine], -1)

    def forward(self, size: tuple[int, int, int]) -> Tensor:
        """(3 * features, *size): of the cells' centers, with the first two axes swapped as in the source."""
        matrix = self.positional_encoding_gaussian_matrix
        axes = [(torch.arange(n, device=matrix.device, dtype=matrix.dtype) + 0.5) / n for n in size]
        first, second, third = torch.meshgrid(*axes, indexing="ij")
        return self.encode(torch.stack([second, first, third], -1)).permute(3, 0, 1, 2)


class PromptEncoder3D(nn.Module):
    """Prompts to sparse (B, N, dim) and dense (B, dim, grid^3) embeddings.

    Args:
        dim: channels of the embeddings.
        grid: edge of the image embedding in cells.
        image_size: edge of the input in voxels; point coordinates are its voxel indices.
        mask_channels: hidden channels of the mask encoder.
        boxes: whether there are embeddings for the two corners of a box.
    """

    def __init__(self, dim: int, grid: int, image_size: int, mask_channels: int = 16, boxes: bool = False) -> None:
        super().__init__()
        self.embed_dim = dim
        self.image_embedding_size = (grid, grid, grid)
        self.input_image_size = (image_size, image_size, image_size)
        self.pe_layer = PositionEmbeddingRandom3D(dim // 3)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, dim) for _ in range(4 if boxes else 2))
        self.not_a_point_embed = nn.Embedding(1, dim)
        self.mask_downscaling = nn.Sequential(
            PatchConv3d(1, mask_channels // 4, 2),
            LayerNorm3d(mask_channels // 4),
            nn.GELU(),
            PatchConv3d(mask_channels // 4, mask_channels, 2),
            LayerNorm3d(mask_channels),
            nn.GELU(),
            nn.Conv3d(mask_channels, dim, 1),
        )
        self.no_mask_embed = nn.Embedding(1, dim)

    @property
    def has_boxes(self) -> bool:
        """Whether this model has embeddings for boxes."""
        return len(self.point_embeddings) == 4

    def get_dense_pe(self) -> Tensor:
        """Position embedding of the grid, (1, dim, grid, grid, grid)."""
        return self.pe_layer(self.image_embedding_size)[None]

    def forward(
        self, points: tuple[Tensor, Tensor] | None, boxes: Tensor | None, masks: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Embed prompts.

        Args:
            points: coordinates (B, N, 3) in voxel indices (d0, d1, d2) of the crop, and labels (B, N): 1 positive,
                0 negative, -1 padding.
            boxes: (B, 6) or (B, 2, 3), lowest and highest corner in voxel indices.
            masks: (B, 1, 4 grid, 4 grid, 4 grid) low-resolution logits.

        Returns:
            sparse (B, N', dim), where a padding point is appended to points without a box, and dense
            (B, dim, grid, grid, grid).

        Raises:
            ValueError: boxes for a model without box embeddings.
        """
        weight = self.not_a_point_embed.weight
        batch = next((len(given) for given in (points and points[0], boxes, masks) if given is not None), 1)
        sparse = [weight.new_zeros(batch, 0, self.embed_dim)]
        if points is not None:
            sparse.append(self._embed_points(*points, pad=boxes is None))
        if boxes is not None:
            sparse.append(self._embed_boxes(boxes))
        if masks is not None:
            dense = self._embed_masks(masks)
        else:
            dense = self.no_mask_embed.weight.view(1, -1, 1, 1, 1).expand(batch, -1, *self.image_embedding_size)
        return torch.cat(sparse, 1), dense

    def _position(self, coords: Tensor) -> Tensor:
        size = coords.new_tensor(self.input_image_size)
        return self.pe_layer.encode((coords + 0.5) / size)

    def _embed_points(self, coords: Tensor, labels: Tensor, pad: bool) -> Tensor:
        coords = coords.to(self.not_a_point_embed.weight)
        if pad:
            coords = F.pad(coords, (0, 0, 0, 1))
            labels = F.pad(labels, (0, 1), value=NOT_A_POINT)
        labels = labels[..., None]
        signs: Any = self.point_embeddings
        position = self._position(coords)
        embedding = torch.where(labels == NOT_A_POINT, self.not_a_point_embed.weight, position)
        embedding = torch.where(labels == NEGATIVE, position + signs[0].weight, embedding)
        return torch.where(labels == POSITIVE, position + signs[1].weight, embedding)

    def _embed_boxes(self, boxes: Tensor) -> Tensor:
        if not self.has_boxes:
            raise ValueError(
                "this model was not trained for box prompts: use points, or a checkpoint with four point embeddings"
            )
        embeddings: Any = self.point_embeddings[2:]
        corners = boxes.to(self.not_a_point_embed.weight).reshape(-1, 2, 3)
        return self._position(corners) + torch.stack([e.weight[0] for e in embeddings])

    def _embed_masks(self, masks: Tensor) -> Tensor:
        layers: Any = self.mask_downscaling
        conv1, norm1, _, conv2, norm2, _, conv3 = layers
        x = F.gelu(norm1.channels_last(conv1(masks)))
        x = F.gelu(norm2.channels_last(conv2(x.movedim(-1, 1))))
        return linear(x, conv3.weight.flatten(1), conv3.bias).movedim(-1, 1)
