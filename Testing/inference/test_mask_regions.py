"""The click goes into the thickest part, at the same place whatever the axes; components touch by corners too."""

from __future__ import annotations

import numpy as np
import pytest

from SAMMed3DLib.inference import InputError
from SAMMed3DLib.inference.mask_regions import components, most_interior_voxel


def test_the_thick_end_of_a_club() -> None:
    mask = np.zeros((20, 20, 40), np.uint8)
    mask[9:11, 9:11, 2:30] = 1
    mask[6:13, 6:13, 28:35] = 1
    assert most_interior_voxel(mask) == (9, 9, 31)


def test_distances_are_in_millimeters() -> None:
    mask = np.zeros((12, 30, 30), bool)
    mask[5:7, 2:22, 2:22] = True  # two slices thick, broad
    mask[2:9, 20:27, 20:27] = True  # seven slices thick
    assert most_interior_voxel(mask, (1.0, 1.0, 1.0)) == (5, 23, 23)
    k, j, i = most_interior_voxel(mask, (10.0, 0.5, 0.5))  # slices far apart: the broad plate is as deep, at its middle
    assert mask[k, j, i]
    assert (j, i) != (23, 23)


def test_the_border_of_the_array_is_background() -> None:
    assert most_interior_voxel(np.ones((5, 5, 5))) == (2, 2, 2)


def test_it_does_not_depend_on_the_direction_of_the_axes() -> None:
    mask = np.zeros((9, 15, 31), bool)
    mask[2:7, 3:12, 2:28] = True  # a long box: a whole line of voxels is equally deep
    there = np.array(most_interior_voxel(mask))
    back = np.array(most_interior_voxel(mask[:, :, ::-1]))
    assert abs(there[2] - (30 - back[2])) <= 1
    assert 13 <= there[2] <= 16


def test_one_voxel_and_none() -> None:
    mask = np.zeros((3, 3, 3))
    mask[0, 2, 1] = 7
    assert most_interior_voxel(mask) == (0, 2, 1)
    with pytest.raises(InputError, match="empty"):
        most_interior_voxel(np.zeros((3, 3, 3)))
    with pytest.raises(InputError, match="3 axes"):
        most_interior_voxel(np.zeros((3, 3)))


@pytest.mark.parametrize("corner", [(1, 1), (1, 1, 1)])
def test_components_touch_by_corners_too(corner) -> None:
    mask = np.zeros((4,) * len(corner), dtype=bool)
    mask[(0,) * len(corner)] = mask[corner] = mask[(3,) * len(corner)] = True
    labels, count = components(mask)
    assert count == 2 and labels[corner] == labels[(0,) * len(corner)] != labels[(3,) * len(corner)]
    assert not labels[~mask].any()
