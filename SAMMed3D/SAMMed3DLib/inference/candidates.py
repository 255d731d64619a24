"""Places that may be nodules, found without a trained network: bright round things in the lungs, of any size.

A pyramid of scale-normalized Laplacians of Gaussians (Lindeberg, IJCV 1998; sigma = radius / sqrt(3) answers most to a
ball) finds blobs with their sizes; at each of them the Hessian tells balls from tubes and sheets, as in the dot filter of
Li, Sone and Doi (Med Phys 2003). The wall of the lungs is painted over with lung before, so that what sits on the pleura
stands free.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from .blob_field import BlobField
from .coarse_grid import Progress, report
from .geometry import as_affine, transform_points
from .lungs import LungMask

LIMIT = 400
"""The most candidates by default."""

_FINE_MM, _COARSE_MM = 1.0, 2.0
_RADII_MM = tuple(1.5 * 2 ** (n / 3) for n in range(11))
_FINE_UP_TO_MM = 4.0
_HALO_SIGMAS = 4.0
#: Weakest Laplacian that counts, as a share of the one of an isolated solid ball.
_WEAKEST = 0.04


@dataclass(frozen=True)
class Candidate:
    """A place that may be a nodule.

    Attributes:
        center_ras: (3,) RAS mm.
        diameter_mm: of the ball that fits best.
        response: how much it looks like a nodule; larger is likelier, comparable within one volume only.
        kind: "solid" or "subsolid", by its density; in volumes that are no CT always "solid".
    """

    center_ras: tuple[float, float, float]
    diameter_mm: float
    response: float
    kind: str


@dataclass(frozen=True)
class _Peaks:
    """Local maxima of one or more levels: positions (n, 3) RAS mm and what is known of them, (n,) each."""

    ras: NDArray[np.float64]
    radius: NDArray[np.float64]
    blob: NDArray[np.float64]
    dot: NDArray[np.float64]

    @classmethod
    def joined(cls, parts: list[_Peaks]) -> _Peaks:
        names = ("ras", "radius", "blob", "dot")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def take(self, which: NDArray) -> _Peaks:
        return _Peaks(self.ras[which], self.radius[which], self.blob[which], self.dot[which])


def find_candidates(
    array_kji: NDArray,
    ijk_to_ras: ArrayLike,
    lungs: LungMask | None,
    *,
    min_diameter_mm: float = 3.0,
    max_diameter_mm: float = 30.0,
    limit: int = LIMIT,
    progress: Progress | None = None,
) -> list[Candidate]:
    """The places in the lungs that look most like nodules, solid and ground-glass.

    Args:
        array_kji: (K, J, I) in HU (other bright-on-dark images work without ``lungs``).
        ijk_to_ras: (4, 4).
        lungs: where to search; None, or lungs that were not found, searches the whole volume.
        min_diameter_mm, max_diameter_mm: sizes to look for.
        limit: the most candidates to return.
        progress: called with (done, total); returning False cancels.

    Returns:
        Candidates, strongest first.

    Raises:
        InputError: the matrix is none.
        PredictionCancelled: ``progress`` returned False.
    """
    affine = as_affine(ijk_to_ras)
    field = BlobField(array_kji, affine, lungs if lungs is not None and lungs.found else None, _FINE_MM)
    radii = [r for r in _RADII_MM if min_diameter_mm / 2 <= r * 1.3 and r <= max_diameter_mm / 2 * 1.3]
    fine = [r for r in radii if r <= _FINE_UP_TO_MM * _FINE_MM]
    coarse = [r for r in radii if r > _FINE_UP_TO_MM * _FINE_MM]
    halo = int(np.ceil(_HALO_SIGMAS * max(fine, default=0.0) / np.sqrt(3) / field.cell_mm)) + 2
    slabs = field.slabs(halo)
    total = len(slabs) * (len(fine) + 1) + len(coarse)
    done = 0
    found: list[_Peaks] = []
    pooled = []
    for slab in slabs:
        block = field.read(slab)
        pooled.append(_halved(block[slab.core]))
        done += 1
        report(progress, done, total)
        for radius, smooth in _levels(block, fine, field.cell_mm):
            found.append(_peaks(smooth, radius, field.cell_mm, slab.grid_to_ras, slab.core))
            done += 1
            report(progress, done, total)
    if coarse and pooled:
        block = np.concatenate(pooled)
        to_ras = np.array(field.grid_to_ras)
        to_ras[:3, 3] += to_ras[:3, :3] @ (0.5, 0.5, 0.5)
        to_ras[:3, :3] *= 2
        everything = tuple(slice(0, n) for n in block.shape)
        for radius, smooth in _levels(block, coarse, 2 * field.cell_mm):
            found.append(_peaks(smooth, radius, 2 * field.cell_mm, to_ras, everything))
            done += 1
            report(progress, done, total)
    report(progress, total, total)
    if not found:
        return []
    peaks = _Peaks.joined(found)
    score = _scores(peaks)
    kept = _merged(peaks, score)[:limit]
    return [
        Candidate(tuple(float(x) for x in peaks.ras[n]), float(2 * peaks.radius[n]), float(score[n]), "solid")
        for n in kept
    ]


def _halved(block: NDArray[np.float32]) -> NDArray[np.float32]:
    """Means over 2 x 2 x 2 cells; an odd one out at the end is repeated."""
    block = np.pad(block, [(0, n % 2) for n in block.shape], mode="edge")
    return sum(block[k::2, j::2, i::2] for k, j, i in itertools.product(range(2), repeat=3)) * np.float32(0.125)


def _levels(block: NDArray[np.float32], radii_mm: list[float], cell_mm: float):
    """(radius, the block smoothed for it): each level is made from the one before."""
    before = 0.0
    for radius in radii_mm:
        sigma = radius / np.sqrt(3) / cell_mm
        block = ndimage.gaussian_filter(block, np.sqrt(sigma**2 - before**2), mode="nearest", truncate=3.5)
        before = sigma
        yield radius, block


def _peaks(smooth, radius, cell_mm, grid_to_ras, core) -> _Peaks:
    """Local maxima of the Laplacian of one level inside ``core``."""
    sigma2 = (radius / cell_mm) ** 2 / 3
    laplace = np.zeros_like(smooth)
    inner = (slice(1, -1),) * 3
    middle = smooth[inner]
    laplace[inner] = 6 * middle
    for axis in range(3):
        for shift in (slice(0, -2), slice(2, None)):
            index = list(inner)
            index[axis] = shift
            laplace[inner] -= smooth[tuple(index)]
    laplace *= np.float32(sigma2)
    # the answer to a ball of contrast 1: 2 sigma^2 ... normalized so that an isolated ball answers about 1
    strides = [s // smooth.itemsize for s in laplace.strides]
    flat = laplace.ravel()
    mask = np.zeros(smooth.shape, bool)
    mask[core] = True
    mask[0] = mask[-1] = mask[:, 0] = mask[:, -1] = mask[:, :, 0] = mask[:, :, -1] = False
    at = np.flatnonzero((laplace > _WEAKEST) & mask)
    steps = [int(np.dot(step, strides)) for step in itertools.product((-1, 0, 1), repeat=3) if any(step)]
    steps.sort(key=abs)
    for step in steps:
        neighbor = flat[at + step]
        at = at[flat[at] > neighbor] if step > 0 else at[flat[at] >= neighbor]
    hessian = _hessians(smooth.ravel(), at, strides)
    values = -np.linalg.eigvalsh(hessian)[:, ::-1] * sigma2  # ascending curvature of the darkening
    weakest, strongest = values.min(axis=1), values.max(axis=1)
    dot = np.where(weakest > 0, weakest**2 / np.maximum(strongest, 1e-6), 0.0)
    index = np.stack(np.unravel_index(at, smooth.shape), axis=1).astype(float)
    index += _subcell(flat, at, strides)
    ras = transform_points(grid_to_ras, index[:, ::-1])
    return _Peaks(ras, np.full(len(at), radius), flat[at].astype(float), dot)


def _hessians(flat: NDArray, at: NDArray, strides: list[int]) -> NDArray[np.float64]:
    """Second differences at flat indices, (n, 3, 3)."""
    out = np.empty((len(at), 3, 3))
    middle = flat[at].astype(float)
    for a in range(3):
        out[:, a, a] = flat[at + strides[a]] + flat[at - strides[a]] - 2 * middle
        for b in range(a):
            p, m = strides[a] + strides[b], strides[a] - strides[b]
            out[:, a, b] = out[:, b, a] = (flat[at + p] + flat[at - p] - flat[at + m] - flat[at - m]) / 4.0
    return out


def _subcell(flat: NDArray, at: NDArray, strides: list[int]) -> NDArray[np.float64]:
    """Offset of a maximum from its cell by a parabola along each axis, (n, 3), at most half a cell."""
    out = np.zeros((len(at), 3))
    for axis, stride in enumerate(strides):
        low, mid, high = (flat[at + step].astype(float) for step in (-stride, 0, stride))
        out[:, axis] = 0.5 * (high - low) / np.maximum(2 * mid - low - high, 1e-9)
    return np.clip(out, -0.5, 0.5)


def _scores(peaks: _Peaks) -> NDArray[np.float64]:
    """Blob and dot combined by their ranks, 0..1."""
    count = max(len(peaks.blob), 1)
    return (np.argsort(np.argsort(peaks.blob)) + 2 * np.argsort(np.argsort(peaks.dot))) / (3.0 * count)


def _merged(peaks: _Peaks, score: NDArray) -> list[int]:
    """Strongest first; a peak near a stronger one of similar size is the same thing."""
    order = np.argsort(-score)
    tree = cKDTree(peaks.ras)
    dropped = np.zeros(len(score), bool)
    kept = []
    for n in order:
        if dropped[n]:
            continue
        kept.append(int(n))
        near = np.array(tree.query_ball_point(peaks.ras[n], float(peaks.radius[n])), int)
        dropped[near] = True
    return kept
