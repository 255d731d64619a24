"""Reads one DICOM series through SimpleITK (GDCM); the slice axis comes from the slices' own positions."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from ..inference.errors import InputError
from .itk_geometry import image_to_ras

_POSITION, _SERIES_UID = "0020|0032", "0020|000e"
_DESCRIPTION, _MODALITY = "0008|103e", "0008|0060"

#: Slice positions may differ from even steps by this part of a step, or this many mm, before a warning is due.
_UNEVEN_STEPS, _UNEVEN_MM = 0.02, 0.05
#: Slices closer than this lie in the same place.
_SAME_PLACE_MM = 1e-3


def read_series(path: Path) -> tuple[NDArray, NDArray[np.float64]]:
    """The series in a folder (or below it), or the one to which a DICOM file belongs.

    The matrix's slice axis runs from the first slice's position to the last one's, so that a tilted gantry gives the
    sheared matrix that is true to the scan.

    Returns:
        array [k, j, i] in the rescaled values (HU), and the 4x4 IJK-to-RAS matrix.

    Raises:
        InputError: no series, or several (listed), or an unreadable one.
    """
    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)  # GDCM's remarks on every folder that has no series
    try:
        return _read_series(path)
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)


def _read_series(path: Path) -> tuple[NDArray, NDArray[np.float64]]:
    files = _files_of(path)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(file) for file in files])
    try:
        image = reader.Execute() if len(files) > 1 else sitk.ReadImage(str(files[0]))
    except RuntimeError as error:
        detail = str(error).strip().splitlines()[-1].strip()
        raise InputError(f"the DICOM series in {path} cannot be read; export it again. [{detail}]") from error
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise InputError(f"the DICOM series in {path} is in color (a screen capture?): give the CT series itself")
    if image.GetDimension() > 3:
        image = image[..., 0]
    if image.GetSize()[2] < 2:
        raise InputError(f"the DICOM series in {path} has a single slice: give the folder with the whole series")
    matrix = image_to_ras(image)
    if len(files) > 1:
        matrix[:3, 2] = _slice_step(path, files)
    return sitk.GetArrayFromImage(image), matrix


def _files_of(path: Path) -> list[Path]:
    if path.is_file():
        uid = _tags(path).get(_SERIES_UID, "")
        found = _names(path.parent, uid)
        return found or [path]
    series_of = sitk.ImageSeriesReader.GetGDCMSeriesIDs
    series = [(folder, uid) for folder in _folders(path) for uid in series_of(str(folder))]
    if not series:
        raise InputError(
            f"{path} holds no DICOM series: give a folder with the slices of a CT, or a NIfTI, NRRD or MHA file"
        )
    if len(series) > 1:
        listed = "\n".join(_described(folder, uid) for folder, uid in series)
        raise InputError(
            f"{path} holds {len(series)} DICOM series: name one file of the series you want instead of the folder\n"
            + listed
        )
    return _names(*series[0])


def _folders(path: Path) -> list[Path]:
    return [path, *sorted(folder for folder in path.rglob("*") if folder.is_dir())]


def _names(folder: Path, uid: str) -> list[Path]:
    return [Path(name) for name in sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid)]


def _described(folder: Path, uid: str) -> str:
    files = _names(folder, uid)
    tags = _tags(files[0])
    words = [tags.get(_MODALITY, ""), tags.get(_DESCRIPTION, ""), f"{len(files)} files"]
    return f"  {', '.join(word for word in words if word)}: {files[0]}"


def _tags(file: Path) -> dict[str, str]:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(file))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        detail = str(error).strip().splitlines()[-1].strip()
        raise InputError(f"{file} is not a DICOM image that can be read. [{detail}]") from error
    return {key: reader.GetMetaData(key).strip() for key in reader.GetMetaDataKeys()}


def _slice_step(path: Path, files: list[Path]) -> NDArray[np.float64]:
    """RAS mm from one slice to the next, the mean over the series; warns when the slices are not evenly spaced."""
    try:
        positions = np.array([[float(part) for part in _tags(file)[_POSITION].split("\\")] for file in files])
    except (KeyError, ValueError) as error:
        raise InputError(
            f"slices in {path} do not say where they lie (no Image Position Patient): export the original CT series "
            "again, or give the volume as NIfTI, NRRD or MHA file"
        ) from error
    together = len(positions) - len(np.unique(np.round(positions / _SAME_PLACE_MM), axis=0))
    if together:
        raise InputError(
            f"the DICOM series in {path} has {together} slices that lie where another one lies: it was copied there "
            "twice, or has several phases. Leave one file per slice position"
        )
    step = (positions[-1] - positions[0]) / (len(files) - 1)
    off = np.linalg.norm(positions - (positions[0] + np.arange(len(files))[:, None] * step), axis=1).max()
    if off > max(_UNEVEN_MM, _UNEVEN_STEPS * float(np.linalg.norm(step))):
        warnings.warn(
            f"the slices in {path} are not evenly spaced (up to {off:.2f} mm off): slices may be missing, and "
            "positions and volumes are approximate",
            stacklevel=2,
        )
    return step * (-1.0, -1.0, 1.0)
