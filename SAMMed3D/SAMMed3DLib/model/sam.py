"""A complete promptable network with what it expects of its input."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .precision import PRECISIONS, resolve_device, resolve_precision
from .profile import PreprocessingProfile
from .sizes import GFLOP


class Sam3D(nn.Module):
    """Image encoder, prompt encoder and mask decoder, with the names and call signatures of the public code.

    Attributes:
        name: registry name.
        profile: what a crop must look like and how clicks are fed.
        low_res_size: shape of the low-resolution masks.
        precision: "fp32", "bf16" or "fp16", in which the image encoder computes; prompts and masks are fp32.
    """

    def __init__(
        self,
        name: str,
        profile: PreprocessingProfile,
        image_encoder: nn.Module,
        prompt_encoder: nn.Module,
        mask_decoder: nn.Module,
        low_res_size: tuple[int, int, int],
    ) -> None:
        super().__init__()
        self.name = name
        self.profile = profile
        self.low_res_size = low_res_size
        self.precision = "fp32"
        self.image_encoder = image_encoder
        self.prompt_encoder = prompt_encoder
        self.mask_decoder = mask_decoder

    @property
    def gflop(self) -> tuple[float, float] | None:
        """10^9 floating point operations of one encoding and of one decoding, where they are known."""
        return GFLOP.get(self.name)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def set_precision(self, precision: str) -> None:
        """Compute image embeddings in "fp32", "bf16", "fp16" or "auto" from now on.

        A ViT keeps its large weights in that format, which halves them but rounds them for good; other encoders run
        under autocast. Raises DeviceError when the device cannot do it.
        """
        self.precision = resolve_precision(precision, self.device)
        if hasattr(self.image_encoder, "set_compute_dtype"):
            set_dtype: Any = self.image_encoder.set_compute_dtype
            set_dtype(PRECISIONS[self.precision])

    def to_device(self, device: str | torch.device) -> Sam3D:
        """Move the model; a precision that the new device lacks becomes its best one. Raises DeviceError."""
        resolved = resolve_device(device)
        self.to(resolved)
        try:
            resolve_precision(self.precision, resolved)
        except ValueError:
            self.set_precision("fp32")
        return self

    @torch.no_grad()
    def encode(self, crop: Tensor) -> Tensor:
        """Image embedding (B, C, *grid), float32, of prepared crops (B, channels, *crop_size) float32."""
        crop = crop.to(self.device, torch.float32)
        autocast = self.precision != "fp32" and not hasattr(self.image_encoder, "set_compute_dtype")
        with torch.autocast(self.device.type, PRECISIONS[self.precision], enabled=autocast):
            return self.image_encoder(crop).float()

    @torch.no_grad()
    def decode(
        self,
        embedding: Tensor,
        coords: Tensor | None = None,
        labels: Tensor | None = None,
        boxes: Tensor | None = None,
        mask: Tensor | None = None,
        multimask_output: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Masks for prompts on an embedding.

        Args:
            embedding: (1 or B, C, *grid), of :meth:`encode`, any floating dtype and device.
            coords, labels: (B, N, 3) in voxel indices (d0, d1, d2) of the crop, fractions allowed, and (B, N) with 1
                positive, 0 negative.
            boxes: (B, 6), lowest and highest corner in voxel indices.
            mask: previous logits (B, 1, *low_res_size). None is decoded as zeros: the public weights never learned
                their embedding of "no mask".
            multimask_output: three masks instead of one.

        Returns:
            logits (B, M, *low_res_size) and predicted IoU (B, M), both float32.

        Raises:
            ValueError: boxes for a model without box embeddings, coordinates without labels.
        """
        if (coords is None) != (labels is None):
            raise ValueError("coords and labels go together")
        device = self.device
        points = None
        if coords is not None and labels is not None:
            points = (coords.to(device, torch.float32), labels.to(device))
        if mask is None:
            given = next((prompt for prompt in (coords, boxes) if prompt is not None), None)
            batch = 1 if given is None else given.shape[0]
            mask = torch.zeros(batch, 1, *self.low_res_size, device=device)
        encoder: Any = self.prompt_encoder
        sparse, dense = encoder(
            points=points,
            boxes=None if boxes is None else boxes.to(device, torch.float32),
            masks=mask.to(device, torch.float32),
        )
        logits, iou = self.mask_decoder(
            image_embeddings=embedding.to(device, torch.float32),
            image_pe=encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask_output,
        )
        return logits.float(), iou.float()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """There is no single forward pass: images are encoded once and decoded often."""
        raise NotImplementedError("use encode() and decode(), or image_encoder, prompt_encoder and mask_decoder")
