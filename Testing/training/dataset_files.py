"""Small data sets on disk: dark lung with bright balls, one label map a case."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np

SPACING = (0.8, 0.8, 1.5)
SHAPE_KJI = (24, 40, 40)


def matrix(origin: tuple[float, float, float] = (10.0, -20.0, 30.0)) -> np.ndarray:
    """IJK to RAS of a file that runs to L, P, S."""
    affine = np.diag([-SPACING[0], -SPACING[1], SPACING[2], 1.0])
    affine[:3, 3] = origin
    return affine


def balls(*centers_kji: tuple[int, int, int], radius_mm: float = 3.0, values: tuple[int, ...] = ()) -> np.ndarray:
    """Label map (24, 40, 40) uint8 with a ball at each center, of value 1 each or of the given values."""
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE_KJI), indexing="ij"), -1)
    labels = np.zeros(SHAPE_KJI, np.uint8)
    for number, center in enumerate(centers_kji):
        distance = np.linalg.norm((grid - center) * SPACING[::-1], axis=-1)
        labels[distance <= radius_mm] = values[number] if values else 1
    return labels


def ct(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """int16 HU: -850 with noise, 50 in the balls."""
    noise = np.random.default_rng(seed).normal(0, 15, labels.shape)
    return np.where(labels > 0, 50, -850 + noise).astype(np.int16)


def write(path: Path, array_kji: np.ndarray, affine: np.ndarray | None = None) -> Path:
    """Writes an array [k, j, i] as NIfTI, making the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array_kji.T, matrix() if affine is None else affine), path)
    return path


def write_case(
    folder: Path, name: str, labels: np.ndarray | None, part: str = "Tr", seed: int = 0, channel: str = "_0000"
) -> None:
    """One case of a data set in nnU-Net's layout."""
    image = ct(np.zeros(SHAPE_KJI, np.uint8) if labels is None else labels, seed)
    write(folder / f"images{part}" / f"{name}{channel}.nii.gz", image)
    if labels is not None:
        write(folder / f"labels{part}" / f"{name}.nii.gz", labels)
