"""In which groups nodules are reported: by size, density and the slice thickness of their scan."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from SAMMed3DLib.inference.geometry import closest_ras_axes, voxel_spacing
from SAMMed3DLib.inference.measurements import SOLID_HU

from .instances import Nodule

#: Upper bounds (equivalent diameter, mm) and names, after the Fleischner and Lung-RADS thresholds.
SIZES = ((6.0, "<6 mm"), (8.0, "6-8 mm"), (15.0, "8-15 mm"), (30.0, "15-30 mm"), (np.inf, ">30 mm"))
DENSITIES = ("solid", "part-solid", "ground glass", "unknown")
THICKNESSES = ((1.25, "slices <=1.25 mm"), (2.5, "slices 1.25-2.5 mm"), (np.inf, "slices >2.5 mm"))
#: Share of the inside above SOLID_HU: below the first a ground glass nodule, above the second a solid one.
_SOLID_SHARES = (0.10, 0.60)
_FEW_VOXELS = 8


def size_group(diameter_mm: float) -> str:
    """Name of the size group of an equivalent diameter; a bound belongs to the group above it."""
    return next(name for bound, name in SIZES if diameter_mm < bound)


def thickness_group(ijk_to_ras: NDArray) -> str:
    """Name of the group of a scan's slice thickness (its spacing along the axis nearest to the patient's)."""
    thickness = slice_thickness(ijk_to_ras)
    return next(name for bound, name in THICKNESSES if thickness <= bound + 1e-3)


def slice_thickness(ijk_to_ras: NDArray) -> float:
    """Spacing in mm along the index axis nearest to superior."""
    return float(voxel_spacing(ijk_to_ras)[closest_ras_axes(ijk_to_ras)[0][2]])


def density_group(array_kji: NDArray, nodule: Nodule) -> str:
    """ "solid", "part-solid" or "ground glass" by the HU in the reference, "unknown" where the image holds no HU.

    The outermost voxels, which are half lung, are left out where enough remain. A share of at most 10 % above -300 HU
    is a vessel in ground glass; of 60 % and more, the rest is border.
    """
    if array_kji.min() > -200:
        return "unknown"
    inside = ndimage.binary_erosion(np.pad(nodule.mask, 1))[1:-1, 1:-1, 1:-1]
    if np.count_nonzero(inside) < _FEW_VOXELS:
        inside = ndimage.binary_erosion(np.pad(nodule.mask, 1), _IN_PLANE)[1:-1, 1:-1, 1:-1]
    if np.count_nonzero(inside) < _FEW_VOXELS:
        inside = nodule.mask
    share = float(np.mean(array_kji[nodule.slices_kji][inside] > SOLID_HU))
    low, high = _SOLID_SHARES
    return "ground glass" if share <= low else "solid" if share >= high else "part-solid"


_IN_PLANE = ndimage.generate_binary_structure(3, 1) & np.array([False, True, False])[:, None, None]
