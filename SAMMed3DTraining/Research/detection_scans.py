"""Makes the scans with known nodules on which detection is measured and the score is fitted.

Nodules painted into real lungs (their own lesions are ignored), synthetic chests, and the real LIDC scans.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from SAMMed3DLib.files.volume_io import read_labels, read_volume
from SAMMed3DLib.finding.lungs import LungMask, find_lungs
from SAMMed3DLib.inference.geometry import transform_points, voxel_spacing, voxel_volume, world_to_ijk
from SAMMed3DLib.inference.sampling import sample_grid
from SAMMed3DLib.synthesis import NoduleShapes, chest_phantom, paint_nodule, random_appearance
from SAMMed3DLib.synthesis.nodules import Kind
from SAMMed3DTrainingLib.data.clicks import bounding_box

from .backgrounds import Background
from .real_samples import REAL_CROPS, RealCrop, read_crops

KINDS: tuple[Kind, ...] = ("solid", "part-solid", "ground-glass")
DIAMETERS_MM = (4.0, 20.0)
LIDC_SCANS = ("LIDC-IDRI-0001", "LIDC-IDRI-0002", "LIDC-IDRI-0003")

UNMARKED = {
    "R01-001_lungs_ct.nii.gz": (
        ((96.0, 145.0, -67.0), 16.0),
        ((-96.0, 191.0, -177.0), 5.0),
        ((119.0, 98.0, -213.0), 5.0),
        ((118.0, 171.0, -200.0), 5.0),
    ),
    "4D-Lung_113_c40_ct.nii.gz": (((-108.0, -130.0, -954.0), 7.0),),
    "LIDC-IDRI-0002_ct.nii.gz": (((105.0, -11.0, -101.0), 5.0),),
    "LIDC-IDRI-0003_ct.nii.gz": (((70.0, -83.0, -250.0), 9.0), ((-126.0, -27.0, -333.0), 7.0)),
    "LungFCP-01-0001_lungs_ct.nii.gz": (((51.0, 149.0, 58.0), 18.0),),
}
"""Lesions of backgrounds that look like nodules but have no mask: center in RAS mm and radius of what is ignored.
The first of R01-001 and that of LungFCP come with the data; the others were seen by eye among what the generator found
in training backgrounds, and in LIDC's scans no reader marked them. The real LIDC scans do not leave them out."""

_SITE_SHARES = {"lung": 0.42, "pleura": 0.27, "wall": 0.18, "vessel": 0.13}
_LEAST_CONTRAST_HU = 100.0
_APART_MM = 15.0
_FEWEST_VOXELS = 8
_IGNORED_MARGIN_MM = 3.0
_FADED_MM = 3.0
"""So far around it a real nodule's own surroundings have given way to the lung it was put into."""
_LUNG_BELOW_HU, _FREE_SHARE = -500.0, 0.2
"""Nodules with at least that share of denser tissue around them bring a piece of wall or vessel; they stay out."""


@dataclass(frozen=True)
class KnownNodule:
    """One nodule of a scan.

    Attributes:
        kind: solid, part-solid or ground-glass; "" where unknown.
        diameter_mm: of the sphere of its volume.
        center_ras: (3,) mm, center of its voxels.
        mask: bool block [k, j, i], and ``offset_kji``, its first voxel.
        readers: how many marked it; None of a painted one.
    """

    kind: str
    diameter_mm: float
    center_ras: tuple[float, float, float]
    mask: np.ndarray
    offset_kji: tuple[int, int, int]
    readers: int | None = None

    @classmethod
    def of(
        cls,
        mask: np.ndarray,
        ijk_to_ras: np.ndarray,
        kind: str = "",
        offset: Sequence[int] = (0, 0, 0),
        readers: int | None = None,
    ) -> KnownNodule:
        """Describes a mask in a volume or in a block of it that begins at ``offset``."""
        box = bounding_box(mask)
        if box is None:
            raise ValueError("a nodule needs voxels")
        start = [part.start + int(first) for part, first in zip(box, offset, strict=True)]
        inside = np.argwhere(mask[box]) + start
        r, a, s = (float(x) for x in transform_points(ijk_to_ras, inside.mean(axis=0)[::-1]))
        diameter = float(np.cbrt(6.0 / np.pi * len(inside) * voxel_volume(ijk_to_ras)))
        return cls(kind, diameter, (r, a, s), mask[box].copy(), tuple(start), readers)


@dataclass(frozen=True)
class DetectionScan:
    """A volume with its known nodules.

    Attributes:
        name: for tables.
        source: "held-out", "training", "procedural", "phantom" or "lidc".
        array_kji: int16 HU.
        ijk_to_ras: (4, 4).
        nodules: those that should be found.
        ignored: bool [k, j, i] or None: what is found there is neither hit nor false positive.
    """

    name: str
    source: str
    array_kji: np.ndarray
    ijk_to_ras: np.ndarray
    nodules: tuple[KnownNodule, ...]
    ignored: np.ndarray | None = None

    def ignores(self, center_ras: Sequence[float] | np.ndarray) -> bool:
        """Whether a detection with this center is ignored."""
        if self.ignored is None:
            return False
        index = np.floor(world_to_ijk(self.ijk_to_ras, center_ras) + 0.5).astype(int)[::-1]
        inside = np.all(index >= 0) and np.all(index < self.ignored.shape)
        return bool(inside and self.ignored[tuple(index)])


def painted_scan(
    background: Background,
    source: str,
    rng: np.random.Generator,
    count: int = 12,
    shapes: NoduleShapes | None = None,
    diameters_mm: tuple[float, float] = DIAMETERS_MM,
) -> DetectionScan:
    """Paints nodules into a real scan: all kinds equally often, sizes log-uniform, at least 15 mm between any two.

    Nodules that hardly differ from what was there before (less than 100 HU on average) are painted elsewhere.
    """
    shapes = shapes or NoduleShapes.load()
    matrix, spacing = background.ijk_to_ras, voxel_spacing(background.ijk_to_ras)
    hu, ignored = background.hu.copy(), _counts_as_nothing(background)
    taken: list[tuple[np.ndarray, float]] = []
    nodules: list[KnownNodule] = []
    sites = {kind: places for kind, places in background.sites.items() if kind in _SITE_SHARES and len(places)}
    shares = np.array([_SITE_SHARES[kind] for kind in sites])
    for _ in range(100 * count):
        if len(nodules) == count:
            break
        kind = KINDS[len(nodules) % len(KINDS)]
        diameter = float(np.exp(rng.uniform(*np.log(diameters_mm))))
        places = sites[list(sites)[rng.choice(len(sites), p=shares / shares.sum())]]
        site = places[rng.integers(len(places))].astype(float)
        center = transform_points(matrix, site)
        if any(np.linalg.norm(center - other) < 0.6 * (diameter + size) + _APART_MM for other, size in taken):
            continue
        shape = shapes.random(rng, diameter)
        reach = (shape.radius_mm + 6.0) / spacing
        low = np.maximum(np.floor(site - reach), 0).astype(int)[::-1]
        high = np.minimum(np.ceil(site + reach) + 1, hu.shape[::-1]).astype(int)[::-1]
        window = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        if ignored[window].any():
            continue
        block, affine = hu[window].astype(np.float32), matrix.copy()
        affine[:3, 3] = transform_points(matrix, low[::-1])
        look = random_appearance(rng, kind, diameter)
        mask = paint_nodule(block, affine, shape, center, look, rng, background.lung[window])
        if mask.sum() < _FEWEST_VOXELS or (block - hu[window])[mask].mean() < _LEAST_CONTRAST_HU:
            continue
        nodule = KnownNodule.of(mask, matrix, kind, low)
        if not diameters_mm[0] * 0.8 <= nodule.diameter_mm:
            continue
        hu[window] = np.rint(block).astype(np.int16)
        nodules.append(nodule)
        taken.append((center, diameter))
    if len(nodules) < count:
        raise ValueError(f"{background.name} has no room for {count} nodules")
    return DetectionScan(f"{background.name.split('_')[0]}+{count}", source, hu, matrix, tuple(nodules), ignored)


def is_free(crop: RealCrop) -> bool:
    """Whether a real nodule is whole and little of its surroundings is not lung, so that it can stand elsewhere."""
    if crop.open_below or crop.open_above:
        return False
    distance = ndimage.distance_transform_edt(~crop.consensus, sampling=voxel_spacing(crop.ijk_to_ras)[::-1])
    shell = (distance > 1.0) & (distance <= _FADED_MM)
    return bool(shell.any()) and float(np.mean(crop.hu[shell] > _LUNG_BELOW_HU)) < _FREE_SHARE


def real_nodules(shared: Path, split: str) -> list[RealCrop]:
    """The real nodules of a split's patients that can stand in another lung."""
    return [crop for crop in read_crops(shared / "data" / REAL_CROPS, split) if is_free(crop)]


def with_real_nodules(
    scan: DetectionScan, background: Background, crops: Sequence[RealCrop], rng: np.random.Generator, count: int
) -> DetectionScan:
    """Adds real nodules to a scan's lung, each faded into it within 3 mm and at least 15 mm apart.

    Args:
        scan: painted into ``background``.
        background: with its places.
        crops: free ones (:func:`is_free`), of patients that nothing was fitted on.
        rng: draws crops, places and mirror images.
        count: of real nodules.
    """
    matrix, hu = scan.ijk_to_ras, scan.array_kji.copy()
    nodules, added, places = list(scan.nodules), 0, background.sites["lung"]
    for _ in range(100 * count):
        if added == count:
            break
        crop = crops[int(rng.integers(len(crops)))]
        site = places[rng.integers(len(places))].astype(float)
        center, reach = transform_points(matrix, site), crop.diameter_mm + 6.0
        apart = [np.linalg.norm(center - other.center_ras) - 0.6 * other.diameter_mm for other in nodules]
        if min(apart, default=math.inf) < 0.6 * crop.diameter_mm + _APART_MM:
            continue
        steps = reach / voxel_spacing(matrix)
        low = np.maximum(np.floor(site - steps), 0).astype(int)[::-1]
        high = np.minimum(np.ceil(site + steps) + 1, hu.shape[::-1]).astype(int)[::-1]
        window = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        mask, share, values = _moved(crop, center, matrix, low, hu[window].shape, rng.choice((-1.0, 1.0), 3))
        lung = background.lung[window]
        if (scan.ignored is not None and scan.ignored[window].any()) or mask.sum() < _FEWEST_VOXELS:
            continue
        if not lung[share > 0].all() or (values - hu[window])[mask].mean() < _LEAST_CONTRAST_HU:
            continue
        hu[window] = np.rint(share * values + (1.0 - share) * hu[window]).astype(np.int16)
        nodules.append(KnownNodule.of(mask, matrix, _kind_of_texture(crop.texture), low, len(crop.votes)))
        added += 1
    if added < count:
        raise ValueError(f"{background.name} has no room for {count} real nodules")
    return dataclasses.replace(scan, name=f"{scan.name}+{count} real", array_kji=hu, nodules=tuple(nodules))


def _moved(
    crop: RealCrop,
    center_ras: np.ndarray,
    ijk_to_ras: np.ndarray,
    low_kji: np.ndarray,
    shape_kji: tuple[int, ...],
    mirror: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A real nodule on a block of voxels that begins at ``low_kji``, its middle at a point, mirrored along R, A, S:
    its mask, the share of it at each voxel (1 inside and 1 mm around, 0 from 3 mm on), and its HU."""
    own = crop.consensus
    middle = transform_points(crop.ijk_to_ras, np.argwhere(own).mean(axis=0)[::-1])
    block = ijk_to_ras.copy()
    block[:3, 3] = transform_points(ijk_to_ras, low_kji[::-1])
    to_crop = np.eye(4)
    to_crop[:3, :3] = np.diag(mirror)
    to_crop[:3, 3] = middle - mirror * center_ras
    grid = np.linalg.inv(crop.ijk_to_ras) @ to_crop @ block
    distance = ndimage.distance_transform_edt(~own, sampling=voxel_spacing(crop.ijk_to_ras)[::-1])

    def sampled(values: np.ndarray, outside: float) -> np.ndarray:
        shape = (shape_kji[2], shape_kji[1], shape_kji[0])
        return sample_grid(values.astype(np.float32).transpose(2, 1, 0), grid, shape, outside).transpose(2, 1, 0)

    share = np.clip((_FADED_MM - sampled(distance, _FADED_MM)) / (_FADED_MM - 1.0), 0.0, 1.0)
    share[sampled(np.ones(own.shape), 0.0) < 1.0 - 1e-3] = 0.0  # beyond the crop nothing is known
    return sampled(own, 0.0) > 0.5, share, sampled(crop.hu, 0.0)


def bare_scan(background: Background, source: str) -> DetectionScan:
    """Makes a scan without painted nodules: whatever is found there is false, except its own lesions."""
    ignored = _counts_as_nothing(background)
    return DetectionScan(background.name.split("_")[0], source, background.hu, background.ijk_to_ras, (), ignored)


def _counts_as_nothing(background: Background) -> np.ndarray:
    ignored = background.lesion.copy()
    for center, radius in UNMARKED.get(background.name, ()):
        ignored |= _ball(ignored.shape, background.ijk_to_ras, center, radius)
    return ignored


def phantom_scan(seed: int) -> DetectionScan:
    """Makes the synthetic chest with its eight nodules; those over 20 mm are ignored."""
    phantom = chest_phantom(seed)
    nodules, ignored = [], np.zeros(phantom.array_kji.shape, bool)
    for entry in phantom.nodules:
        mask = phantom.labels_kji == entry["label"]
        if entry["diameter_mm"] > DIAMETERS_MM[1]:
            ignored |= mask
        else:
            nodules.append(KnownNodule.of(mask, phantom.ijk_to_ras, entry["kind"]))
    return DetectionScan(
        f"phantom {seed}",
        "phantom",
        phantom.array_kji,
        phantom.ijk_to_ras,
        tuple(nodules),
        _widened(ignored, phantom.ijk_to_ras),
    )


def procedural_scan(seed: int, count: int = 12, shapes: NoduleShapes | None = None) -> DetectionScan:
    """Paints nodules of all kinds and sizes into the lungs of a synthetic chest; its own eight are ignored."""
    phantom = chest_phantom(seed)
    hu, matrix = phantom.array_kji, phantom.ijk_to_ras
    lungs = find_lungs(hu, matrix)
    own = _widened(phantom.labels_kji > 0, matrix)
    assert own is not None
    to_grid = np.linalg.inv(lungs.grid_to_ras) @ matrix
    lung = sample_grid(lungs.cells.transpose(2, 1, 0), to_grid, hu.shape[::-1], 0.0).transpose(2, 1, 0) > 0.5
    background = Background(f"procedural {seed}", hu, matrix, lung, own, _sites_in(lungs, hu, matrix))
    scan = painted_scan(background, "procedural", np.random.default_rng([seed, 8]), count, shapes)
    return dataclasses.replace(scan, name=background.name)


def _sites_in(lungs: LungMask, hu: np.ndarray, ijk_to_ras: np.ndarray) -> dict[str, np.ndarray]:
    """Voxel indices (n, 3) as i, j, k at the cells of the lungs: anywhere, near and at the wall, in vessels."""
    depth = ndimage.distance_transform_edt(lungs.mask) * voxel_spacing(lungs.grid_to_ras)[0]
    cells = np.argwhere(lungs.mask)
    index = world_to_ijk(ijk_to_ras, transform_points(lungs.grid_to_ras, cells[:, ::-1]))
    index = np.clip(np.floor(index + 0.5).astype(int), 0, np.array(hu.shape[::-1]) - 1)
    deep = depth[tuple(cells.T)]
    density = hu[tuple(index[:, ::-1].T)]
    chosen = {"lung": deep > 0, "pleura": deep < 5, "wall": deep < 2.5, "vessel": (deep > 6) & (density > -400)}
    return {kind: index[which].astype(np.int16) for kind, which in chosen.items()}


def lidc_scan(folder: Path, name: str, fewest_readers: int = 2) -> DetectionScan:
    """Reads a real scan; nodules that fewer readers marked are ignored."""
    volume = read_volume(folder / f"{name}_ct.nii.gz")
    labels = np.asarray(read_labels(folder / f"{name}_nodules.nii.gz").array_kji)
    votes = np.asarray(read_labels(folder / f"{name}_readers.nii.gz").array_kji)
    matrix = np.array(volume.ijk_to_ras)
    nodules, wanted = [], np.zeros(labels.shape, bool)
    for entry in json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))["nodules"]:
        if int(entry["readers"]) >= fewest_readers:
            mask = labels == int(entry["label"])
            wanted |= mask
            nodules.append(KnownNodule.of(mask, matrix, _kind_of_texture(entry["texture"]), readers=entry["readers"]))
    ignored = _widened((votes > 0) | ((labels > 0) & ~wanted), matrix)
    return DetectionScan(name, "lidc", np.asarray(volume.array_kji), matrix, tuple(nodules), ignored)


def _kind_of_texture(texture: float) -> str:
    """Converts LIDC's texture scale: 1 ground glass, 3 part-solid, 5 solid."""
    return "ground-glass" if texture < 2.5 else "part-solid" if texture < 3.5 else "solid"


def _widened(mask: np.ndarray, ijk_to_ras: np.ndarray) -> np.ndarray | None:
    """The mask and a margin around it; None of an empty one."""
    box = bounding_box(mask)
    if box is None:
        return None
    spacing = voxel_spacing(ijk_to_ras)[::-1]
    reach = np.ceil(_IGNORED_MARGIN_MM / spacing).astype(int)
    window = tuple(
        slice(max(part.start - r, 0), min(part.stop + r, n)) for part, r, n in zip(box, reach, mask.shape, strict=True)
    )
    out = mask.copy()
    out[window] = ndimage.distance_transform_edt(~mask[window], sampling=spacing) <= _IGNORED_MARGIN_MM
    return out


def _ball(shape: tuple[int, ...], ijk_to_ras: np.ndarray, center_ras: Sequence[float], radius_mm: float) -> np.ndarray:
    k, j, i = np.ogrid[: shape[0], : shape[1], : shape[2]]
    center, spacing = world_to_ijk(ijk_to_ras, center_ras), voxel_spacing(ijk_to_ras)
    squared = sum(((axis - middle) * step) ** 2 for axis, middle, step in zip((i, j, k), center, spacing, strict=True))
    return squared <= radius_mm**2
