"""ITK geometry (origin, spacing, direction; LPS mm) and this package's (4x4 IJK-to-RAS), one into the other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

_LPS_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def flip_lps_ras(matrix: NDArray) -> NDArray[np.float64]:
    """A 4x4 matrix into LPS made one into RAS, and the other way round."""
    return _LPS_RAS @ matrix


def image_to_ras(image: sitk.Image | sitk.ImageFileReader) -> NDArray[np.float64]:
    """The 4x4 IJK-to-RAS matrix of an image, of more than three axes the first three."""
    axes = image.GetDimension()
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(image.GetDirection(), (axes, axes))[:3, :3] * np.array(image.GetSpacing()[:3])
    matrix[:3, 3] = image.GetOrigin()[:3]
    return flip_lps_ras(matrix)


def place_image(image: sitk.Image, ijk_to_ras: NDArray) -> None:
    """Gives a 3D image the spacing, direction and origin of an IJK-to-RAS matrix (sheared ones too)."""
    matrix = flip_lps_ras(ijk_to_ras)
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((matrix[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(matrix[:3, 3].tolist())


@contextmanager
def quiet_itk() -> Iterator[None]:
    """Keeps ITK and GDCM from writing remarks to standard error within the block."""
    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)
