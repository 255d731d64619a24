"""What a training step learns from: one click on one object in one prepared crop."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Sample:
    """One click on one nodule.

    Attributes:
        crop: float32 (C, d0, d1, d2), prepared as the profile says.
        truth: bool (d0, d1, d2); empty where the click is on no nodule.
        click: (3,) crop index of the first click.
        spacing_mm: of the crop.
        kind: solid, part-solid, ground-glass, unknown or none (no nodule).
        diameter_mm: of the nodule.
    """

    crop: np.ndarray
    truth: np.ndarray
    click: np.ndarray
    spacing_mm: float
    kind: str
    diameter_mm: float
