"""The mask decoder of SAM-Med3D: image and prompt embeddings to low-resolution mask logits.

Source: uni-medical/SAM-Med3D, ``segment_anything/modeling/mask_decoder3D.py`` (facts only).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .layers import MLP, LayerNorm3d, UpConv3d
from .transformer import TwoWayTransformer3D

MULTIMASKS = 3


class MaskDecoder3D(nn.Module):
    """Two-way transformer, fourfold upscaling and one hypernetwork per mask.

    Args:
        dim: channels of the embeddings.
    """

    def __init__(self, dim: int = 384) -> None:
        super().__init__()
        masks = MULTIMASKS + 1
        self.transformer = TwoWayTransformer3D(depth=2, dim=dim, heads=8, mlp_dim=2048)
        self.iou_token = nn.Embedding(1, dim)
        self.mask_tokens = nn.Embedding(masks, dim)
        self.output_upscaling = nn.Sequential(
            UpConv3d(dim, dim // 4), LayerNorm3d(dim // 4), nn.GELU(), UpConv3d(dim // 4, dim // 8), nn.GELU()
        )
        self.output_hypernetworks_mlps = nn.ModuleList(MLP(dim, dim, dim // 8, 3) for _ in range(masks))
        self.iou_prediction_head = MLP(dim, 256, masks, 3)

    def forward(
        self,
        image_embeddings: Tensor,
        image_pe: Tensor,
        sparse_prompt_embeddings: Tensor,
        dense_prompt_embeddings: Tensor,
        multimask_output: bool,
    ) -> tuple[Tensor, Tensor]:
        """Decode prompts.

        Args:
            image_embeddings: (1, dim, g, g, g), shared by all prompts, or (B, dim, g, g, g).
            image_pe: (1, dim, g, g, g).
            sparse_prompt_embeddings: (B, N, dim).
            dense_prompt_embeddings: (B, dim, g, g, g).
            multimask_output: False: the one mask of token 0; True: the three of tokens 1 to 3.

        Returns:
            mask logits (B, M, 4g, 4g, 4g) and predicted IoU (B, M).
        """
        masks = slice(1, None) if multimask_output else slice(0, 1)
        batch = sparse_prompt_embeddings.shape[0]
        tokens = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens = torch.cat([tokens.expand(batch, -1, -1), sparse_prompt_embeddings], 1)
        image = (image_embeddings + dense_prompt_embeddings).flatten(2).transpose(1, 2)
        pe = image_pe.flatten(2).transpose(1, 2)
        tokens, image = self.transformer(image, pe, tokens)
        iou = self.iou_prediction_head(tokens[:, 0])[:, masks]
        hyper = torch.stack(
            [mlp(tokens[:, 1 + i]) for i, mlp in list(enumerate(self.output_hypernetworks_mlps))[masks]], 1
        )
        return self._upscale(image, hyper, image_embeddings.shape[2:]), iou

    def _upscale(self, image: Tensor, hyper: Tensor, grid: torch.Size) -> Tensor:
        """Image tokens (B, g^3, dim) and hypernetwork rows (B, M, dim / 8) -> logits (B, M, 4g, 4g, 4g)."""
        layers: Any = self.output_upscaling
        conv1, norm, _, conv2, _ = layers
        x = F.gelu(norm.channels_last(conv1(image)))
        x = F.gelu(conv2(x))  # (B, g^3, 8, 8, dim / 8): the pixels are shuffled when only one value of each is left
        logits = hyper @ x.flatten(1, 3).transpose(1, 2)
        batch, masks = hyper.shape[:2]
        d, h, w = grid
        logits = logits.view(batch, masks, d, h, w, 2, 2, 2, 2, 2, 2).permute(0, 1, 2, 5, 8, 3, 6, 9, 4, 7, 10)
        return logits.reshape(batch, masks, 4 * d, 4 * h, 4 * w)
