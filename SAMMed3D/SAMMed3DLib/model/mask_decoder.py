"""The mask decoder of SAM-Med3D and its two-way transformer: embeddings of image and prompts to mask logits.

Source: uni-medical/SAM-Med3D, ``segment_anything/modeling/mask_decoder3D.py`` (facts only).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .linear import MLP, LayerNorm3d, Linear, MLPBlock, UpConv3d


class CrossAttention(nn.Module):
    """Multi-head attention between two sets, with ``dim / downsample`` internal channels."""

    def __init__(self, dim: int, heads: int, downsample: int = 1) -> None:
        super().__init__()
        self.heads = heads
        inner = dim // downsample
        self.q_proj = Linear(dim, inner)
        self.k_proj = Linear(dim, inner)
        self.v_proj = Linear(dim, inner)
        self.out_proj = Linear(inner, dim)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(B, Nq, dim), (B, Nk, dim), (B, Nk, dim) -> (B, Nq, dim)."""
        out = F.scaled_dot_product_attention(
            self._split(self.q_proj(q)), self._split(self.k_proj(k)), self._split(self.v_proj(v))
        )
        return self.out_proj(out.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class TwoWayBlock(nn.Module):
    """Self-attention of the tokens, tokens to image, MLP, image to tokens; each followed by LayerNorm (eps 1e-5)."""

    def __init__(self, dim: int, heads: int, mlp_dim: int, first: bool) -> None:
        super().__init__()
        self.first = first
        self.self_attn = CrossAttention(dim, heads)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attn_token_to_image = CrossAttention(dim, heads, downsample=2)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = MLPBlock(dim, mlp_dim, "relu")
        self.norm3 = nn.LayerNorm(dim)
        self.norm4 = nn.LayerNorm(dim)
        self.cross_attn_image_to_token = CrossAttention(dim, heads, downsample=2)

    def forward(self, queries: Tensor, keys: Tensor, query_pe: Tensor, key_pe: Tensor) -> tuple[Tensor, Tensor]:
        """Queries (B, N, dim) and keys (B, M, dim) with their position embeddings -> both, updated."""
        if self.first:  # neither position nor residual in the first layer
            queries = self.self_attn(queries, queries, queries)
        else:
            q = queries + query_pe
            queries = queries + self.self_attn(q, q, queries)
        queries = self.norm1(queries)
        k = keys + key_pe
        queries = self.norm2(queries + self.cross_attn_token_to_image(queries + query_pe, k, keys))
        queries = self.norm3(queries + self.mlp(queries))
        keys = self.norm4(keys + self.cross_attn_image_to_token(k, queries + query_pe, queries))
        return queries, keys


class TwoWayTransformer3D(nn.Module):
    """``depth`` two-way blocks and a last attention of the tokens to the image."""

    def __init__(self, depth: int, dim: int, heads: int, mlp_dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TwoWayBlock(dim, heads, mlp_dim, first=index == 0) for index in range(depth))
        self.final_attn_token_to_image = CrossAttention(dim, heads, downsample=2)
        self.norm_final_attn = nn.LayerNorm(dim)

    def forward(self, image: Tensor, image_pe: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Image and its positions (B, M, dim), tokens (B, N, dim) -> tokens (B, N, dim), image (B, M, dim)."""
        queries, keys = tokens, image
        for layer in self.layers:
            queries, keys = layer(queries, keys, tokens, image_pe)
        attended = self.final_attn_token_to_image(queries + tokens, keys + image_pe, keys)
        return self.norm_final_attn(queries + attended), keys


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
