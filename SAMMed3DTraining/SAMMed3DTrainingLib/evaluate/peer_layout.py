"""What a 2D checkpoint is, read from the names and shapes of its tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from SAMMed3DLib.model.checkpoint import CheckpointError

PATCH = 16
#: The sizes of Segment Anything: (width, depth) of the image encoder.
SIZES = {(768, 12): "vit_b", (1024, 24): "vit_l", (1280, 32): "vit_h"}


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
                image_size=grid * PATCH, dim=dim, depth=len(numbers), heads=dim // int(tables[0].shape[1]),
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


_BLOCK = r"image_encoder\.blocks\.(\d+)\."
