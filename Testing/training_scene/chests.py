"""Small CTs with nodules in a scene, as the SAMMed3D module leaves them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from inference.volumes import grid, rotation
from SAMMed3DLib.scene.mask_block import tightBlock
from SAMMed3DLib.scene.nodule_segmentation import NoduleSegmentation, createSegmentation
from SAMMed3DLib.scene.segment_writer import SegmentWriter
from SAMMed3DTrainingLib.scene.export_table import ExportRow, ExportTable
from SAMMed3DTrainingLib.store.dataset_writer import DatasetWriter
from slicer_scene import SlicerScene

SHAPE = (14, 18, 22)
OBLIQUE = grid(SHAPE, (0.7, 0.8, 1.5), rotation(25.0, (1.0, 2.0, 3.0)), (20.0, -30.0, 40.0))


def nodules(*boxes: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]) -> list[NDArray[np.bool_]]:
    """Lopsided masks (14, 18, 22) in boxes [k, j, i]: none looks the same when flipped or turned."""
    masks = []
    for box in boxes or (((2, 6), (3, 8), (4, 10)), ((8, 12), (10, 15), (12, 19))):
        mask = np.zeros(SHAPE, bool)
        mask[tuple(slice(*edges) for edges in box)] = True
        k, j, i = (start for start, _stop in box)
        mask[k, j:, i + 1 :] = False
        mask[k + 1, j, i:] = False
        masks.append(mask)
    return masks


def ct(masks: list[NDArray[np.bool_]], seed: int = 0) -> NDArray[np.int16]:
    """Noise around -850 HU, different in every voxel's neighborhood, with 40 HU in the nodules."""
    array = np.random.default_rng(seed).normal(-850, 30, SHAPE)
    for mask in masks:
        array[mask] += 890
    return array.astype(np.int16)


def add_chest(
    scene: SlicerScene,
    name: str = "CT",
    masks: list[NDArray[np.bool_]] | None = None,
    matrix: ArrayLike = OBLIQUE,
    seed: int = 0,
    accepted: tuple[int, ...] = (),
    transform: Any = None,
) -> tuple[Any, Any]:
    """A CT and its segmentation; ``accepted`` are the numbers (from 1) of the nodules that somebody reviewed."""
    masks = nodules() if masks is None else masks
    volume = scene.add_volume(ct(masks, seed), matrix, name=name)
    if transform is not None:
        volume.SetAndObserveTransformNodeID(transform.GetID())
    segmentation = createSegmentation(volume)
    writer = SegmentWriter(segmentation, volume)
    for number, mask in enumerate(masks, start=1):
        segment_id = NoduleSegmentation(segmentation).addNodule()
        writer.write(segment_id, tightBlock(mask, (0, 0, 0)))
        if number in accepted:
            NoduleSegmentation(segmentation).setStatus(segment_id, "reviewed")
    return volume, segmentation


def exportRows(writer: DatasetWriter | None = None, acceptedOnly: bool = False) -> list[ExportRow]:
    """The table of the scene, read for the first time."""
    return ExportTable().rows(writer, acceptedOnly)
