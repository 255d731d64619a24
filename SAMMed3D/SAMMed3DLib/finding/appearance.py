"""Scores places by how much they look like nodules to a small network (:mod:`..model.nodule_classifier`), unclicked.

Every place gets a crop of its own, scaled to its size; thousands take a few seconds.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from ..inference.preprocessing import Crop, sample_volume
from ..model.checkpoint import CheckpointError
from ..model.nodule_classifier import EDGE, SPACING_RANGE_MM, VOXELS_PER_DIAMETER, NoduleClassifier, load_classifier
from ..weights import CLASSIFIER, resource_path

#: Crops that are judged at once.
_BATCH = 32
#: Axes along which a batch of crops can be mirrored.
_MIRRORS = [axes for count in range(4) for axes in itertools.combinations((1, 2, 3), count)]
MIRRORS = len(_MIRRORS)
"""How many images of a place are judged where mirror images are asked for."""
_AIR_HU = -1024.0


def appearance_of(
    array_kji: NDArray,
    ijk_to_ras: NDArray,
    centers_ras: ArrayLike,
    diameters_mm: ArrayLike,
    classifier: NoduleClassifier | None = None,
    progress: Callable[[int, int], None] | None = None,
    mirrored: bool = False,
) -> NDArray[np.float64]:
    """Returns the classifier's log odds (n,) that places show nodules.

    Args:
        array_kji: (K, J, I) in HU.
        ijk_to_ras: (4, 4).
        centers_ras: (n, 3) mm.
        diameters_mm: (n,) of what is expected there.
        classifier: the one that comes with the module by default.
        progress: called with (done, n) after every few places.
        mirrored: average over all eight mirror images: eight times the work for steadier log odds.
    """
    classifier = classifier or shipped_classifier()
    centers = np.asarray(centers_ras, dtype=np.float64).reshape(-1, 3)
    spacings = classifier_spacing(diameters_mm)
    mirrors = _MIRRORS if mirrored else _MIRRORS[:1]
    odds = np.empty(len(centers))
    step = _BATCH // len(mirrors)
    for start in range(0, len(centers), step):
        batch = slice(start, start + step)
        cubes = [
            cube_around(array_kji, ijk_to_ras, center, spacing)
            for center, spacing in zip(centers[batch], spacings[batch], strict=True)
        ]
        crops, sizes = torch.from_numpy(np.stack(cubes)), torch.from_numpy(spacings[batch]).float()
        with torch.inference_mode():
            views = torch.cat([crops.flip(axes) for axes in mirrors])
            values = classifier(views, sizes.repeat(len(mirrors)))
        odds[batch] = values.reshape(len(mirrors), -1).mean(dim=0).numpy()
        if progress is not None:
            progress(min(start + step, len(centers)), len(centers))
    return odds


@lru_cache(maxsize=1)
def shipped_classifier() -> NoduleClassifier:
    """Loads the classifier that comes with the module, once.

    Raises:
        CheckpointError: its file is missing or damaged.
    """
    try:
        return load_classifier(resource_path(CLASSIFIER))
    except (OSError, CheckpointError) as error:
        raise CheckpointError(f"finding nodules needs {CLASSIFIER}: install SAMMed3D again ({error})") from error


def classifier_spacing(diameters_mm: ArrayLike) -> NDArray[np.float64]:
    """Returns the crop spacing in mm at which the classifier sees nodules of the given diameters."""
    return np.clip(np.asarray(diameters_mm, dtype=np.float64) / VOXELS_PER_DIAMETER, *SPACING_RANGE_MM)


def cube_around(
    array_kji: NDArray, ijk_to_ras: NDArray, center_ras: ArrayLike, spacing_mm: float, edge: int = EDGE
) -> NDArray[np.float32]:
    """Samples the cube (edge, edge, edge) of HU along R, A, S around a point; air beyond the volume."""
    to_ras = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    to_ras[:3, 3] = np.asarray(center_ras) - spacing_mm * (edge - 1) / 2
    return sample_volume(array_kji, ijk_to_ras, Crop(to_ras, (edge, edge, edge)), _AIR_HU)
