"""What can be said of a volume without looking at every voxel: which image it is, and whether it is a CT."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from SAMMed3DLib.scene.translation import tr as _
from SAMMed3DLib.scene.volume_geometry import VolumeGeometry

from ..store.export_case import image_source
from ..store.nifti_file import is_sheared
from ..store.voxels import value_problem

_THICKEST_MM = 5.0


@dataclass(frozen=True)
class VolumeFacts:
    """``source`` tells images apart (:func:`~..store.export_case.image_source`); ``problem`` is "" for a CT."""

    source: str
    problem: str


def volumeFacts(array: NDArray) -> VolumeFacts:
    """Looks at some slices of the voxels [k, j, i]: some 20 ms for a large CT."""
    return VolumeFacts(image_source(array), value_problem(array))


def placeNotes(geometry: VolumeGeometry) -> list[str]:
    """What is unusual about where a volume lies."""
    matrix = geometry.ijkToWorld
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    notes = []
    if np.allclose(np.abs(matrix), np.eye(4)):
        notes.append(_("the geometry is missing (spacing 1, origin 0)"))
    elif spacing.max() > _THICKEST_MM:
        notes.append(_("voxels of up to {mm:.1f} mm").format(mm=spacing.max()))
    if is_sheared(matrix):
        notes.append(_("its transform makes the voxels oblique-angled: nnU-Net cannot read such files"))
    return notes
