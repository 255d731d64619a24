"""A network under training: the parameters that learn, their running average, and saving them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.optim.swa_utils import AveragedModel

from SAMMed3DLib.model import build_model, load_model, save_checkpoint
from SAMMed3DLib.model.checkpoint import CheckpointError
from SAMMed3DLib.model.sam import Sam3D
from SAMMed3DLib.model.sizes import NODULE_NETS
from SAMMed3DLib.weights import default_checkpoint

from .training_config import TrainingConfig, TrainingError


def starting_checkpoint(config: TrainingConfig) -> Path | None:
    """Chooses the file to start from; None where training starts from scratch.

    No ``--checkpoint`` means the bundled model, if that is the network asked for.
    """
    if config.checkpoint is not None:
        path = Path(config.checkpoint).expanduser()
        return path if path.is_file() else None
    return default_checkpoint() if config.model_type in NODULE_NETS else None


def start_network(config: TrainingConfig, checkpoint: Path | None, device: torch.device) -> Sam3D:
    """Makes the network before its first step, in float32.

    Raises:
        TrainingError: the checkpoint cannot be used; the message says why.
    """
    torch.manual_seed(config.seed)
    try:
        model = (
            load_model(checkpoint, device=device)
            if checkpoint is not None
            else build_model(config.model_type, device=device)
        )
    except (CheckpointError, ValueError) as error:
        raise TrainingError(f"training cannot start: {error}") from error
    # The click loop teaches the IoU head, whatever the checkpoint's had learned.
    model.profile = dataclasses.replace(model.profile, iou_head=True)
    return model


class Trainable:
    """A network under training.

    Args:
        model: in place; its encoder is frozen, adapted or free as ``config.encoder`` says.
        config: resolved.
    """

    def __init__(self, model: Sam3D, config: TrainingConfig) -> None:
        self.model = model
        model.requires_grad_(True)
        if config.encoder == "frozen":
            model.image_encoder.requires_grad_(False)
        elif config.encoder == "lora":
            add_lora(model.image_encoder, config.lora_rank, 2.0 * config.lora_rank)
        model.train()
        if config.encoder == "frozen":
            model.image_encoder.eval()
        self._decay = config.ema
        self._averaged = self._averaging() if config.ema else None

    def _averaging(self) -> AveragedModel:
        """Makes a copy of the network whose learning parameters follow the network's; the others are shared."""
        averaged = AveragedModel(self.model, multi_avg_fn=self._follow)
        averaged.n_averaged.fill_(1)  # the weights before the first update count as one
        for own, theirs in zip(averaged.module.parameters(), self.model.parameters(), strict=True):
            if not theirs.requires_grad:
                own.data = theirs.data
        return averaged

    @torch.no_grad()
    def _follow(self, averages: Any, weights: Any, count: Any) -> None:
        """Moves averages towards weights after update number ``count``, faster at the beginning."""
        decay = min(self._decay, (1 + int(count)) / (10 + int(count)))
        for average, weight in zip(averages, weights, strict=True):
            if average.data_ptr() != weight.data_ptr():
                average.lerp_(weight, 1 - decay)

    @property
    def average(self) -> dict[str, Tensor]:
        """Returns the averages of the learning parameters, by name; {} where nothing is averaged."""
        if self._averaged is None:
            return {}
        named: Iterable[tuple[str, nn.Parameter]] = self._averaged.module.named_parameters()
        return {name: value.detach() for name, value in named if value.requires_grad}

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The parameters that learn."""
        return [p for p in self.model.parameters() if p.requires_grad]

    def optimizer(self, config: TrainingConfig) -> torch.optim.AdamW:
        """AdamW with a learning rate factor for encoder and decoder; norms and biases are not decayed."""
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                groups.setdefault((name.startswith("image_encoder."), parameter.ndim > 1), []).append(parameter)
        lr, decoder = float(config.lr or 0), float(config.decoder_lr or 1)
        return torch.optim.AdamW(
            [
                {
                    "params": parameters,
                    "lr": lr,
                    "factor": 1.0 if encoder else decoder,
                    "weight_decay": config.weight_decay if decays else 0.0,
                }
                for (encoder, decays), parameters in groups.items()
            ],
            lr=lr,
        )

    def update_average(self, step: int) -> None:
        """Moves the average towards the weights after update number ``step``."""
        if self._averaged is not None:
            self._averaged.n_averaged.fill_(step)
            self._averaged.update_parameters(self.model)

    def averaged(self) -> Sam3D:
        """Returns a network of the averaged weights, for validation and for saving; on the same device."""
        source: nn.Module = self.model if self._averaged is None else self._averaged.module
        state = {name: value.detach().clone() for name, value in merged_state(source).items()}
        plain = build_model(self.model.name, device=self.model.device, profile=self.model.profile)
        plain.load_state_dict(state, strict=True)
        return plain

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """Weights and average, for :meth:`load_state_dict`."""
        return {"model": self.model.state_dict(), "average": self.average}

    def load_state_dict(self, state: dict[str, dict[str, Tensor]]) -> None:
        """Continues from a saved state. Raises RuntimeError or KeyError for that of another configuration."""
        self.model.load_state_dict(state["model"], strict=True)
        for name, value in self.average.items():
            value.copy_(state["average"][name])


def save_weights(model: Sam3D, path: Path) -> None:
    """Saves a checkpoint that ``load_model``, the panels and SAM-Med3D's own tools load; whole or not at all.

    Raises:
        TrainingError: it cannot be written.
    """
    try:
        save_checkpoint(model, path)
    except (OSError, ValueError, RuntimeError) as error:
        raise TrainingError(f"{path} could not be written ({error}); free disk space and use --resume") from error


class LowRankUpdate(nn.Module):
    """A low-rank update: weight -> weight + alpha / rank * up @ down; zero at first."""

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
            parametrizations: Any = layer.parametrizations
            parametrizations.weight.original.requires_grad_(False)
        else:
            weight.requires_grad_(True)
    for parameter in module.parameters():
        if parameter.ndim <= 1:
            parameter.requires_grad_(True)
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def merged_state(module: nn.Module) -> dict[str, Tensor]:
    """Makes the state dict of a module with all updates added to the weights, under the layers' ordinary names."""
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


def _layers(module: nn.Module) -> Iterator[nn.Linear | nn.Conv3d]:
    for layer in module.modules():
        if isinstance(layer, (nn.Linear, nn.Conv3d)) and not parametrize.is_parametrized(layer):
            yield layer
