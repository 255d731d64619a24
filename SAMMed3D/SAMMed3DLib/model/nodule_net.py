"""``nodule``: a compact promptable 3D network for lung nodules, with SAM's interfaces.

A convolutional encoder runs once a crop and leaves one feature map at half the crop's resolution.  Clicks, boxes and
previous logits are drawn into a dense prompt of the same resolution (and, as in SAM, also given as tokens); a small
U-shaped decoder with SAM's two-way attention at its bottom turns both into masks.  Late fusion keeps a click cheap, the
dense prompt lets a correction act where the user clicked.

Ideas: Segment Anything (Kirillov et al. 2023: tokens, two-way attention, hypernetworks, IoU head), U-Net (Ronneberger
et al. 2015), interactive segmentation with drawn clicks (Sofiiuk et al. 2021).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CROP = 64
GRID = 32
TOKEN_GRID = 8
TOKEN_DIM = 128


class ChannelNorm(nn.LayerNorm):
    """Layer normalization over the channels of (B, C, X, Y, Z); free of copies in channels-last memory."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 4, 1)).permute(0, 4, 1, 2, 3)


class Conv3x3x3(nn.Conv3d):
    """3^3 convolution that keeps the size.

    torch sends single small float32 maps to a convolution without oneDNN that takes 30 times as long, so outside of
    training the oneDNN operator is called by name where the build has it.
    """

    padding: tuple[int, ...]

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        direct = x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_grad_enabled()
        if direct and torch.backends.mkldnn.is_available() and not torch.is_autocast_enabled("cpu"):
            return torch.mkldnn_convolution(x, self.weight, self.bias, self.padding, self.stride, self.dilation, 1)
        return super().forward(x)


class Downsample(nn.Linear):
    """Convolution of kernel and stride 2 as one matrix product, (B, C, X, Y, Z) -> (B, D, X/2, Y/2, Z/2)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(8 * inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        b, c, *size = x.shape
        x = x.permute(0, 2, 3, 4, 1).reshape(b, size[0] // 2, 2, size[1] // 2, 2, size[2] // 2, 2, c)
        return super().forward(x.permute(0, 1, 3, 5, 2, 4, 6, 7).flatten(4)).permute(0, 4, 1, 2, 3)


class Upsample(nn.Linear):
    """Transposed convolution of kernel and stride 2 as one matrix product, (B, C, X, Y, Z) -> (B, D, 2X, 2Y, 2Z)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, 8 * outputs)

    def forward(self, x: Tensor) -> Tensor:
        b, _, *size = x.shape
        y = super().forward(x.permute(0, 2, 3, 4, 1)).reshape(b, *size, 2, 2, 2, -1)
        y = y.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(b, *(2 * n for n in size), -1)
        return y.permute(0, 4, 1, 2, 3)


class ResidualBlock(nn.Module):
    """Pre-norm residual block of two 3^3 convolutions, (B, C, X, Y, Z) -> same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.conv1 = Conv3x3x3(channels, channels)
        self.conv2 = Conv3x3x3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(self.norm(x))))


class LightResidualBlock(nn.Module):
    """Pre-norm residual block of one 3^3 convolution, (B, C, X, Y, Z) -> same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.conv = Conv3x3x3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(self.norm(x))


class Pointwise(nn.Linear):
    """Convolution of kernel 1 as one matrix product, (B, C, X, Y, Z) -> (B, D, X, Y, Z)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 4, 1)).permute(0, 4, 1, 2, 3)


class Merge(nn.Module):
    """Normalize, convolve, rectify: what follows the sum of two paths."""

    def __init__(self, channels: int, pointwise: bool = False) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.conv: nn.Module = Pointwise(channels, channels) if pointwise else Conv3x3x3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(self.norm(x)))


class NoduleAttention(nn.Module):
    """Multi-head attention between (B, N, C) queries and (B, M, C) keys and values."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.v = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None = None) -> Tensor:
        """``seen`` (B, 1, 1, M) is False for keys that nobody may look at."""
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, x in ((self.q, q), (self.k, k), (self.v, v))
        )
        return self.out(F.scaled_dot_product_attention(q, k, v, attn_mask=seen).transpose(1, 2).flatten(2))


class TransformerBlock(nn.Module):
    """Pre-norm self-attention and MLP on (B, N, C)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attention = NoduleAttention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 3 * dim), nn.GELU(), nn.Linear(3 * dim, dim))

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.attention(y + position, y + position, y)
        return x + self.mlp(self.norm2(x))


class NoduleEncoder(nn.Module):
    """(B, 3, 64, 64, 64): lung window, soft-tissue window, log2 spacing -> (B, 32, 32, 32, 32) embedding."""

    def __init__(self, channels: int = 3, widths: tuple[int, int, int] = (32, 80, 160)) -> None:
        super().__init__()
        fine, middle, coarse = widths
        self.stem = Downsample(channels, fine)
        self.fine = ResidualBlock(fine)
        self.down1 = Downsample(fine, middle)
        self.middle = nn.Sequential(ResidualBlock(middle), ResidualBlock(middle))
        self.down2 = Downsample(middle, coarse)
        self.coarse = nn.Sequential(ResidualBlock(coarse), ResidualBlock(coarse))
        self.position = nn.Parameter(torch.empty(1, TOKEN_GRID**3, coarse))
        nn.init.normal_(self.position, std=0.02)
        self.context = nn.ModuleList([TransformerBlock(coarse, 5) for _ in range(2)])
        self.up1 = Upsample(coarse, middle)
        self.merge1 = Merge(middle)
        self.up2 = Upsample(middle, fine)
        self.merge2 = Merge(fine)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.fine(self.stem(x))
        middle = self.middle(self.down1(fine))
        coarse = self.coarse(self.down2(middle))
        tokens = coarse.flatten(2).transpose(1, 2)
        for block in self.context:
            tokens = block(tokens, self.position)
        coarse = tokens.unflatten(1, (TOKEN_GRID,) * 3).permute(0, 4, 1, 2, 3)
        middle = self.merge1(middle + self.up1(coarse))
        return self.merge2(fine + self.up2(middle))


def is_given(tokens: Tensor) -> Tensor:
    """Which of the tokens (B, T, C) are prompts and which only fill up the batch: bool (B, T)."""
    return (tokens != 0).any(dim=2)


class NodulePromptEncoder(nn.Module):
    """Clicks, boxes and previous logits as tokens and as a dense prompt.

    Coordinates are crop indices (d0, d1, d2); labels 1 positive, 0 negative, -1 padding.  Padding gives tokens of
    zeros, which :class:`NoduleMaskDecoder` keeps out of its attention: a sample's answer is that of the sample alone.
    """

    blob_cells = (0.8, 2.5)
    """Standard deviations, in cells of the 32^3 grid, of the blobs drawn for a click: where exactly, and how near."""
    logit_limit = 12.0
    gaussian_matrix: Tensor

    def __init__(self, embed_dim: int = 32, light: bool = False) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.register_buffer("gaussian_matrix", torch.randn(3, TOKEN_DIM // 2))
        self.label_embeddings = nn.Parameter(torch.empty(5, TOKEN_DIM))  # negative, positive, corners, no prompt
        nn.init.normal_(self.label_embeddings, std=0.5)
        drawn = 2 * len(self.blob_cells) + 2 + 2
        # The light network mixes the drawn maps in half as many channels.
        mixing = (
            [Conv3x3x3(drawn, embed_dim // 2), Pointwise(embed_dim // 2, embed_dim)]
            if light
            else [Conv3x3x3(drawn, embed_dim)]
        )
        self.draw = nn.Sequential(*mixing, nn.ReLU(), ChannelNorm(embed_dim))

    def _encode_position(self, unit: Tensor) -> Tensor:
        """Random Fourier features (..., 3) in [0, 1] -> (..., 128)."""
        angle = 2 * math.pi * ((2 * unit.float() - 1) @ self.gaussian_matrix.float())
        return torch.cat((angle.sin(), angle.cos()), dim=-1)

    def get_dense_pe(self) -> Tensor:
        """Position features of the 8^3 token grid: (1, 128, 8, 8, 8)."""
        axis = (torch.arange(TOKEN_GRID, device=self.gaussian_matrix.device) + 0.5) / TOKEN_GRID
        grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
        return self._encode_position(grid).permute(3, 0, 1, 2)[None]

    def forward(
        self, points: tuple[Tensor, Tensor] | None = None, boxes: Tensor | None = None, masks: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """
        Args:
            points: coordinates (B, N, 3) and labels (B, N).
            boxes: (B, 6) or (B, 2, 3), lower and upper corner as crop indices; NaN rows mean no box.
            masks: previous low-resolution logits (B, 1, 32, 32, 32).

        Returns:
            tokens (B, T, 128), zeros where a sample has fewer than others, and dense prompt (B, 32, 32, 32, 32).
        """
        batch = next((len(x) for x in (boxes, masks, points[0] if points is not None else None) if x is not None), 1)
        device = self.gaussian_matrix.device
        tokens = []
        maps = torch.zeros(batch, 2 * len(self.blob_cells) + 4, GRID, GRID, GRID, device=device)
        if points is not None and points[0].shape[1]:
            coords, labels = points[0].to(device).float() + 0.5, points[1].to(device)
            features = self._encode_position(coords / CROP) + self.label_embeddings[labels.clamp(min=0).long()].float()
            tokens.append(torch.where((labels >= 0)[..., None], features, 0.0))
            maps[:, : 2 * len(self.blob_cells)] = self._draw_points(coords, labels)
        if boxes is not None:
            corners = boxes.to(device).float().reshape(batch, 2, 3)
            given = corners.isfinite().all(dim=2, keepdim=True).all(dim=1, keepdim=True)
            corners = torch.where(given, corners, 0.0)
            features = self._encode_position((corners + 0.5) / CROP) + self.label_embeddings[2:4].float()
            tokens.append(torch.where(given, features, 0.0))
            maps[:, -4] = self._draw_box(corners) * given[..., None]
            maps[:, -3] = given[..., None].float()
        if masks is not None:
            logits = masks[:, 0].to(device).float().clamp(-self.logit_limit, self.logit_limit)
            maps[:, -2] = logits / self.logit_limit
            maps[:, -1] = torch.tanh(logits)
        sparse = torch.cat(tokens or [torch.zeros(batch, 1, TOKEN_DIM, device=device)], dim=1)
        # A sample without any click or box still has one token to say so.
        without = ~is_given(sparse).any(dim=1)
        sparse = torch.cat(
            (torch.where(without[:, None, None], self.label_embeddings[4].float(), sparse[:, :1]), sparse[:, 1:]), dim=1
        )
        return sparse, self.draw(maps.contiguous(memory_format=torch.channels_last_3d))

    def _draw_points(self, coords: Tensor, labels: Tensor) -> Tensor:
        """Gaussian blobs, the nearest click wins: (B, 2 * scales, 32, 32, 32)."""
        centers = (torch.arange(GRID, device=coords.device) + 0.5) * (CROP / GRID)
        squared = ((centers - coords[..., None]) * (GRID / CROP)).square()  # (B, N, 3, 32)
        maps = []
        for sigma in self.blob_cells:
            x, y, z = torch.exp(-0.5 * squared / sigma**2).unbind(2)
            blobs = x[..., :, None, None] * y[..., None, :, None] * z[..., None, None, :]
            for label in (1, 0):
                maps.append((blobs * (labels == label)[..., None, None, None]).amax(dim=1))
        return torch.stack(maps, dim=1)

    def _draw_box(self, corners: Tensor) -> Tensor:
        """Soft indicator of the inside of (B, 2, 3) corners: (B, 32, 32, 32)."""
        centers = (torch.arange(GRID, device=corners.device) + 0.5) * (CROP / GRID) - 0.5
        low, high = corners[:, :1].transpose(1, 2), corners[:, 1:].transpose(1, 2)
        inside = torch.sigmoid(2 * (centers - low)) * torch.sigmoid(2 * (high - centers))
        x, y, z = inside.unbind(1)
        return x[:, :, None, None] * y[:, None, :, None] * z[:, None, None, :]


class NoduleTwoWayBlock(nn.Module):
    """Tokens attend to themselves and to the image, then the image to the tokens (SAM's block, pre-norm)."""

    def __init__(self, dim: int, heads: int = 4) -> None:
        super().__init__()
        self.norm_self = nn.LayerNorm(dim)
        self.self_attention = NoduleAttention(dim, heads)
        self.norm_cross = nn.LayerNorm(dim)
        self.norm_image = nn.LayerNorm(dim)
        self.to_image = NoduleAttention(dim, heads)
        self.norm_mlp = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, dim))
        self.norm_tokens = nn.LayerNorm(dim)
        self.from_image = NoduleAttention(dim, heads)

    def forward(
        self, tokens: Tensor, image: Tensor, position: Tensor, seen: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """``seen`` (B, 1, 1, T) is False for tokens that only fill up the batch."""
        x = self.norm_self(tokens)
        tokens = tokens + self.self_attention(x, x, x, seen)
        keys = self.norm_image(image)
        tokens = tokens + self.to_image(self.norm_cross(tokens), keys + position, keys)
        tokens = tokens + self.mlp(self.norm_mlp(tokens))
        x = self.norm_tokens(tokens)
        return tokens, image + self.from_image(keys + position, x, x, seen)


class NoduleMaskDecoder(nn.Module):
    """Embedding and prompts -> low-resolution logits and predicted IoU; mask 0 single, masks 1..3 multimask.

    The light one convolves on the way up only and costs half as much: the prompt is mixed where it is drawn, and the
    image has been looked at by the encoder.
    """

    num_mask_tokens = 4

    def __init__(self, widths: tuple[int, int, int] = (32, 64, TOKEN_DIM), light: bool = False) -> None:
        super().__init__()
        fine, middle, coarse = widths
        self.mask_tokens = nn.Parameter(torch.empty(1 + self.num_mask_tokens, TOKEN_DIM))
        nn.init.normal_(self.mask_tokens, std=0.5)
        self.enter = Merge(fine, pointwise=light)
        self.down1 = Downsample(fine, middle)
        self.middle: nn.Module = nn.Identity() if light else ResidualBlock(middle)
        self.down2 = Downsample(middle, coarse)
        self.coarse: nn.Module = LightResidualBlock(coarse) if light else ResidualBlock(coarse)
        self.attention = nn.ModuleList([NoduleTwoWayBlock(coarse) for _ in range(2)])
        self.up1 = Upsample(coarse, middle)
        self.merge1 = Merge(middle)
        self.up2 = Upsample(middle, fine)
        self.merge2 = Merge(fine)
        self.final_norm = nn.LayerNorm(coarse)
        self.hypernetworks = nn.ModuleList(
            [
                nn.Sequential(nn.Linear(coarse, coarse), nn.ReLU(), nn.Linear(coarse, fine + 1))
                for _ in range(self.num_mask_tokens)
            ]
        )
        self.iou_head = nn.Sequential(
            nn.Linear(2 * coarse + 2 * fine, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 1)
        )

    def forward(
        self,
        image_embeddings: Tensor,
        image_pe: Tensor,
        sparse_prompt_embeddings: Tensor,
        dense_prompt_embeddings: Tensor,
        multimask_output: bool,
    ) -> tuple[Tensor, Tensor]:
        """
        Args:
            image_embeddings: (B or 1, 32, 32, 32, 32) of :class:`NoduleEncoder`.
            image_pe: (1, 128, 8, 8, 8); sparse_prompt_embeddings (B, T, 128); dense_prompt_embeddings
                (B, 32, 32, 32, 32), as :class:`NodulePromptEncoder` gives them.
            multimask_output: masks 1..3 instead of mask 0.

        Returns:
            logits (B, 1 or 3, 32, 32, 32) and predicted IoU (B, 1 or 3) in [0, 1].
        """
        masks, iou = self.predict_all(image_embeddings, image_pe, sparse_prompt_embeddings, dense_prompt_embeddings)
        chosen = slice(1, None) if multimask_output else slice(0, 1)
        return masks[:, chosen], iou[:, chosen]

    def predict_all(self, image: Tensor, image_pe: Tensor, sparse: Tensor, dense: Tensor) -> tuple[Tensor, Tensor]:
        """All four masks and their IoU, for training."""
        batch = len(sparse)
        fine = self.enter(image + dense)
        middle = self.middle(self.down1(fine))
        coarse = self.coarse(self.down2(middle))
        given = is_given(sparse)
        # Without anything to leave out, attention is faster without a mask.
        seen = None if bool(given.all()) else F.pad(given, (len(self.mask_tokens), 0), value=True)[:, None, None]
        tokens = torch.cat((self.mask_tokens.expand(batch, -1, -1), sparse.to(self.mask_tokens.dtype)), dim=1)
        keys = coarse.flatten(2).transpose(1, 2)
        position = image_pe.flatten(2).transpose(1, 2).to(keys.dtype)
        for block in self.attention:
            tokens, keys = block(tokens, keys, position, seen)
        coarse = keys.unflatten(1, (TOKEN_GRID,) * 3).permute(0, 4, 1, 2, 3)
        middle = self.merge1(middle + self.up1(coarse))
        fine = self.merge2(fine + self.up2(middle))

        tokens = self.final_norm(tokens)
        mask_tokens = tokens[:, 1 : 1 + self.num_mask_tokens]
        weights = torch.stack([net(mask_tokens[:, i]) for i, net in enumerate(self.hypernetworks)], dim=1)
        features = fine.permute(0, 2, 3, 4, 1).flatten(1, 3)
        masks = (features @ weights[..., :-1].transpose(1, 2)).transpose(1, 2).float() + weights[..., -1:].float()
        # The IoU is judged from what lies inside the mask and along its edge, so that it can tell a leak.
        inside = torch.sigmoid(masks.detach())
        edge = inside * (1 - inside)
        pooled = [
            (area / area.sum(dim=2, keepdim=True).clamp(min=1e-3)).to(features.dtype) @ features.detach()
            for area in (inside, edge)
        ]
        iou_token = tokens[:, :1].expand(-1, self.num_mask_tokens, -1)
        judged = torch.cat((iou_token, mask_tokens, *pooled), dim=2)
        return masks.unflatten(2, (GRID, GRID, GRID)), torch.sigmoid(self.iou_head(judged).float()).squeeze(2)


def build_nodule_net(light: bool = False) -> tuple[NoduleEncoder, NodulePromptEncoder, NoduleMaskDecoder]:
    """The three parts of the untrained ``nodule`` network, or with ``light`` of ``nodule_light`` (random weights from
    torch's global generator)."""
    parts = NoduleEncoder(), NodulePromptEncoder(light=light), NoduleMaskDecoder(light=light)
    for part in parts:
        part.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # stubs know it with a dtype only
    return parts
