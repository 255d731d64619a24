"""What the presets of training stand for. Light, so that a panel can show it before PyTorch is there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Preset = Literal["quick", "standard", "full"]


@dataclass(frozen=True)
class PresetValues:
    """What a preset stands for, where the command line says nothing else.

    Attributes:
        encoder: "frozen" (its embeddings are computed once), "lora" or "full".
        decoder_lr: learning rate of prompt encoder and mask decoder, as a factor of ``lr``.
        samples_per_nodule: views of each nodule per epoch.
        text: for --help.
    """

    encoder: Literal["frozen", "lora", "full"]
    lr: float
    decoder_lr: float
    num_epochs: int
    samples_per_nodule: int
    text: str


PRESETS: dict[str, PresetValues] = {
    "quick": PresetValues("frozen", 2e-4, 1.0, 20, 8, "decoder only, on embeddings computed once: minutes on a CPU"),
    "standard": PresetValues("lora", 2e-4, 1.0, 30, 4, "LoRA on the image encoder, the rest in full"),
    "full": PresetValues("full", 8e-5, 0.5, 50, 4, "everything; also what trains from scratch"),
}
