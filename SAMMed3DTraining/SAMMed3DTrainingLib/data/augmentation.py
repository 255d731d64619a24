"""Variations of a labelled scan: where it lies, how thick its slices are, what its scanner did to the intensities.

Everything geometric is folded into the matrix of the scan, as if the patient had lain otherwise, so that flips,
rotation, scaling and the crop are one interpolation. Intensities change in the sampled crop, in HU.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from SAMMed3DLib.inference.geometry import Affine


@dataclass(frozen=True)
class Augmentation:
    """Strengths of the variations of samples; zero switches one off.

    Attributes:
        flip: probability of a mirror image along each axis.
        swap: probability of a quarter turn about the S axis, which is exact.
        rotation_deg: standard deviation of small rotations about every axis, for ``rotate`` of the samples.
        rotate: probability of such a rotation.
        scale: standard deviation of the logarithm of the scale.
        shift_hu, gain: standard deviations of an offset and of a relative factor.
        noise_hu: largest standard deviation of added noise, for half of the samples.
        blur_mm: largest standard deviation of a softer (or, subtracted, sharper) kernel, for 40 % of the samples.
        thick_mm: largest slice thickness that is simulated, for ``thicken`` of the samples; thicker ones stay.
        thicken: probability of thicker slices.
    """

    flip: float = 0.5
    swap: float = 0.5
    rotation_deg: float = 12.0
    rotate: float = 0.35
    scale: float = 0.12
    shift_hu: float = 12.0
    gain: float = 0.03
    noise_hu: float = 40.0
    blur_mm: float = 0.9
    thick_mm: float = 5.0
    thicken: float = 0.25

    def placed(self, ijk_to_ras: NDArray, center_ras: NDArray, rng: np.random.Generator) -> Affine:
        """The scan's matrix (4, 4) after a random mirror image, turn and scaling about a point."""
        linear = np.diag(np.where(rng.random(3) < self.flip, -1.0, 1.0))
        if rng.random() < self.swap:
            linear = np.array(((0.0, -1.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0))) @ linear
        if rng.random() < self.rotate:
            linear = _rotation(np.deg2rad(rng.normal(0.0, self.rotation_deg, 3))) @ linear
        linear = linear * np.exp(rng.normal(0.0, self.scale)) if self.scale else linear
        change = np.eye(4)
        change[:3, :3] = linear
        change[:3, 3] = center_ras - linear @ center_ras
        return change @ np.asarray(ijk_to_ras, dtype=np.float64)

    def looked(
        self, hu: NDArray[np.float32], spacing_mm: float, rng: np.random.Generator, slice_mm: float = 0.0
    ) -> NDArray[np.float32]:
        """A sampled crop (d0, d1, d2) in HU as another scanner would have shown it.

        Args:
            hu: the crop.
            spacing_mm: of the crop.
            rng: source of all randomness.
            slice_mm: slice thickness of the scan. What is drawn below it changes nothing: the scan shows that already.
        """
        if rng.random() < self.thicken:
            thickness = rng.uniform(1.0, self.thick_mm)
            hu = _thick_slices(hu, round(thickness / spacing_mm), rng) if thickness > slice_mm else hu
        if self.blur_mm and rng.random() < 0.4:
            sigma = rng.uniform(0.3, self.blur_mm) / spacing_mm
            smooth = ndimage.gaussian_filter(hu, sigma, truncate=3)
            hu = smooth if rng.random() < 0.6 else hu + rng.uniform(0.3, 1.0) * (hu - smooth)
        if self.noise_hu and rng.random() < 0.5:
            hu = hu + _noise(hu.shape, 0.7 / spacing_mm, rng) * np.float32(rng.uniform(2.0, self.noise_hu))
        gain, shift = 1.0 + rng.normal(0.0, self.gain), rng.normal(0.0, self.shift_hu)
        return (hu * np.float32(gain) + np.float32(shift)).astype(np.float32, copy=False)


NO_AUGMENTATION = Augmentation(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def _rotation(angles: NDArray) -> NDArray:
    """Rotation matrix of three angles about the axes, in radians."""
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        first, second = [other for other in range(3) if other != axis]
        turn = np.eye(3)
        turn[first, first] = turn[second, second] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return matrix


def _thick_slices(hu: NDArray[np.float32], slices: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Planes along the last axis averaged in groups and interpolated back, as a thick-slice scan would be."""
    slices = min(slices, hu.shape[2] // 2)
    if slices < 2:
        return hu
    first = int(rng.integers(slices))
    count = (hu.shape[2] - first) // slices
    means = hu[..., first : first + count * slices].reshape(*hu.shape[:2], count, slices).mean(axis=3)
    # Linear interpolation between the middles of the thick slices; beyond the outer ones they go on.
    place = np.clip((np.arange(hu.shape[2]) - first - (slices - 1) / 2) / slices, 0, count - 1)
    below = np.minimum(place.astype(int), max(count - 2, 0))
    above = np.minimum(below + 1, count - 1)
    share = (place - below).astype(np.float32)
    return means[..., below] * (1 - share) + means[..., above] * share


def _noise(shape: tuple[int, ...], sigma: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Correlated noise of standard deviation 1."""
    noise = rng.standard_normal(shape, dtype=np.float32)
    if sigma < 0.4:
        return noise
    noise = ndimage.gaussian_filter(noise, sigma, truncate=2)
    return noise / max(float(noise.std()), 1e-6)
