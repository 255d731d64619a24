"""Writes a made-up CT series as DICOM files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid


def write_series(folder: Path, array_kji: NDArray, ijk_to_ras: NDArray, **fields: object) -> str:
    """One file a slice, of the patient Änne Müller; ``fields`` replace or (None) remove. Returns the series UID."""
    folder.mkdir(parents=True, exist_ok=True)
    to_lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.asarray(ijk_to_ras, dtype=float)
    spacing = np.linalg.norm(to_lps[:3, :3], axis=0)
    series, study, frame = generate_uid(), generate_uid(), generate_uid()
    for k, plane in enumerate(array_kji):
        slice_ = Dataset()
        slice_.file_meta = FileMetaDataset()
        slice_.SOPClassUID = slice_.file_meta.MediaStorageSOPClassUID = CTImageStorage
        slice_.SOPInstanceUID = slice_.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        slice_.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        slice_.SpecificCharacterSet = "ISO_IR 192"
        slice_.PatientName, slice_.PatientID, slice_.PatientBirthDate, slice_.PatientSex = "Müller^Änne", "P 7", "", "F"
        slice_.StudyInstanceUID, slice_.SeriesInstanceUID, slice_.FrameOfReferenceUID = study, series, frame
        slice_.StudyID, slice_.StudyDate, slice_.StudyTime, slice_.AccessionNumber = "1", "20240102", "101010", ""
        slice_.ReferringPhysicianName, slice_.Manufacturer, slice_.Modality = "", "made up", "CT"
        slice_.SeriesNumber, slice_.InstanceNumber, slice_.ImageType = 3, k + 1, ["ORIGINAL", "PRIMARY", "AXIAL"]
        slice_.PositionReferenceIndicator, slice_.PatientPosition = "", "HFS"
        slice_.ImagePositionPatient = [f"{x:.6g}" for x in (to_lps @ [0, 0, k, 1])[:3]]
        slice_.ImageOrientationPatient = [
            f"{x:.6g}" for x in (*(to_lps[:3, 0] / spacing[0]), *(to_lps[:3, 1] / spacing[1]))
        ]
        slice_.PixelSpacing = [f"{spacing[1]:.6g}", f"{spacing[0]:.6g}"]
        slice_.SliceThickness = f"{spacing[2]:.6g}"
        slice_.Rows, slice_.Columns = plane.shape
        slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
        slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit, slice_.PixelRepresentation = 16, 16, 15, 1
        slice_.RescaleIntercept, slice_.RescaleSlope = "0", "1"
        slice_.PixelData = np.ascontiguousarray(plane, dtype="<i2").tobytes()
        for field, value in fields.items():
            if value is None:
                delattr(slice_, field)
            else:
                setattr(slice_, field, value)
        slice_.save_as(folder / f"slice {k:03}.dcm", enforce_file_format=True)
    return str(series)
