"""Prepares backgrounds: real lung CTs without their lesions, into which synthetic nodules are painted.

The split is fixed here: training and tuning use ``TRAINING``; ``HELD_OUT`` is never trained or tuned on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from SAMMed3DLib.files.volume_io import read_labels, read_volume
from SAMMed3DLib.inference.geometry import transform_points, voxel_spacing

TRAINING: dict[str, tuple[str, ...]] = {
    # CT: masks of its own lesions, all relative to the shared data folder
    "lidc_idri/LIDC-IDRI-0001_ct.nii.gz": ("lidc_idri/LIDC-IDRI-0001_readers.nii.gz",),
    "lidc_idri/LIDC-IDRI-0002_ct.nii.gz": ("lidc_idri/LIDC-IDRI-0002_readers.nii.gz",),
    "lidc_idri/LIDC-IDRI-0003_ct.nii.gz": ("lidc_idri/LIDC-IDRI-0003_readers.nii.gz",),
    "background/R01-001_lungs_ct.nii.gz": (),
    "background/4D-Lung_113_c40_ct.nii.gz": ("background/4D-Lung_113_c40_tumour.nii.gz",),
}
HELD_OUT: dict[str, tuple[str, ...]] = {"background/LungFCP-01-0001_lungs_ct.nii.gz": ()}

LESION_MARGIN_MM = 6.0
_SITES = 40_000


@dataclass(frozen=True)
class Background:
    """A lung CT, cropped to its lungs.

    Attributes:
        hu: int16 [k, j, i].
        ijk_to_ras: (4, 4); axes parallel to R, A, S.
        lung: bool [k, j, i], the lungs with their vessels, up to the pleura.
        lesion: bool [k, j, i], the scan's own lesions and a margin; no training sample may touch them.
        sites: voxel indices (n, 3) as i, j, k, by kind: "lung", "pleura" (within 5 mm of the lung's surface),
            "wall" (on the surface) and "vessel".
    """

    name: str
    hu: np.ndarray
    ijk_to_ras: np.ndarray
    lung: np.ndarray
    lesion: np.ndarray
    sites: dict[str, np.ndarray]


def prepare_background(ct: Path, lesions: tuple[Path, ...] = (), seed: int = 0) -> Background:
    """Read a CT, find its lungs and the places for nodules.

    Raises:
        ValueError: no lungs, or a lesion mask of another shape.
    """
    volume = read_volume(ct)
    hu, affine = np.asarray(volume.array_kji), np.array(volume.ijk_to_ras)
    spacing = voxel_spacing(affine)[::-1]
    lesion = np.zeros(hu.shape, bool)
    for path in lesions:
        mask = np.asarray(read_labels(path).array_kji)
        if mask.shape != hu.shape:
            raise ValueError(f"{path} has the shape {mask.shape}, its CT {hu.shape}")
        lesion |= mask > 0
    lung = lung_field(hu, spacing)
    box = ndimage.find_objects(lung.astype(np.uint8))
    if not box:
        raise ValueError(f"no lungs found in {ct}")
    margin = np.ceil(12.0 / spacing).astype(int)
    crop = tuple(
        slice(max(s.start - m, 0), min(s.stop + m, n)) for s, m, n in zip(box[0], margin, hu.shape, strict=True)
    )
    start = np.array([s.start for s in crop[::-1]])
    affine[:3, 3] = transform_points(affine, start)
    hu, lung, lesion = (np.ascontiguousarray(x[crop]) for x in (hu, lung, lesion))
    if lesion.any():
        lesion = ndimage.distance_transform_edt(~lesion, sampling=spacing) < LESION_MARGIN_MM
    return Background(ct.name, hu, affine, lung, lesion, _find_sites(hu, lung, lesion, spacing, seed))


def cached_background(ct: Path, lesions: tuple[Path, ...], folder: Path) -> Background:
    """:func:`prepare_background`, kept in ``folder`` for the next run."""
    file = folder / f"{ct.name}.npz"
    if not file.exists():
        background = prepare_background(ct, lesions)
        folder.mkdir(parents=True, exist_ok=True)
        part = file.with_name(file.name + ".part.npz")
        places: dict[str, Any] = {f"site_{kind}": sites for kind, sites in background.sites.items()}
        np.savez(
            part,
            hu=background.hu,
            affine=background.ijk_to_ras,
            shape=background.hu.shape,
            lung=np.packbits(background.lung),
            lesion=np.packbits(background.lesion),
            **places,
        )
        part.replace(file)
    with np.load(file, allow_pickle=False) as data:
        shape = tuple(data["shape"])
        count = int(np.prod(shape))
        lung, lesion = (np.unpackbits(data[key])[:count].reshape(shape).astype(bool) for key in ("lung", "lesion"))
        sites = {key[5:]: data[key] for key in data.files if key.startswith("site_")}
        return Background(ct.name, data["hu"], data["affine"], lung, lesion, sites)


def training_backgrounds(shared_data: Path, cache: Path) -> list[Background]:
    """The backgrounds that training may use, prepared once and cached."""
    return [
        cached_background(shared_data / ct, tuple(shared_data / mask for mask in masks), cache)
        for ct, masks in TRAINING.items()
    ]


def lung_field(hu: np.ndarray, spacing_kji: np.ndarray) -> np.ndarray:
    """Segments the lungs with their vessels, up to the pleura: bool [k, j, i].

    Aerated tissue by threshold, components over 100 ml, closed by 8 mm so that vessels and nodules at the pleura are
    inside, holes filled slice by slice. Air outside the body and in the trachea is darker than -965 HU once smoothed.
    """
    smooth = ndimage.gaussian_filter(hu.astype(np.float32), 1.0 / spacing_kji)
    air = (smooth > -965) & (smooth < -500)
    core = ndimage.distance_transform_edt(air, sampling=spacing_kji) > 5.0
    labels, count = ndimage.label(core)
    sizes = np.bincount(labels.ravel(), minlength=count + 1) * spacing_kji.prod()
    sizes[0] = 0
    keep = sizes > 100e3
    lung = keep[labels]
    lung = air & (ndimage.distance_transform_edt(~lung, sampling=spacing_kji) < 6.0)
    closed = ndimage.distance_transform_edt(~lung, sampling=spacing_kji) <= 8.0
    closed = ndimage.distance_transform_edt(np.pad(closed, 1, mode="edge"), sampling=spacing_kji)[1:-1, 1:-1, 1:-1] > 8
    return np.stack([ndimage.binary_fill_holes(s) for s in closed | lung])


def _find_sites(
    hu: np.ndarray, lung: np.ndarray, lesion: np.ndarray, spacing_kji: np.ndarray, seed: int
) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    depth = ndimage.distance_transform_edt(lung, sampling=spacing_kji)
    free = lung & ~lesion
    kinds = {
        "lung": free,
        "pleura": free & (depth < 5),
        "wall": free & (depth < 1.5),
        "vessel": free & (depth > 6) & (hu > -400),
    }
    sites = {}
    for kind, mask in kinds.items():
        flat = np.flatnonzero(mask)
        flat = rng.choice(flat, min(_SITES, len(flat)), replace=False)
        sites[kind] = np.stack(np.unravel_index(flat, mask.shape), axis=1)[:, ::-1].astype(np.int16)
    return sites
