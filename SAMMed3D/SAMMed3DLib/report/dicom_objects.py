"""Findings as DICOM: a segmentation (SEG) and a structured report (TID 1500), with the nodules' tracking UIDs.

Made by highdicom, an optional extra: ``pip install sammed3d[dicom]``. Both objects belong to the patient and study of
the CT. Nothing is sent anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import __version__
from ..files.output_files import whole_file
from ..inference.errors import InputError
from ..inference.geometry import block_slices, world_to_ijk
from . import rules
from .findings import Findings, Nodule

if TYPE_CHECKING:
    from pydicom import Dataset

    from ..files.volume_io import Volume
    from .measuring import MeasuredScan, Segment

#: DICOM attributes of the CT that both objects repeat.
_NEEDED = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "StudyInstanceUID",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "SOPInstanceUID",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
)
#: Attributes of these that must not be empty.
_FILLED = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "SOPInstanceUID")
#: Largest distance of a slice from its place in the volume, in slices.
_MOST_OFF = 0.1
#: Most bytes of frames of nodules that share voxels.
_MOST_SHARED = 2_000_000_000
_MAKER = "SAMMed3D"


def write_seg_and_sr(
    seg_path: Path, sr_path: Path, findings: Findings, segments: Sequence[Segment], volume: Volume | MeasuredScan
) -> None:
    """Writes both files, whole, or none.

    Args:
        seg_path, sr_path: where to.
        findings: of the CT, with at least one nodule.
        segments: the masks, by the nodules' labels.
        volume: the CT, read from its DICOM files.

    Raises:
        InputError: highdicom is missing, the CT is no DICOM series of single slices, or patient data are missing.
    """
    try:
        import highdicom
    except ImportError as error:
        raise InputError("highdicom is not installed: pip install highdicom") from error
    slices = source_slices(volume, findings.scan.series_uid)
    seg = _segmentation(highdicom, findings.nodules, *_frames(findings.nodules, segments, volume, slices))
    report = _report(highdicom, slices, findings, seg)
    with whole_file(seg_path) as seg_part, whole_file(sr_path) as sr_part:
        for part, dataset in ((seg_part, seg), (sr_part, report)):
            dataset.decode()
            dataset.SpecificCharacterSet = "ISO_IR 192"  # the CT's may lack the letters of the names
            dataset.save_as(part, enforce_file_format=True)


def source_slices(volume: Volume | MeasuredScan, series_uid: str | None) -> list[Dataset]:
    """Reads the CT's slices in the order of the volume's k, without a gap.

    Raises:
        InputError: they are not there, not one file a slice, or lack what DICOM objects must repeat.
    """
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    if series_uid is None or volume.path is None:
        raise InputError("the scan is no DICOM series: give the series' folder instead of a converted file")
    folder = volume.path if volume.path.is_dir() else volume.path.parent
    count = volume.array_kji.shape[0]
    found: dict[int, Dataset] = {}
    for file in sorted(each for each in folder.rglob("*") if each.is_file()):
        try:
            header = dcmread(file, specific_tags=["SeriesInstanceUID"], stop_before_pixels=True)
            if header.get("SeriesInstanceUID") != series_uid:
                continue
            dataset = dcmread(file, stop_before_pixels=True)
        except (InvalidDicomError, OSError):
            continue
        if int(dataset.get("NumberOfFrames") or 1) > 1:
            raise InputError(
                "the series holds several slices in one file (enhanced CT): only classic series, one file "
                "a slice, can be referred to"
            )
        if dataset.get("ImagePositionPatient") is None or (dataset.Rows, dataset.Columns) != volume.array_kji.shape[1:]:
            continue
        place = np.array(dataset.ImagePositionPatient, dtype=float) * (-1.0, -1.0, 1.0)
        k = float(world_to_ijk(volume.ijk_to_ras, place)[2])
        if abs(k - round(k)) <= _MOST_OFF and 0 <= round(k) < count:
            found.setdefault(round(k), dataset)
    if len(found) != count:
        raise InputError(
            f"{count - len(found)} of the volume's {count} slices have no file of their own (missing or uneven slices)"
        )
    slices = [found[k] for k in range(count)]
    missing = [field for field in _NEEDED if any(field not in each for each in slices)]
    missing += [field for field in _FILLED if field not in missing and not all(str(each.get(field)) for each in slices)]
    if missing:
        raise InputError(
            f"the CT's files lack {', '.join(missing)}: export the series again with all of the patient's "
            "and the study's data"
        )
    return slices


def _frames(
    nodules: Sequence[Nodule], segments: Sequence[Segment], volume: Volume | MeasuredScan, slices: Sequence[Dataset]
) -> tuple[Sequence[Dataset], NDArray]:
    """Draws segment numbers (1 = the first nodule of the findings) on the slices' pixels, in their rows and columns.

    Returns:
        slices and their frames (k, j, i). Where nodules share voxels: those slices alone that hold one, and frames
        (k, j, i, n) of 0 and 1, each nodule whole.
    """
    rows = np.array(slices[0].ImageOrientationPatient, dtype=float).reshape(2, 3)
    axes = np.linalg.inv(volume.ijk_to_ras)[:3, :3] @ (rows * (-1.0, -1.0, 1.0)).T
    if not (axes[0, 0] > 0 and axes[1, 1] > 0 and abs(axes[1, 0]) < 0.01 and abs(axes[0, 1]) < 0.01):
        raise InputError("the volume's rows and columns are not those of its DICOM files")
    frames = np.zeros(volume.array_kji.shape, np.uint8 if len(nodules) < 256 else np.uint16)
    by_label = {segment.label: segment.block for segment in segments}
    blocks = [by_label[nodule.label] for nodule in nodules]
    shares = False
    for number, block in enumerate(blocks, start=1):
        inside = np.asarray(block.mask) != 0
        shares = shares or bool(frames[block_slices(block)][inside].any())
        frames[block_slices(block)][inside] = number
    if not shares:
        return slices, frames
    used = np.flatnonzero(frames.any(axis=(1, 2)))
    shape = (*frames.shape, len(nodules))
    if len(used) * np.prod(shape[1:], dtype=np.int64) > _MOST_SHARED:
        raise InputError("nodules share voxels, and there are too many of them: leave each voxel to one nodule")
    whole = np.zeros((len(used), *shape[1:]), np.uint8)
    for number, block in enumerate(blocks):
        k, j, i = block_slices(block)
        holds = np.flatnonzero(np.asarray(block.mask).any(axis=(1, 2)))
        whole[np.searchsorted(used, holds + k.start), j, i, number] = np.asarray(block.mask)[holds] != 0
    return [slices[int(k)] for k in used], whole


def _segmentation(hd: Any, nodules: Sequence[Nodule], slices: Sequence[Dataset], frames: NDArray) -> Any:
    from pydicom.sr.codedict import codes
    from pydicom.uid import generate_uid

    maker = hd.AlgorithmIdentificationSequence(
        name=_MAKER, version=__version__, family=codes.DCM.ArtificialIntelligence
    )
    descriptions = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=_name(nodule),
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=codes.SCT.Nodule,
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.SEMIAUTOMATIC,
            algorithm_identification=maker,
            tracking_uid=nodule.tracking_uid,
            tracking_id=_name(nodule),
            anatomic_regions=[codes.SCT.Lung],
        )
        for number, nodule in enumerate(nodules, start=1)
    ]
    return hd.seg.Segmentation(
        source_images=slices,
        pixel_array=frames,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=descriptions,
        series_instance_uid=generate_uid(),
        series_number=9001,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer=_MAKER,
        manufacturer_model_name=_MAKER,
        software_versions=__version__,
        device_serial_number="0",
        series_description="SAMMed3D lung nodules, research only",
        omit_empty_frames=True,
    )


def _report(hd: Any, slices: Sequence[Dataset], findings: Findings, seg: Any) -> Any:
    from pydicom.sr.codedict import codes
    from pydicom.uid import generate_uid

    device = hd.sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(
            uid=generate_uid(entropy_srcs=[_MAKER, __version__]), name=_MAKER, model_name=f"{_MAKER} {__version__}"
        ),
    )
    content = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=device),
        procedure_reported=codes.LN.CTUnspecifiedBodyRegion,
        imaging_measurements=[
            _group(hd, findings, nodule, seg, number) for number, nodule in enumerate(findings.nodules, start=1)
        ],
        title=codes.DCM.ImagingMeasurementReport,
    )
    return hd.sr.Comprehensive3DSR(
        evidence=[seg, *slices],
        content=content,
        series_instance_uid=generate_uid(),
        series_number=9002,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer=_MAKER,
        is_complete=True,
        is_verified=False,
        series_description="SAMMed3D lung nodules, research only",
    )


def _group(hd: Any, findings: Findings, nodule: Nodule, seg: Any, number: int) -> Any:
    """One nodule of the report."""
    from pydicom.sr.codedict import codes

    def code(value: str, meaning: str, scheme: str = "SCT") -> Any:
        return hd.sr.CodedConcept(value=value, scheme_designator=scheme, meaning=meaning)

    def own(value: str, meaning: str) -> Any:
        return code(value, meaning, "99SAMMED3D")

    millimeter, cubic, milligram = codes.UCUM.Millimeter, codes.UCUM.CubicMillimeter, code("mg", "milligram", "UCUM")
    interval = nodule.volume_interval_mm3
    figures = [
        (code("118565006", "Volume"), nodule.volume_mm3, cubic),
        (own("volume-low", "Volume, lower 95 % bound"), interval.low, cubic),
        (own("volume-high", "Volume, upper 95 % bound"), interval.high, cubic),
        (code("103339001", "Long axis"), nodule.long_axis.length_mm, millimeter),
        (code("103340004", "Short axis"), nodule.short_axis.length_mm, millimeter),
        (own("mean-diameter", "Mean diameter"), nodule.mean_diameter_mm, millimeter),
        (own("mean-hu", "Mean attenuation"), nodule.mean_hu, code("[hnsf'U]", "Hounsfield unit", "UCUM")),
        (own("mass", "Mass"), nodule.mass_mg, milligram),
    ]
    if nodule.solid is not None:
        figures += [
            (own("solid-volume", "Volume of the solid part"), nodule.solid.volume_mm3, cubic),
            (own("solid-diameter", "Mean diameter of the solid part"), nodule.solid.mean_diameter_mm, millimeter),
        ]
    laterality = {"right": code("24028007", "Right"), "left": code("7771000", "Left")}
    site = hd.sr.FindingSite(
        anatomic_location=codes.SCT.Lung,
        laterality=laterality[nodule.place.side] if nodule.place.side is not None else None,
    )
    types = {"solid": "Solid", "part-solid": "Part-solid", "ground-glass": "Ground glass"}
    said = [
        hd.sr.QualitativeEvaluation(
            name=own("nodule-type", "Type of nodule"), value=own(nodule.type, types[nodule.type])
        )
    ]
    for category in rules.categories(findings, nodule):
        if category.category is not None:
            short = category.guideline.lower().replace(" ", "-")
            said.append(
                hd.sr.QualitativeEvaluation(
                    name=own(f"size-{short}", f"Size category {category.guideline}, research only"),
                    value=own(_short(category.category), category.category[:64]),
                )
            )
    if nodule.diameters_by_hand:
        said.append(
            hd.sr.QualitativeEvaluation(
                name=own("diameters", "Source of the diameters"), value=own("by-hand", "Drawn by hand")
            )
        )
    return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(uid=nodule.tracking_uid, identifier=_name(nodule)),
        referenced_segment=_referenced_segment(hd, seg, number),
        finding_type=code("27925004", "Nodule"),
        measurements=[
            hd.sr.Measurement(name=name, value=_decimal(value), unit=unit)
            for name, value, unit in figures
            if math.isfinite(value)
        ],
        qualitative_evaluations=said,
        finding_sites=[site],
    )


def _referenced_segment(hd: Any, seg: Any, number: int) -> Any:
    """Refers to a segment and the slices that it lies in. (highdicom's own function fails with only one segment.)"""
    images: dict[str, Any] = {}
    for frame in seg.PerFrameFunctionalGroupsSequence:
        groups = [
            each for each in (frame, *seg.SharedFunctionalGroupsSequence) if "SegmentIdentificationSequence" in each
        ]
        if any(each.SegmentIdentificationSequence[0].ReferencedSegmentNumber == number for each in groups):
            for source in frame.DerivationImageSequence[0].SourceImageSequence:
                images[source.ReferencedSOPInstanceUID] = hd.sr.SourceImageForSegmentation(
                    source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID
                )
    return hd.sr.ReferencedSegment(
        seg.SOPClassUID, seg.SOPInstanceUID, segment_number=number, source_images=list(images.values())
    )


def _name(nodule: Nodule) -> str:
    """Fits a nodule's name to DICOM: at most 64 letters on a line, without a backslash, which would separate values."""
    name = " ".join(nodule.name.replace("\\", "/").split())
    return "".join(letter for letter in name if letter.isprintable())[:64] or f"nodule {nodule.label}"


def _short(text: str) -> str:
    """Fits a text to a DICOM code value: at most 16 characters of plain letters and digits."""
    plain = text.replace("³", "3").replace("below ", "lt").replace(" or more", "up").replace(" to ", "-")
    return "".join(letter for letter in plain if letter.isascii() and (letter.isalnum() or letter == "-"))[:16] or "0"


def _decimal(value: float) -> float:
    """Rounds a figure to what DICOM's decimal strings hold."""
    return round(float(value), 3)
