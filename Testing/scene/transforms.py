"""Transforms that the tests of the scene put over volumes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from inference.volumes import rotation


def rigid(
    degrees: float = 30.0,
    axis: tuple[float, float, float] = (0.3, 1.0, 0.2),
    shift: tuple[float, float, float] = (12.0, -7.0, 30.0),
) -> NDArray[np.float64]:
    """A rotation about an axis, then a shift in mm, as a (4, 4) matrix."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation(degrees, axis), shift
    return matrix
