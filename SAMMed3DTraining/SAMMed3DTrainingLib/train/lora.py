"""Low-rank adaptation: a few thousand numbers per layer learn, the layer's own weights stay as they were.

Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022. The update is a parametrization of
the weight itself, so it serves linear layers and convolutions alike, and merging leaves an ordinary network whose
checkpoint loads anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class LowRankUpdate(nn.Module):
    """weight -> weight + alpha / rank * up @ down; zero at first.

    Args:
        weight: (out, ...) of the layer.
        rank: of the update.
        alpha: its scale.
    """

    def __init__(self, weight: Tensor, rank: int, alpha: float) -> None:
        super().__init__()
        out, inputs = weight.shape[0], weight[0].numel()
        self.scale = alpha / rank
        self.down = nn.Parameter(torch.empty(rank, inputs, device=weight.device))
        self.up = nn.Parameter(torch.zeros(out, rank, device=weight.device))
        nn.init.kaiming_uniform_(self.down, a=5**0.5)

    def forward(self, weight: Tensor) -> Tensor:
        update = (self.up @ self.down).to(weight.dtype) * self.scale
        return weight + update.view_as(weight)


def add_lora(module: nn.Module, rank: int = 8, alpha: float = 16.0) -> list[nn.Parameter]:
    """Freezes a module and gives all its linear layers and convolutions a low-rank update; returns what now learns.

    Layers that are smaller than the update itself learn in full instead, and so do normalizations and biases, which
    cost next to nothing.

    Raises:
        ValueError: a rank below 1.
    """
    if rank < 1:
        raise ValueError(f"the rank of LoRA must be at least 1, not {rank}")
    module.requires_grad_(False)
    for layer in list(_layers(module)):
        weight = layer.weight
        if rank * (weight.shape[0] + weight[0].numel()) < weight.numel():
            update = LowRankUpdate(weight, rank, alpha)
            parametrize.register_parametrization(layer, "weight", update)
            layer.parametrizations.weight.original.requires_grad_(False)
        else:
            weight.requires_grad_(True)
    for parameter in module.parameters():
        if parameter.ndim <= 1:
            parameter.requires_grad_(True)
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def merged_state(module: nn.Module) -> dict[str, Tensor]:
    """The state dict of a module with all updates added to the weights, under the layers' ordinary names."""
    state = dict(module.state_dict())
    for name, layer in module.named_modules():
        if not parametrize.is_parametrized(layer, "weight"):
            continue
        prefix = f"{name}." if name else ""
        with torch.no_grad():
            weight = layer.weight.detach().clone()
        for key in [key for key in state if key.startswith(f"{prefix}parametrizations.weight.")]:
            del state[key]
        state[f"{prefix}weight"] = weight
    return state


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    for layer in module.modules():
        if isinstance(layer, (nn.Linear, nn.Conv3d)) and not parametrize.is_parametrized(layer):
            yield layer
