"""What the presets of training stand for. Light, so that a panel can show it before PyTorch is there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Encoder = Literal["frozen", "lora", "full"]
Preset = Literal["5min", "15min", "60min", "quick", "standard", "full"]


@dataclass(frozen=True)
class PresetValues:
    """What a preset stands for, where the command line says nothing else.

    Attributes:
        minutes: that the run may take on this machine; its epochs are as many as fit.
        encoder: "frozen" (its embeddings are computed once), "lora" or "full".
        decoder_lr: learning rate of prompt encoder and mask decoder, as a factor of ``lr``.
        samples_per_nodule: views of each nodule per epoch.
        text: for --help.
    """

    minutes: float
    encoder: Encoder
    lr: float
    decoder_lr: float
    samples_per_nodule: int
    text: str


PRESETS: dict[str, PresetValues] = {
    "5min": PresetValues(5, "lora", 4e-4, 0.5, 2, "small updates of the image encoder (LoRA), the rest in full"),
    "15min": PresetValues(15, "lora", 4e-4, 0.5, 4, "the same for longer"),
    "60min": PresetValues(60, "full", 2e-4, 1.0, 4, "everything learns"),
}
#: Samples in a step, and batches whose gradients make one update, where nobody says otherwise.
BATCH_SIZE, ACCUMULATION_STEPS = 4, 1
#: Names that the presets had before.
ALIASES = {"quick": "5min", "standard": "15min", "full": "60min"}
#: What their former selves left of the image encoder; configurations of that time do not say it.
FORMER_ENCODERS = {"quick": "frozen", "standard": "lora", "full": "full"}
#: A run may be shorter than its minutes by its own choice, never longer than so many epochs.
MOST_EPOCHS = 200
#: From scratch there is no start to get better than, and minutes are too few.
SCRATCH_EPOCHS = 50


def preset_values(name: str) -> PresetValues:
    """The values of a preset, by its name or its former one."""
    return PRESETS[ALIASES.get(name, name)]


def epochs_in(minutes: float, encoding_s: float, epoch_s: float) -> int:
    """How many epochs, at least one, fit into some minutes.

    Args:
        minutes: for the whole run.
        encoding_s: seconds before the first step.
        epoch_s: seconds of an epoch with its validation.
    """
    return min(max(1, int((60 * minutes - encoding_s) / max(epoch_s, 1e-6))), MOST_EPOCHS)
