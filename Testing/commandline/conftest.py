"""A small CT with two bright balls in dark lung, and a network that finds what is bright."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from SAMMed3DLib.commandline import segmenting
from SAMMed3DLib.files.volume_io import Volume
from SAMMed3DLib.inference import SamPredictor3D
from SAMMed3DLib.model import PROFILES

#: Turned, anisotropic and upside down, so that a wrong axis or sign shows.
SPACING_IJK = (0.8, 0.9, 1.5)


def affine() -> np.ndarray:
    turn = np.deg2rad(12.0)
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    matrix[:3, :3] = matrix[:3, :3] @ np.diag(np.array([-1.0, 1.0, -1.0]) * SPACING_IJK)
    matrix[:3, 3] = (40.0, -60.0, 25.0)
    return matrix


class Scene:
    """The CT, its reference labels, and the balls' centers and radii in mm."""

    def __init__(self) -> None:
        self.ijk_to_ras = affine()
        self.shape = (40, 70, 80)
        self.centers_kji = ((14, 22, 25), (26, 48, 55))
        self.radii_mm = (7.0, 5.0)
        grid = np.indices(self.shape)
        spacing = np.array(SPACING_IJK[::-1])
        self.labels = np.zeros(self.shape, np.uint8)
        rng = np.random.default_rng(0)
        self.array = rng.normal(-850.0, 20.0, self.shape).astype(np.int16)
        for label, (center, radius) in enumerate(zip(self.centers_kji, self.radii_mm, strict=True), start=1):
            offset = (grid - np.reshape(center, (3, 1, 1, 1))) * spacing[:, None, None, None]
            ball = (offset**2).sum(axis=0) <= radius**2
            self.labels[ball] = label
            self.array[ball] = rng.normal(30.0, 10.0, int(ball.sum())).astype(np.int16)

    def center_ras(self, number: int) -> np.ndarray:
        return (self.ijk_to_ras @ [*self.centers_kji[number][::-1], 1.0])[:3]

    def point(self, number: int, convention: str = "ras") -> str:
        """The center of a ball as a --point value."""
        r, a, s = self.center_ras(number)
        i, j, k = self.centers_kji[number][::-1]
        x, y, z = {"ras": (r, a, s), "lps": (-r, -a, s), "ijk": (i, j, k)}[convention]
        return f"{x:.4f},{y:.4f},{z:.4f}"

    @property
    def volume(self) -> Volume:
        return Volume(self.array, self.ijk_to_ras, "scene", Path("scene"))


class BrightnessModel:
    """Stands in for a network: its logits are how far the crop's first channel lies above -400 HU; box prompts cut."""

    profile = PROFILES["nodule"]
    device = torch.device("cpu")
    low_res_size = (32, 32, 32)

    def encode(self, crop: Tensor) -> Tensor:
        return crop[:, :1]

    def decode(
        self,
        embedding: Tensor,
        coords: Tensor | None,
        labels: Tensor | None,
        boxes: Tensor | None,
        mask: Tensor | None,
        multimask_output: bool = False,
    ) -> tuple[Tensor, Tensor]:
        low = functional.interpolate(embedding, size=self.low_res_size, mode="trilinear", align_corners=False)
        logits = (low - 600.0 / 1400.0) * 20.0
        if boxes is not None:
            centers = (torch.arange(32) + 0.5) * 2.0 - 0.5  # of the cells, in voxels of the 64^3 crop
            grid = torch.stack(torch.meshgrid(centers, centers, centers, indexing="ij"), dim=-1)
            inside = ((grid >= boxes[0, :3]) & (grid <= boxes[0, 3:])).all(dim=-1)
            logits = torch.where(inside, logits, torch.full_like(logits, -20.0))
        batch = 1 if coords is None else len(coords)
        return logits.expand(batch, -1, -1, -1, -1), torch.full((batch, 1), 0.875)


@pytest.fixture(scope="session")
def scene() -> Scene:
    return Scene()


@pytest.fixture(scope="session")
def ct(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The CT as NIfTI, in a folder with a blank and letters that are not ASCII."""
    path = tmp_path_factory.mktemp("größe mit blank") / "scan é.nii.gz"
    nibabel.Nifti1Image(scene.array.T, scene.ijk_to_ras).to_filename(path)
    return path


@pytest.fixture(scope="session")
def labels_file(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("labels") / "nodules.nii.gz"
    nibabel.Nifti1Image(scene.labels.T, scene.ijk_to_ras).to_filename(path)
    return path


@pytest.fixture
def bright(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[tuple]]:
    """Makes every command use BrightnessModel; returns what was asked of the loader."""
    asked: list[tuple] = []

    def load(*options: object) -> SamPredictor3D:
        asked.append(options)
        return SamPredictor3D(BrightnessModel())

    monkeypatch.setattr(segmenting, "load_predictor", load)
    return lambda: asked
