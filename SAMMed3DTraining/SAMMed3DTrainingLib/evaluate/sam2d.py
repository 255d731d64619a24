"""Runs Segment Anything's network on one slice at a time, with or without the adapters of SAM-Med2D."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from SAMMed3DLib.files.image_file import given_path
from SAMMed3DLib.model.checkpoint import CheckpointError, check_layout, read_weights
from SAMMed3DLib.model.precision import PRECISIONS, resolve_device, resolve_precision

#: Where public checkpoints keep their weights; Segment Anything's own file is nothing but weights.
_KEYS = ("model", "model_state_dict", "state_dict")
_DECODER_HEADS = 8
_REDUCTION = 4
PATCH = 16
#: The sizes of Segment Anything: (width, depth) of the image encoder.
SIZES = {(768, 12): "vit_b", (1024, 24): "vit_l", (1280, 32): "vit_h"}
_BLOCK = r"image_encoder\.blocks\.(\d+)\."
_NAME = "_segment_anything_modeling"


class Sam2D(nn.Module):
    """Image encoder, prompt encoder and mask decoder in the layout of the public checkpoints.

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
            img_size=layout.image_size,
            patch_size=PATCH,
            embed_dim=layout.dim,
            depth=layout.depth,
            num_heads=layout.heads,
            mlp_ratio=4,
            out_chans=layout.prompt_dim,
            qkv_bias=True,
            use_rel_pos=True,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            window_size=layout.window,
            global_attn_indexes=layout.global_blocks,
        )
        if layout.adapters:
            add_adapters(self.image_encoder, layout.dim)
        self.prompt_encoder = modeling.PromptEncoder(
            embed_dim=layout.prompt_dim,
            image_embedding_size=(grid, grid),
            input_image_size=(layout.image_size, layout.image_size),
            mask_in_chans=16,
        )
        self.mask_decoder = modeling.MaskDecoder(
            num_multimask_outputs=3,
            transformer_dim=layout.prompt_dim,
            iou_head_depth=3,
            iou_head_hidden_dim=256,
            transformer=modeling.TwoWayTransformer(
                depth=2, embedding_dim=layout.prompt_dim, mlp_dim=layout.mlp_dim, num_heads=_DECODER_HEADS
            ),
        )

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
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
        self,
        embedding: Tensor,
        points: Tensor | None,
        labels: Tensor | None,
        box: Tensor | None,
        mask: Tensor | None,
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
            assert labels is not None  # they come with the points
            prompts = points[None].to(device, torch.float32), labels[None].to(device)
        sparse, dense = self.prompt_encoder(
            points=prompts,
            boxes=None if box is None else box[None].to(device, torch.float32),
            masks=None if mask is None else mask[None, None].to(device, torch.float32),
        )
        logits, iou = self.mask_decoder(
            image_embeddings=embedding,
            image_pe=self.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask,
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
    file = given_path(os.fspath(path))
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


class Adapter(nn.Module):
    """(B, H, W, C) to the same; the names of its parts are those of the public weights."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.channel = nn.Sequential(
            nn.Linear(dim, dim // _REDUCTION, bias=False),
            nn.ReLU(),
            nn.Linear(dim // _REDUCTION, dim, bias=False),
            nn.Sigmoid(),
        )
        self.spatial = nn.Sequential(
            nn.Conv2d(dim, dim, kernel_size=3, stride=2, padding=1, bias=False),
            nn.ReLU(),
            nn.ConvTranspose2d(dim, dim, kernel_size=4, stride=2, padding=1, bias=False),
            nn.ReLU(),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        gated = tokens * self.channel(tokens.mean(dim=(1, 2)))[:, None, None]
        refined = self.spatial(gated.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.norm(tokens + refined)


class AdapterBlock(nn.Module):
    """A block of the image encoder whose MLP has an adapter beside it; it takes over the block's parts."""

    def __init__(self, block: nn.Module, dim: int) -> None:
        super().__init__()
        parts: Any = block  # torch's stubs take every attribute of a module for a Tensor or Module
        self.norm1, self.attn, self.norm2, self.mlp = parts.norm1, parts.attn, parts.norm2, parts.mlp
        self.window_size = parts.window_size
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
    blocks: Any = image_encoder.blocks  # a ModuleList
    image_encoder.blocks = nn.ModuleList(AdapterBlock(block, dim) for block in blocks)


@dataclass(frozen=True)
class SamLayout:
    """The figures of a network of Segment Anything's kind.

    Attributes:
        image_size: edge of the input in pixels.
        dim, depth, heads: of the image encoder.
        global_blocks: blocks that attend over the whole image, the others over windows.
        window: edge of a window in patches; 0 where there is none.
        prompt_dim: channels of the embedding.
        mlp_dim: hidden width in the mask decoder.
        adapters: whether every block has SAM-Med2D's adapter.
    """

    image_size: int
    dim: int
    depth: int
    heads: int
    global_blocks: tuple[int, ...]
    window: int
    prompt_dim: int
    mlp_dim: int
    adapters: bool

    @property
    def name(self) -> str:
        """ "vit_b", "vit_l", "vit_h", or the size in words."""
        return SIZES.get((self.dim, self.depth), f"ViT of {self.depth} blocks of width {self.dim}")

    @classmethod
    def of(cls, weights: Mapping[str, Tensor], file: Path) -> SamLayout:
        """The layout of a checkpoint's weights. Raises CheckpointError for those of another kind of network."""
        try:
            positions = weights["image_encoder.pos_embed"]
            if positions.ndim != 4:
                raise CheckpointError(
                    f"{file} is a 3D checkpoint, not one of a 2D model: evaluate it without --model, or choose a "
                    "checkpoint of SAM, MedSAM or SAM-Med2D"
                )
            grid, dim = int(positions.shape[1]), int(positions.shape[3])
            numbers = {int(found.group(1)) for name in weights if (found := re.match(_BLOCK, name))}
            tables = {n: weights[f"image_encoder.blocks.{n}.attn.rel_pos_h"] for n in sorted(numbers)}
            widths = {n: (int(table.shape[0]) + 1) // 2 for n, table in tables.items()}
            windows = {width for width in widths.values() if width != grid}
            return cls(
                image_size=grid * PATCH,
                dim=dim,
                depth=len(numbers),
                heads=dim // int(tables[0].shape[1]),
                global_blocks=tuple(n for n, width in widths.items() if width == grid),
                window=min(windows, default=0),
                prompt_dim=int(weights["prompt_encoder.no_mask_embed.weight"].shape[1]),
                mlp_dim=int(weights["mask_decoder.transformer.layers.0.mlp.lin1.weight"].shape[0]),
                adapters="image_encoder.blocks.0.Adapter.norm.weight" in weights,
            )
        except (KeyError, IndexError, ZeroDivisionError) as error:
            raise CheckpointError(
                f"{file} is no checkpoint of SAM, MedSAM or SAM-Med2D (it has no {error}): choose one of theirs, or "
                "leave --model away for SAM-Med3D and nodule checkpoints"
            ) from error


class PeerError(ValueError):
    """A 2D model that cannot be used; the message says what to do."""


def sam_modeling() -> ModuleType:
    """``segment_anything.modeling``: ImageEncoderViT, PromptEncoder, MaskDecoder, TwoWayTransformer.

    Raises:
        PeerError: the package is not installed.
    """
    if _NAME in sys.modules:
        return sys.modules[_NAME]
    package = importlib.util.find_spec("segment_anything")
    folders = [Path(folder) / "modeling" for folder in (package and package.submodule_search_locations) or ()]
    start = next((folder / "__init__.py" for folder in folders if (folder / "__init__.py").is_file()), None)
    if start is None:
        raise PeerError("the 2D models need the package segment-anything: pip install segment-anything")
    spec = importlib.util.spec_from_file_location(_NAME, start, submodule_search_locations=[str(start.parent)])
    assert spec is not None and spec.loader is not None  # it is a file of Python
    module = importlib.util.module_from_spec(spec)
    sys.modules[_NAME] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[_NAME]
        raise
    return module
