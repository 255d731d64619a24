"""Writes made-up DICOM, classic and enhanced, whose every oddity is an argument. Positions and axes are LPS mm."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid

UPRIGHT = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SPACING = (0.7, 0.9)


def ct_header(plane: NDArray, series: str, number: int, **values: Any) -> Dataset:
    """One image without a place, stored with rescale intercept -1024; ``values`` override, None removes."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = values.get("SOPClassUID", CTImageStorage)
    data = Dataset()
    data.file_meta = meta
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, generate_uid()
    meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.SeriesInstanceUID, data.StudyInstanceUID = series, "1.2.826.0.1.77"
    data.Modality, data.SeriesDescription, data.InstanceNumber = "CT", "LUNG", number
    data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    data.Rows, data.Columns = plane.shape[-2:]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, 0
    data.RescaleSlope, data.RescaleIntercept = "1", "-1024"
    for name, value in values.items():
        if value is not None:
            setattr(data, name, value)
        elif name in data:
            delattr(data, name)
    return data


def stored(plane: NDArray, slope: float = 1.0, intercept: float = -1024.0) -> bytes:
    return np.round((plane.astype(float) - intercept) / slope).astype(np.uint16).tobytes()


def write_slices(
    folder: Path,
    planes: NDArray,
    positions: Sequence[Sequence[float]],
    axes: Sequence[float] = UPRIGHT,
    series: str = "",
    name: str = "IM{:03d}.dcm",
    spacing: Sequence[float] = SPACING,
    **values: Any,
) -> str:
    """A classic series; a callable among ``values`` gets the slice's number. Returns the series' UID."""
    folder.mkdir(parents=True, exist_ok=True)
    series = series or generate_uid()
    for number, (plane, position) in enumerate(zip(planes, positions, strict=True)):
        own = {key: value(number) if callable(value) else value for key, value in values.items()}
        place = {
            "ImagePositionPatient": [f"{x:.6g}" for x in position],
            "ImageOrientationPatient": [f"{x:.8g}" for x in axes],
            "PixelSpacing": [f"{spacing[1]:g}", f"{spacing[0]:g}"],
        }
        data = ct_header(plane, series, number + 1, **(place | own))
        data.PixelData = stored(plane, float(data.get("RescaleSlope", 1)), float(data.get("RescaleIntercept", 0)))
        data.save_as(folder / name.format(number + 1), enforce_file_format=True)
    return series


def enhanced(
    planes: NDArray,
    positions: Sequence[Sequence[float]],
    axes: Sequence[float] = UPRIGHT,
    intercepts: Sequence[float] | None = None,
    spacing: Sequence[float] = SPACING,
) -> Dataset:
    """A multi-frame CT whose frames lie where ``positions`` say; with ``intercepts`` each has its own rescale."""
    data = ct_header(
        planes, generate_uid(), 1, SOPClassUID=EnhancedCTImageStorage, RescaleSlope=None, RescaleIntercept=None
    )
    data.NumberOfFrames = len(planes)

    def group(**values: Any) -> list[Dataset]:
        item = Dataset()
        for name, value in values.items():
            setattr(item, name, value)
        return [item]

    def rescale(intercept: float) -> list[Dataset]:
        return group(RescaleSlope="1", RescaleIntercept=f"{intercept:g}", RescaleType="HU")

    shared = Dataset()
    shared.PixelMeasuresSequence = group(PixelSpacing=[spacing[1], spacing[0]], SliceThickness=2.0)
    shared.PlaneOrientationSequence = group(ImageOrientationPatient=[float(f"{x:.8g}") for x in axes])
    if intercepts is None:
        shared.PixelValueTransformationSequence = rescale(-1024)
    data.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for number, position in enumerate(positions):
        frame = Dataset()
        frame.PlanePositionSequence = group(ImagePositionPatient=[float(f"{x:.6g}") for x in position])
        frame.FrameContentSequence = group(StackID="1", InStackPositionNumber=number + 1)
        if intercepts is not None:
            frame.PixelValueTransformationSequence = rescale(intercepts[number])
        frames.append(frame)
    data.PerFrameFunctionalGroupsSequence = frames
    data.PixelData = b"".join(
        stored(plane, 1.0, -1024.0 if intercepts is None else intercepts[number]) for number, plane in enumerate(planes)
    )
    return data
