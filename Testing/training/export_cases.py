"""Cases to be written into data sets, as the scene and the folder import make them."""

from __future__ import annotations

from typing import Any

import numpy as np

from SAMMed3DTrainingLib.store.export_case import ExportCase

from .dataset_files import balls, ct, matrix

LABELS = balls((8, 12, 12), (16, 28, 28), values=(1, 2))


def export_case(name: str = "a", labels: np.ndarray = LABELS, seed: int = 0, **changes: Any) -> ExportCase:
    """A case of two balls, or of the labels given."""
    array = ct(labels, seed)
    values = {
        "name": name,
        "patient": f"patient of {name}",
        "array_kji": array,
        "ijk_to_ras": matrix(),
        "labels_kji": labels.astype(np.uint16),
        "nodules": {n: f"Nodule {n}" for n in range(1, int(labels.max()) + 1)},
        "source": f"image {name}",
        "fingerprint": f"{seed}",
    }
    return ExportCase(**{**values, **changes})
