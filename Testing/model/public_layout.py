"""What a public SAM-Med3D checkpoint holds beside its weights."""

from __future__ import annotations

import argparse
from typing import Any

import torch


def public_layout(weights: dict[str, torch.Tensor], **more: Any) -> dict[str, Any]:
    """The content of a public checkpoint."""
    options = argparse.Namespace(task_name="union_train", device=torch.device("cpu"), lr=8e-4)
    return {
        "epoch": 1,
        "model_state_dict": weights,
        "losses": [1.0],
        "dices": [0.5],
        "best_loss": 1.0,
        "best_dice": 0.5,
        "args": options,
        "used_datas": ["./data"],
        **more,
    }
