"""Writes nodules as a label map (.nii, .nii.gz, .nrrd, .mha) or as a segmentation that 3D Slicer opens (.seg.nrrd).

Both hold one label per voxel: where two nodules overlap, the later one wins. Header fields of .seg.nrrd: Slicer's
developer guide, "Segmentations", and vtkMRMLSegmentationStorageNode; a segment's terminology is the nodule in the lung.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import nibabel
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from ..inference.errors import InputError
from .image_file import TRACKING_TAG
from .itk_io import flip_lps_ras
from .output_files import whole_file
from .volume_io import Volume

#: Label maps are mostly zeros: zlib packs them as small and much faster at a low level.
_PACKING = 2
#: Of the length of packed data in a MetaImage header.
_DIGITS = 16
#: Voxels of a segmentation and of its CT lie in one place when they are no further apart than this part of a voxel.
_SAME_PLACE_VOXELS = 0.1

WRITABLE = (".nii.gz", ".nii", ".seg.nrrd", ".nrrd", ".mha")

TERMINOLOGY = (
    "Segmentation category and type - DICOM master list~SCT^49755003^Morphologically Altered Structure"
    "~SCT^27925004^Nodule~^^~Anatomic codes - DICOM master list~SCT^39607008^Lung~^^"
)

#: Colors that differ from each other, from bone and from lung, for color-blind eyes too (after Okabe and Ito, 2008).
COLORS = (
    (0.34, 0.71, 0.91),
    (0.90, 0.62, 0.00),
    (0.00, 0.72, 0.52),
    (0.95, 0.90, 0.25),
    (0.84, 0.37, 0.00),
    (0.80, 0.47, 0.65),
    (0.55, 0.86, 0.85),
    (0.60, 0.60, 1.00),
)


def segment_color(label: int) -> tuple[float, float, float]:
    """Red, green and blue (0 to 1) of a label from 1 upward; the colors repeat after the eighth."""
    return COLORS[(label - 1) % len(COLORS)]


def write_segmentation(
    path: str | Path,
    labels_kji: NDArray,
    ijk_to_ras: NDArray,
    names: Mapping[int, str] | None = None,
    tracking_uids: Mapping[int, str] | None = None,
) -> None:
    """Writes a label map, whole or not at all.

    Args:
        path: the ending decides the format, one of ``WRITABLE``.
        labels_kji: (K, J, I) whole numbers; 0 is background.
        ijk_to_ras: 4x4, voxel index (i, j, k) to RAS mm.
        names: names of the labels, kept in .seg.nrrd; "nodule 3" where one is missing. Named labels become segments
            even when empty.
        tracking_uids: of the labels, kept in .seg.nrrd: the same nodule has the same one at every date.

    Raises:
        InputError: the ending is not known, or the place cannot be written.
    """
    path = Path(path)
    lower = path.name.lower()
    if not lower.endswith(WRITABLE):
        raise InputError(f"{path} cannot be written: the name must end in {' or '.join(WRITABLE)}")
    labels = np.asarray(labels_kji)
    largest = int(labels.max(initial=0))
    labels = labels.astype(np.uint8 if largest < 256 else np.uint16, order="C", copy=False)
    with whole_file(path) as part:
        if lower.endswith((".nii", ".nii.gz")):
            _nifti(labels, ijk_to_ras).to_filename(part)
        elif lower.endswith(".mha"):
            _write_meta_image(part, labels, ijk_to_ras)
        else:
            fields = {}
            if lower.endswith(".seg.nrrd"):
                boxes = ndimage.find_objects(labels, max_label=max([largest, *(names or ())]))
                named = {label: f"nodule {label}" for label, box in enumerate(boxes, start=1) if box} | dict(
                    names or {}
                )
                fields = _segment_fields(boxes, dict(sorted(named.items())), tracking_uids or {})
            _write_nrrd(part, labels, ijk_to_ras, fields)


def _write_nrrd(path: Path, labels: NDArray, ijk_to_ras: NDArray, fields: Mapping[str, str]) -> None:
    """A gzipped NRRD file, slice by slice, so that nothing of the volume's size is held besides it."""
    matrix = flip_lps_ras(ijk_to_ras)
    vectors = [f"({','.join(repr(float(x)) for x in column)})" for column in matrix[:3].T]
    lines = [
        "NRRD0004",
        f"type: uint{8 * labels.dtype.itemsize}",
        "dimension: 3",
        "space: left-posterior-superior",
        f"sizes: {' '.join(str(length) for length in reversed(labels.shape))}",
        f"space directions: {' '.join(vectors[:3])}",
        "kinds: domain domain domain",
        "endian: little",
        "encoding: gzip",
        f"space origin: {vectors[3]}",
    ]
    for key, value in fields.items():
        text = value.replace("\\", r"\\").replace("\n", r"\n")
        lines.append(f"{key}:={text}")
    with path.open("wb") as file:
        file.write("\n".join([*lines, "", ""]).encode())
        _write_packed(file, labels, zlib.compressobj(_PACKING, wbits=31))


def _write_meta_image(path: Path, labels: NDArray, ijk_to_ras: NDArray) -> None:
    """Writes a compressed MetaImage file, slice by slice."""
    matrix = flip_lps_ras(ijk_to_ras)
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)

    def numbers(values: NDArray) -> str:
        return " ".join(repr(float(value)) for value in np.ravel(values))

    before = [
        "ObjectType = Image",
        "NDims = 3",
        "BinaryData = True",
        "BinaryDataByteOrderMSB = False",
        "CompressedData = True",
        "CompressedDataSize = ",
    ]
    after = [
        "",
        f"TransformMatrix = {numbers((matrix[:3, :3] / spacing).T)}",
        f"Offset = {numbers(matrix[:3, 3])}",
        f"ElementSpacing = {numbers(spacing)}",
        f"DimSize = {' '.join(str(length) for length in reversed(labels.shape))}",
        f"ElementType = MET_{'UCHAR' if labels.dtype.itemsize == 1 else 'USHORT'}",
        "ElementDataFile = LOCAL",
        "",
    ]
    with path.open("wb") as file:
        file.write("\n".join(before).encode())
        place = file.tell()
        file.write(("0" * _DIGITS + "\n".join(after)).encode())
        length = _write_packed(file, labels, zlib.compressobj(_PACKING))
        file.seek(place)
        file.write(f"{length:0{_DIGITS}d}".encode())


def _write_packed(file: BinaryIO, labels: NDArray, packer: Any) -> int:
    """Writes the voxels in little endian, packed; returns how many bytes that makes."""
    begun = file.tell()
    for plane in labels:
        file.write(packer.compress(plane.astype(plane.dtype.newbyteorder("<"), copy=False).tobytes()))
    file.write(packer.flush())
    return file.tell() - begun


def read_segment_names(path: str | Path) -> tuple[dict[int, str], dict[int, str]]:
    """Names and tracking UIDs of the labels in a .seg.nrrd; empty for files that hold none."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        fields = {key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys()}
    except RuntimeError:  # a series of DICOM files, a NIfTI that only nibabel reads
        return {}, {}
    names, uids = {}, {}
    for key, value in fields.items():
        number = re.fullmatch(r"Segment(\d+)_LabelValue", key)
        if number and value.strip().isdigit():
            label = int(value)
            names[label] = fields.get(f"Segment{number[1]}_Name", f"nodule {label}")
            tag = re.search(rf"(?:^|\|){re.escape(TRACKING_TAG)}:([\d.]+)", fields.get(f"Segment{number[1]}_Tags", ""))
            if tag:
                uids[label] = tag[1]
    return names, uids


def on_grid(labels: Volume, shape_kji: tuple[int, ...], ijk_to_ras: NDArray) -> NDArray:
    """The labels on the CT's grid; Slicer saves only the box around the segments, which is padded with background.

    Raises:
        InputError: its voxels are not the CT's, or it reaches beyond the CT.
    """
    across = np.linalg.inv(ijk_to_ras) @ labels.ijk_to_ras
    offset = np.rint(across[:3, 3])
    corner = across @ np.array([*(np.array(labels.array_kji.shape)[::-1] - 1), 1.0])
    apart = np.abs(corner[:3] - offset - (np.array(labels.array_kji.shape)[::-1] - 1)).max()
    if max(apart, float(np.abs(across[:3, 3] - offset).max())) > _SAME_PLACE_VOXELS:
        raise InputError(
            f"{labels.path} does not lie on the CT's voxels: give the segmentation of this CT, or export it again with "
            "the CT as reference volume"
        )
    start = offset[::-1].astype(int)
    stop = start + labels.array_kji.shape
    inside = [
        slice(max(0, -int(a)), int(n - max(0, b - size)))
        for a, b, n, size in zip(start, stop, labels.array_kji.shape, shape_kji, strict=True)
    ]
    kept = labels.array_kji[tuple(inside)]
    if np.count_nonzero(kept) != np.count_nonzero(labels.array_kji):
        raise InputError(f"{labels.path} reaches beyond the CT: give the segmentation of this CT")
    out = np.zeros(shape_kji, labels.array_kji.dtype)
    if kept.size:
        place = [slice(max(0, int(a)), max(0, int(a)) + n) for a, n in zip(start, kept.shape, strict=True)]
        out[tuple(place)] = kept
    return out


def _nifti(labels: NDArray, ijk_to_ras: NDArray) -> nibabel.Nifti1Image:
    image = nibabel.Nifti1Image(labels.T, ijk_to_ras)
    image.set_sform(ijk_to_ras, code=1)
    axes = ijk_to_ras[:3, :3] / np.linalg.norm(ijk_to_ras[:3, :3], axis=0)
    square = np.allclose(axes.T @ axes, np.eye(3), atol=1e-4)
    image.set_qform(ijk_to_ras if square else None, code=1 if square else 0)  # a quaternion cannot hold a shear
    image.header.set_xyzt_units("mm")
    image.header.set_intent("label", name="nodules")
    return image


def _segment_fields(
    boxes: Sequence[tuple[slice, ...] | None], names: Mapping[int, str], uids: Mapping[int, str]
) -> dict[str, str]:
    """Slicer's header fields; ``boxes`` are those of the labels from 1 upward, None of one without voxels."""
    fields = {
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
    }
    for number, (label, name) in enumerate(names.items()):
        block = boxes[label - 1]
        extent = [edge for part in reversed(block) for edge in (part.start, part.stop - 1)] if block else [0, -1] * 3
        fields |= {
            f"Segment{number}_ID": f"Segment_{label}",
            f"Segment{number}_Name": name,
            f"Segment{number}_NameAutoGenerated": "0",
            f"Segment{number}_Color": " ".join(f"{part:g}" for part in segment_color(label)),
            f"Segment{number}_ColorAutoGenerated": "0",
            f"Segment{number}_LabelValue": str(label),
            f"Segment{number}_Layer": "0",
            f"Segment{number}_Extent": " ".join(str(edge) for edge in extent),
            f"Segment{number}_Tags": f"TerminologyEntry:{TERMINOLOGY}|"
            + (f"{TRACKING_TAG}:{uids[label]}|" if label in uids else ""),
        }
    return fields
