"""Synthetic training samples in real lungs, with hard negatives; the product draws them in procedural lungs only."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from SAMMed3DLib.finding.candidates import Candidate
from SAMMed3DLib.inference.geometry import transform_points, voxel_spacing, world_to_ijk
from SAMMed3DLib.model.profile import PreprocessingProfile
from SAMMed3DLib.synthesis import NoduleShapes
from SAMMed3DTrainingLib.data.synthetic_samples import DIAMETERS_MM, Place, SampleSynthesizer, ScanPiece

from .backgrounds import Background

MASS_SITES = {"pleura": 0.4, "wall": 0.5, "vessel": 0.1}
"""Places of masses: on the pleura, on the wall and the mediastinum, at the hilum."""
PROCEDURAL_SHARE = 0.2
MISTAKABLE_SHARE = 0.7
"""Share of hard negatives (false candidates of the search) among those in real lungs."""
_SITE_SHARES = {"lung": 0.42, "pleura": 0.27, "wall": 0.18, "vessel": 0.13}


class BackgroundSynthesizer(SampleSynthesizer):
    """Draws samples from backgrounds and shapes.

    Args:
        backgrounds: real lungs; none = procedural ones only.
        shapes: of the nodules.
        profile: how a crop is prepared.
        rng: source of all randomness.
        mistakable: for each background what negative clicks go on, None = anything in the lungs.
    """

    def __init__(
        self,
        backgrounds: Sequence[Background],
        shapes: NoduleShapes,
        profile: PreprocessingProfile,
        rng: np.random.Generator,
        mistakable: Sequence[Sequence[Candidate]] | None = None,
    ) -> None:
        super().__init__(shapes, profile, rng)
        self._mistakable = mistakable
        self._backgrounds = backgrounds
        sizes = np.array([np.cbrt(b.lung.sum()) for b in backgrounds], float)
        self._weights = sizes / sizes.sum() if len(sizes) else sizes

    def _place(self, diameter_mm: float, empty: bool, mass: bool) -> tuple[float, Place]:
        if not self._backgrounds or self._rng.random() < PROCEDURAL_SHARE:
            return super()._place(diameter_mm, empty, mass)
        number = int(self._rng.choice(len(self._backgrounds), p=self._weights))
        mistakable = self._mistaken(number) if empty else None
        if mistakable is not None:
            diameter_mm = float(np.clip(mistakable.diameter_mm, *DIAMETERS_MM))
        shares = MASS_SITES if mass else _SITE_SHARES
        return diameter_mm, partial(self._real, self._backgrounds[number], mistakable, shares)

    def _mistaken(self, number: int) -> Candidate | None:
        """Draws a hard negative for a negative click in a background, or None for any place."""
        if self._mistakable is None or self._rng.random() >= MISTAKABLE_SHARE:
            return None
        places = self._mistakable[number]
        return places[int(self._rng.integers(len(places)))] if places else None

    def _real(
        self,
        scan: Background,
        mistakable: Candidate | None,
        site_shares: dict[str, float],
        offset: np.ndarray,
        half: np.ndarray,
    ) -> tuple[ScanPiece, np.ndarray] | None:
        rng = self._rng
        if mistakable is not None:
            site = world_to_ijk(scan.ijk_to_ras, mistakable.center_ras)
        else:
            kinds = [kind for kind in site_shares if len(scan.sites[kind])]
            shares = np.array([site_shares[kind] for kind in kinds])
            sites = scan.sites[kinds[rng.choice(len(kinds), p=shares / shares.sum())]]
            site = sites[rng.integers(len(sites))] + rng.uniform(-0.5, 0.5, 3)
        matrix, spacing = scan.ijk_to_ras[:3, :3], voxel_spacing(scan.ijk_to_ras)
        center = transform_points(scan.ijk_to_ras, site)
        # The crop and some voxels around, in whole groups of slices where slices are averaged.
        middle = site + np.linalg.solve(matrix, offset)
        reach = half / spacing + 3
        low = np.maximum(np.floor(middle - reach), 0).astype(int)
        high = np.minimum(np.ceil(middle + reach) + 1, scan.hu.shape[::-1]).astype(int)
        merge = self._slices_to_merge(spacing[2])
        low[2] += rng.integers(merge) if low[2] + merge < high[2] else 0
        high[2] -= (high[2] - low[2]) % merge
        if (high - low < 2).any():
            return None
        window = tuple(slice(a, b) for a, b in zip(low[::-1], high[::-1], strict=True))
        if scan.lesion[window].any():
            return None
        affine = scan.ijk_to_ras.copy()
        affine[:3, 3] += matrix @ low
        hu = scan.hu[window].astype(np.float32)
        lung = scan.lung[window]
        if merge > 1:
            hu = hu.reshape(-1, merge, *hu.shape[1:]).mean(axis=1)
            lung = lung.reshape(-1, merge, *lung.shape[1:]).mean(axis=1) >= 0.5
            affine[:3, 3] += affine[:3, 2] * (merge - 1) / 2
            affine[:3, 2] *= merge
        return ScanPiece(hu, affine, lung), center

    def _slices_to_merge(self, slice_mm: float) -> int:
        """Draws how many slices are averaged into one, for scans up to 3.2 mm thick."""
        most = int(3.2 / slice_mm)
        return int(self._rng.integers(1, most + 1)) if most > 1 and self._rng.random() < 0.65 else 1
