"""Small checkpoints in the public layouts of SAM, MedSAM and SAM-Med2D, made from a seed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from SAMMed3DTrainingLib.evaluate.sam2d import PeerError, Sam2D, SamLayout, sam_modeling

#: 64 pixels, two blocks: a window of 3 patches of the 4 x 4, then the whole image.
SMALL = SamLayout(
    image_size=64, dim=48, depth=2, heads=2, global_blocks=(1,), window=3, prompt_dim=32, mlp_dim=64, adapters=False
)
SMALL_ADAPTED = SamLayout(**{**SMALL.__dict__, "adapters": True})


def need_segment_anything() -> None:
    """Skips a test where the package is not installed."""
    try:
        sam_modeling()
    except PeerError as error:
        pytest.skip(str(error))


def made(layout: SamLayout = SMALL, seed: int = 0) -> Sam2D:
    """A network with weights from a seed; also those that start as zero say something."""
    torch.manual_seed(seed)
    network = Sam2D(layout)
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    return network.eval()


def written(path: Path, layout: SamLayout = SMALL, key: str | None = None, prefix: str = "", seed: int = 0) -> Path:
    """A checkpoint file: bare weights, or under a key beside an optimizer's state."""
    weights = {prefix + name: tensor for name, tensor in made(layout, seed).state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(weights if key is None else {key: weights, "optimizer": {"state": {}}, "epoch": 3}, path)
    return path
