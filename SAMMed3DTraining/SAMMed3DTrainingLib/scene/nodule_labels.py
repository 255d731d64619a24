"""The segments of a volume as nodules, and the nodules as one label map."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from SAMMed3DLib.commandline.terminal import few
from SAMMed3DLib.inference.geometry import block_slices
from SAMMed3DLib.scene.mask_block import MaskBlock
from SAMMed3DLib.scene.nodule_segmentation import REVIEWED, NoduleSegmentation
from SAMMed3DLib.scene.segment_writer import BINARY_LABELMAP, SegmentLabelmap, segmentationToWorld
from SAMMed3DLib.scene.volume_geometry import SceneError, VolumeGeometry
from SAMMed3DLib.translation import tr as _

from ..store.nifti_file import LARGEST_NODULE_MM

Window = tuple[slice, slice, slice]


@dataclass(frozen=True, eq=False)
class NoduleMask:
    """One segment in the voxels of its volume.

    Attributes:
        isAccepted: somebody has reviewed it.
        isDoubtful: the model that drew it does not trust it.
    """

    segmentId: str
    name: str
    isAccepted: bool
    block: MaskBlock
    voxels: int
    isDoubtful: bool = False


@dataclass(frozen=True, eq=False)
class NoduleReading:
    """All nodules of a segmentation.

    Attributes:
        nodules: in the order of the segments.
        notes: which segments are left out, and why.
    """

    nodules: tuple[NoduleMask, ...]
    notes: tuple[str, ...]
    _notes: dict[tuple[str, ...], tuple[str, ...]] = field(default_factory=dict, init=False, repr=False)

    def chosen(self, acceptedOnly: bool) -> tuple[NoduleMask, ...]:
        """Those that are to be exported."""
        return tuple(nodule for nodule in self.nodules if nodule.isAccepted or not acceptedOnly)

    def notesOf(self, chosen: Sequence[NoduleMask]) -> tuple[str, ...]:
        """Finds how the nodules change when they are put into one label map; computed once."""
        key = tuple(nodule.segmentId for nodule in chosen)
        if key not in self._notes:
            doubtful = [nodule.name for nodule in chosen if nodule.isDoubtful]
            note = _("not to be trusted, look at them again: {names}").format(names=few(doubtful, 4))
            self._notes[key] = (*([note] if doubtful else []), *arrange(chosen).notes())
        return self._notes[key]


@dataclass(frozen=True, eq=False)
class Arrangement:
    """Nodules that share no voxel any more.

    Attributes:
        blocks: one for each nodule that is left, in the order of the segments.
        names: of these, by their value in the label map: 1 to n, without gaps.
        overlapping: names of nodules that lost voxels to a smaller one.
        hidden: names of those that are left out, because others cover them wholly.
        pieces: "name: number" of those that do not hang together.
    """

    blocks: tuple[MaskBlock, ...]
    names: dict[int, str]
    overlapping: tuple[str, ...]
    hidden: tuple[str, ...]
    pieces: tuple[str, ...]

    def labels(self, shapeKji: tuple[int, int, int]) -> NDArray[np.uint16]:
        """The label map (K, J, I): the nodule with the name ``names[n]`` has the value n."""
        labels = np.zeros(shapeKji, dtype=np.uint16)
        for value, block in enumerate(self.blocks, start=1):
            labels[block_slices(block)][block.mask != 0] = value
        return labels

    def notes(self) -> tuple[str, ...]:
        """In words for the user; on the main thread, they are translated."""
        notes = []
        if self.overlapping:
            notes.append(
                _("overlap with a smaller one, which keeps the voxels: {names}").format(names=few(self.overlapping, 4))
            )
        if self.hidden:
            notes.append(_("left out, covered by other nodules: {names}").format(names=few(self.hidden, 4)))
        if self.pieces:
            notes.append(
                _("in several pieces, each counts as a nodule in training: {names}").format(names=few(self.pieces, 4))
            )
        return tuple(notes)


def readNodules(segmentationNode: Any, volumeNode: Any) -> NoduleReading:
    """The segments as nodules in the volume's voxels, wherever the segmentation lies and whatever voxels it has.

    Raises:
        SceneError: a volume or a transform that cannot be used, or segments that are no label maps.
    """
    geometry = VolumeGeometry(volumeNode)
    segmentationToWorld(segmentationNode)
    segmentation = segmentationNode.GetSegmentation()
    voxelMm3 = abs(float(np.linalg.det(geometry.ijkToWorld[:3, :3])))
    nodules, empty, huge = [], [], []
    for segmentId in NoduleSegmentation(segmentationNode).ids:
        segment = segmentation.GetSegment(segmentId)
        name = segment.GetName() or segmentId
        if segment.GetRepresentation(BINARY_LABELMAP) is None and segmentation.GetSourceRepresentationName() not in (
            "",
            BINARY_LABELMAP,
        ):
            raise SceneError(
                _(
                    "Segmentation '{name}' is stored as {kind}. Make 'Binary labelmap' its source representation "
                    "(Segmentations module)."
                ).format(name=segmentationNode.GetName(), kind=segmentation.GetSourceRepresentationName())
            )
        block = SegmentLabelmap(segmentationNode, segmentId, geometry).block()
        voxels = int(np.count_nonzero(block.mask))
        diameter = float(np.cbrt(6.0 / np.pi * voxels * voxelMm3))
        if not voxels:
            empty.append(name)
        elif diameter > LARGEST_NODULE_MM:
            huge.append(f"{name}: {diameter:.0f} mm")
        else:
            stored = NoduleSegmentation(segmentationNode)
            accepted = stored.status(segmentId) == REVIEWED
            nodules.append(NoduleMask(segmentId, name, accepted, block, voxels, stored.isDoubtful(segmentId)))
    notes = []
    if empty:
        notes.append(_("left out, no voxel in the volume: {names}").format(names=few(empty, 4)))
    if huge:
        notes.append(_("left out, too large for a nodule: {names}").format(names=few(huge, 4)))
    return NoduleReading(tuple(nodules), tuple(notes))


def arrange(nodules: Sequence[NoduleMask]) -> Arrangement:
    """Nodules for one label map; where they overlap the smaller one wins, or nothing might be left of it.

    Needs no scene: it may be called on any thread.
    """
    from SAMMed3DLib.inference.mask_regions import components  # SciPy: not when the module opens

    masks = _disjoint(nodules)
    blocks: list[MaskBlock] = []
    overlapping, hidden, split = [], [], []
    names: dict[int, str] = {}
    for nodule, mask in zip(nodules, masks, strict=True):
        kept = int(np.count_nonzero(mask))
        if not kept:
            hidden.append(nodule.name)
            continue
        blocks.append(MaskBlock(mask.view(np.uint8), nodule.block.offset_kji))
        names[len(blocks)] = nodule.name
        if kept < nodule.voxels:
            overlapping.append(nodule.name)
        pieces = components(mask)[1]
        if pieces > 1:
            split.append(f"{nodule.name}: {pieces}")
    return Arrangement(tuple(blocks), names, tuple(overlapping), tuple(hidden), tuple(split))


def nodulesDigest(nodules: Sequence[NoduleMask]) -> str:
    """Changes with any voxel or name of the nodules."""
    digest = hashlib.sha256()
    for nodule in nodules:
        mask = nodule.block.mask
        digest.update(f"{nodule.name}\0{nodule.block.offset_kji}{mask.shape}".encode())
        digest.update(np.packbits(mask != 0).data)
    return digest.hexdigest()[:32]


def _disjoint(nodules: Sequence[NoduleMask]) -> list[NDArray[np.bool_]]:
    """The nodules' masks, each without the voxels of smaller ones."""
    masks = [nodule.block.mask != 0 for nodule in nodules]
    order = sorted(range(len(nodules)), key=lambda number: nodules[number].voxels)
    for place, number in enumerate(order):
        for smaller in order[:place]:
            here, there = _common(nodules[number].block, nodules[smaller].block)
            if here is not None:
                masks[number][here] &= nodules[smaller].block.mask[there] == 0
    return masks


def _common(first: MaskBlock, second: MaskBlock) -> tuple[Window, Window] | tuple[None, None]:
    """Returns the overlap of two blocks as windows of the one and of the other; None where there is none."""
    here, there = [], []
    for a, b in zip(block_slices(first), block_slices(second), strict=True):
        start, stop = max(a.start, b.start), min(a.stop, b.stop)
        if start >= stop:
            return None, None
        here.append(slice(start - a.start, stop - a.start))
        there.append(slice(start - b.start, stop - b.start))
    return (here[0], here[1], here[2]), (there[0], there[1], there[2])
