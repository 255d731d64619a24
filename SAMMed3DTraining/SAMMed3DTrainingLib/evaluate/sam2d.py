"""Segment Anything's network for one slice at a time, with or without the adapters of SAM-Med2D."""

from __future__ import annotations

import os
from functools import partial

import torch
from torch import Tensor, nn

from SAMMed3DLib.files.image_file import given_path
from SAMMed3DLib.model.checkpoint import CheckpointError, check_layout, read_weights
from SAMMed3DLib.model.precision import PRECISIONS, resolve_device, resolve_precision

from .peer_adapters import add_adapters
from .peer_layout import PATCH, SamLayout
from .sam_package import sam_modeling

#: Where public checkpoints keep their weights; Segment Anything's own file is nothing but weights.
_KEYS = ("model", "model_state_dict", "state_dict")
_DECODER_HEADS = 8


class Sam2D(nn.Module):
    """Image encoder, prompt encoder and mask decoder in the layout of the public checkpoints.

    Args:
        layout: of the weights that are to be loaded.

    Raises:
        PeerError: the package segment-anything is not installed.
    """

    def __init__(self, layout: SamLayout) -> None:
        super().__init__()
        modeling = sam_modeling()
        self.layout = layout
        self.precision = "fp32"
        grid = layout.image_size // PATCH
        self.image_encoder = modeling.ImageEncoderViT(
            img_size=layout.image_size, patch_size=PATCH, embed_dim=layout.dim, depth=layout.depth,
            num_heads=layout.heads, mlp_ratio=4, out_chans=layout.prompt_dim, qkv_bias=True, use_rel_pos=True,
            norm_layer=partial(nn.LayerNorm, eps=1e-6), window_size=layout.window,
            global_attn_indexes=layout.global_blocks,
        )
        if layout.adapters:
            add_adapters(self.image_encoder, layout.dim)
        self.prompt_encoder = modeling.PromptEncoder(
            embed_dim=layout.prompt_dim, image_embedding_size=(grid, grid),
            input_image_size=(layout.image_size, layout.image_size), mask_in_chans=16,
        )
        self.mask_decoder = modeling.MaskDecoder(
            num_multimask_outputs=3, transformer_dim=layout.prompt_dim, iou_head_depth=3, iou_head_hidden_dim=256,
            transformer=modeling.TwoWayTransformer(
                depth=2, embedding_dim=layout.prompt_dim, mlp_dim=layout.mlp_dim, num_heads=_DECODER_HEADS
            ),
        )

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.prompt_encoder.no_mask_embed.weight.device

    @torch.no_grad()
    def encode(self, image: Tensor) -> Tensor:
        """(1, 3, S, S) prepared pixels to the embedding (1, C, S/16, S/16), float32."""
        image = image.to(self.device)
        if self.precision == "fp32":
            return self.image_encoder(image)
        with torch.autocast(self.device.type, dtype=PRECISIONS[self.precision]):
            return self.image_encoder(image).float()

    @torch.no_grad()
    def decode(
        self, embedding: Tensor, points: Tensor | None, labels: Tensor | None, box: Tensor | None, mask: Tensor | None,
        multimask: bool,
    ) -> tuple[Tensor, Tensor]:
        """The answers to one object's prompts.

        Args:
            embedding: of :meth:`encode`.
            points, labels: (n, 2) x, y in input pixels and (n,) 1 or 0; None for a box alone.
            box: (4,) x0, y0, x1, y1 in input pixels.
            mask: (S/4, S/4) of an earlier answer.
            multimask: three answers instead of one.

        Returns:
            (m, S/4, S/4) logits and (m,) predicted IoU, on the CPU.
        """
        device = self.device
        prompts = None
        if points is not None and len(points):
            prompts = points[None].to(device, torch.float32), labels[None].to(device)
        sparse, dense = self.prompt_encoder(
            points=prompts, boxes=None if box is None else box[None].to(device, torch.float32),
            masks=None if mask is None else mask[None, None].to(device, torch.float32),
        )
        logits, iou = self.mask_decoder(
            image_embeddings=embedding, image_pe=self.prompt_encoder.get_dense_pe(), sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense, multimask_output=multimask,
        )
        return logits[0].float().cpu(), iou[0].float().cpu()


def load_sam2d(path: str | os.PathLike[str], device: str = "cpu", precision: str = "fp32") -> Sam2D:
    """A public checkpoint of SAM, MedSAM or SAM-Med2D, or a fine-tuned one; its size is read from its tensors.

    Raises:
        CheckpointError: not a checkpoint, damaged, of another kind of network, or with tensors too many or too few.
        DeviceError: a device or number format that is not there.
        PeerError: the package segment-anything is not installed.
    """
    resolved = resolve_device(device)
    precision = resolve_precision(precision, resolved)
    file = given_path(path)
    weights = read_weights(file, _KEYS)
    layout = SamLayout.of(weights, file)
    try:
        with torch.device("meta"):
            network = Sam2D(layout)
    except (ValueError, AssertionError, RuntimeError) as error:
        raise CheckpointError(f"{file} describes a network that cannot be built ({error}): choose another") from error
    check_layout(network, f"the 2D network {layout.name}", weights, file)
    network.load_state_dict(
        {name: tensor.to(resolved, torch.float32, copy=True) for name, tensor in weights.items()}, assign=True
    )
    network.requires_grad_(False).eval()
    network.precision = precision
    return network
