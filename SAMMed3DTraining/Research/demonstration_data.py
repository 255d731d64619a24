"""Makes the data sets of the fine-tuning demonstration: scans with real and painted nodules, once as they are and once
in thick slices, in nnU-Net's layout.

Which scan serves what is fixed here. Nothing of the test scans is trained or tuned on: LIDC-IDRI-0003 brings the real
nodules of the test, LungFCP (the held-out background) the painted ones. Validation has a scan of its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from SAMMed3DLib.files.volume_io import Volume, write_volume
from SAMMed3DLib.inference.geometry import world_to_ijk
from SAMMed3DLib.inference.mask_regions import components
from SAMMed3DLib.synthesis import NoduleShapes

from .backgrounds import HELD_OUT, TRAINING, Background, cached_background
from .detection_scans import DIAMETERS_MM, DetectionScan, KnownNodule, lidc_scan, painted_scan

#: Case names by background; a patient's scans are told apart by ``_scanN``.
TRAINING_PATIENTS = {
    "LIDC-IDRI-0001": "lidc_idri/LIDC-IDRI-0001_ct.nii.gz",
    "LIDC-IDRI-0002": "lidc_idri/LIDC-IDRI-0002_ct.nii.gz",
    "4D-Lung": "background/4D-Lung_113_c40_ct.nii.gz",
}
VALIDATION_PATIENTS = {"R01-001": "background/R01-001_lungs_ct.nii.gz"}
TEST_PATIENTS = {"LungFCP": "background/LungFCP-01-0001_lungs_ct.nii.gz"}
REAL_TEST_PATIENT = "LIDC-IDRI-0003"
THICK, THIN = "slices_5mm", "slices_native"
THICK_MM = 5.0


@dataclass(frozen=True)
class DemonstrationSize:
    """The amount of data to make.

    Attributes:
        training_scans, validation_scans, test_scans: painted scans of each background.
        thin_training_scans: how many of the training scans are there in their own slices too.
        nodules: painted into each.
    """

    training_scans: int = 16
    validation_scans: int = 4
    test_scans: int = 5
    thin_training_scans: int = 5
    nodules: int = 12


def make_data(shared_data: Path, folder: Path, size: DemonstrationSize, seed: int = 0) -> int:
    """Writes the data sets ``slices_5mm`` and ``slices_native``; the same nodules in both, but for the part of the
    training scans that there is in thick slices only. Returns the number of nodules in thick slices.

    Args:
        shared_data: with lidc_idri/ and background/.
        folder: of the data sets; ``backgrounds`` in it keeps the prepared backgrounds.
        size: of the data sets.
        seed: of everything that is painted.

    Raises:
        OSError: a file cannot be read or written.
    """
    shapes = NoduleShapes.load()
    count = 0
    for part, patients, scans in (
        ("Tr", TRAINING_PATIENTS, size.training_scans),
        ("Val", VALIDATION_PATIENTS, size.validation_scans),
        ("Ts", TEST_PATIENTS, size.test_scans),
    ):
        for patient, ct in patients.items():
            masks = {**TRAINING, **HELD_OUT}[ct]
            background = cached_background(
                shared_data / ct, tuple(shared_data / mask for mask in masks), folder / "backgrounds"
            )
            own = _real_nodules(shared_data, patient, background) if part == "Tr" else ()
            for number in range(scans):
                rng = np.random.default_rng([seed, *patient.encode(), number])
                scan = painted_scan(background, part, rng, size.nodules, shapes, DIAMETERS_MM)
                scan = dataclasses.replace(scan, nodules=(*own, *map(_in_one_piece, scan.nodules)))
                thin = part != "Tr" or number < size.thin_training_scans
                count += _write(folder, part, f"{patient}_scan{number + 1}", scan, thin)
    real = lidc_scan(shared_data / "lidc_idri", REAL_TEST_PATIENT)
    return count + _write(folder, "Ts", REAL_TEST_PATIENT, real, thin=True)


def averaged_slices(
    array_kji: NDArray, ijk_to_ras: NDArray, thickness_mm: float
) -> tuple[NDArray, NDArray[np.float64]]:
    """Averages slices into thicker ones, each weighted with the part of it that lies in the thick slice.

    Args:
        array_kji: (K, J, I), numbers or a mask.
        ijk_to_ras: (4, 4).
        thickness_mm: at least that of the slices there are.

    Returns:
        float32 (K', J, I) and its matrix; an incomplete thick slice at the end is left out.

    Raises:
        ValueError: thinner slices, or a volume that is not as thick as one.
    """
    matrix = np.array(ijk_to_ras, dtype=np.float64)
    slice_mm = float(np.linalg.norm(matrix[:3, 2]))
    merged = thickness_mm / slice_mm
    count = int(len(array_kji) / merged + 1e-6)
    if merged < 1 - 1e-6 or count < 1:
        raise ValueError(f"{len(array_kji)} slices of {slice_mm:g} mm cannot be averaged to {thickness_mm:g} mm")
    edges = np.arange(count + 1) * merged
    thick = np.zeros((count, *array_kji.shape[1:]), np.float32)
    for number, (low, high) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        for k in range(int(low), min(int(np.ceil(high - 1e-6)), len(array_kji))):
            share = (min(high, k + 1) - max(low, k)) / merged
            thick[number] += np.float32(share) * array_kji[k]
    matrix[:3, 3] += matrix[:3, 2] * (merged - 1) / 2
    matrix[:3, 2] *= merged
    return thick, matrix


def in_thick_slices(scan: DetectionScan, thickness_mm: float) -> DetectionScan:
    """Averages a scan to thick slices; a nodule keeps its volume in the voxels that it fills most."""
    hu, matrix = averaged_slices(scan.array_kji, scan.ijk_to_ras, thickness_mm)
    nodules = []
    for nodule in scan.nodules:
        # Only the nodule's own columns are averaged, in whole slices of the volume.
        k, j, i = nodule.offset_kji
        columns = np.zeros((len(scan.array_kji), *nodule.mask.shape[1:]), bool)
        columns[k : k + len(nodule.mask)] = nodule.mask
        share, _ = averaged_slices(columns, scan.ijk_to_ras, thickness_mm)
        if share.any():
            mask = _fullest(share)
            thick = KnownNodule.of(mask, matrix, nodule.kind, (0, j, i), nodule.readers)
            nodules.append(_in_one_piece(thick))
    return dataclasses.replace(
        scan, array_kji=np.rint(hu).astype(np.int16), ijk_to_ras=matrix, nodules=tuple(nodules), ignored=None
    )


def _fullest(share: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Chooses as many voxels as the shares sum up to, at least one: those with the largest shares.

    A threshold of one half would not do: two slices of 2.5 mm make one of 5 mm, every voxel of an outer one is filled
    by just a half, and the nodule would grow by all of them or shrink. Among equals those deeper in the nodule count.
    """
    rank = share + 1e-3 * ndimage.gaussian_filter(share, (0.0, 2.0, 2.0))
    rank[share == 0] = 0.0
    count = max(1, min(round(float(share.sum(dtype=np.float64))), int(np.count_nonzero(share))))
    return rank >= np.partition(rank.ravel(), -count)[-count]


def label_map(scan: DetectionScan) -> NDArray[np.uint8]:
    """Draws the label map of a scan, in which nodule n has the value n."""
    labels = np.zeros(scan.array_kji.shape, np.uint8)
    for value, nodule in enumerate(scan.nodules, start=1):
        window = tuple(slice(o, o + n) for o, n in zip(nodule.offset_kji, nodule.mask.shape, strict=True))
        labels[window][nodule.mask] = value
    return labels


def _in_one_piece(nodule: KnownNodule) -> KnownNodule:
    """Drops small separate parts of a nodule, since each connected component of a label map counts as a nodule."""
    pieces, count = components(nodule.mask)
    if count < 2:
        return nodule
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return dataclasses.replace(nodule, mask=pieces == sizes.argmax())


def _real_nodules(shared_data: Path, patient: str, background: Background) -> Sequence[KnownNodule]:
    """The reference nodules of a LIDC scan, in the background's crop of it."""
    if not patient.startswith("LIDC"):
        return ()
    scan = lidc_scan(shared_data / "lidc_idri", patient)
    corner = np.rint(world_to_ijk(scan.ijk_to_ras, background.ijk_to_ras[:3, 3])).astype(int)[::-1]
    nodules = []
    for nodule in scan.nodules:
        k, j, i = (int(n) for n in nodule.offset_kji - corner)
        nodules.append(dataclasses.replace(nodule, offset_kji=(k, j, i)))
    return nodules


def _write(folder: Path, part: str, name: str, scan: DetectionScan, thin: bool) -> int:
    for dataset, version in ((THICK, in_thick_slices(scan, THICK_MM)), *([(THIN, scan)] if thin else [])):
        images, labels = folder / dataset / f"images{part}", folder / dataset / f"labels{part}"
        for path, array in (
            (images / f"{name}_0000.nii.gz", version.array_kji),
            (labels / f"{name}.nii.gz", label_map(version)),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_volume(path, Volume(array, version.ijk_to_ras, name, path))
    return len(scan.nodules)
