"""DICOM SEG and SR: written by highdicom, read back with pydicom alone, and by dcmqi where it is installed."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import sysconfig

import numpy as np
import pytest
import SimpleITK as sitk
from pydicom import dcmread

from SAMMed3DLib.files.volume_io import read_volume
from SAMMed3DLib.inference.errors import InputError
from SAMMed3DLib.inference.geometry import Block
from SAMMed3DLib.report import dicom_objects
from SAMMed3DLib.report.dicom_objects import write_seg_and_sr
from SAMMed3DLib.report.measuring import Segment, measure_scan, segments_of
from SAMMed3DLib.report.scan_facts import scan_of

from .dicom_series import write_series

pytest.importorskip("highdicom")


def labels() -> np.ndarray:
    """Two nodules, the larger one has the larger label."""
    made = np.zeros((8, 30, 24), np.uint8)
    made[2:5, 4:9, 12:18] = 3
    made[5:7, 20:23, 5:8] = 1
    return made


def matrix() -> np.ndarray:
    """Rows to the left, columns to the back, slices upwards, as scanners have them."""
    made = np.diag([-0.7, -0.7, 2.0, 1.0])
    made[:3, 3] = (30.0, 40.0, -50.0)
    return made


@pytest.fixture
def case(tmp_path):
    """A series of a patient, its findings and segments; and how to make it with other header fields."""

    def make(**fields):
        folder = tmp_path / "serie größer"
        shutil.rmtree(folder, ignore_errors=True)
        array = np.where(labels() > 0, 20, -850).astype(np.int16)
        write_series(folder, array, matrix(), **fields)
        volume = read_volume(folder)
        scan = scan_of(volume.array_kji, volume.ijk_to_ras, volume.name, volume.path)
        segments = segments_of(labels(), {1: "Herd größer", 3: "large"})
        return measure_scan(scan, volume.array_kji, volume.ijk_to_ras, segments), segments, volume

    return make


@pytest.fixture
def written(case, tmp_path):
    findings, segments, volume = case()
    paths = tmp_path / "seg.dcm", tmp_path / "sr.dcm"
    write_seg_and_sr(*paths, findings, segments, volume)
    return (*paths, findings)


def texts(item, found: dict) -> dict:
    """All (name, value) of a structured report, by name."""
    name = item.ConceptNameCodeSequence[0].CodeMeaning if "ConceptNameCodeSequence" in item else ""
    if item.get("ValueType") == "NUM":
        found.setdefault(name, []).append(float(item.MeasuredValueSequence[0].NumericValue))
    elif item.get("ValueType") in ("UIDREF", "TEXT"):
        found.setdefault(name, []).append(str(item.get("UID") or item.get("TextValue")))
    elif item.get("ValueType") == "CODE":
        found.setdefault(name, []).append(item.ConceptCodeSequence[0].CodeValue)
    for child in item.get("ContentSequence", []):
        texts(child, found)
    return found


def test_the_segmentation_lies_where_the_masks_do(written) -> None:
    seg_path, _, findings = written
    seg = dcmread(seg_path)
    assert seg.Modality == "SEG" and str(seg.PatientName) == "Müller^Änne" and seg.PatientID == "P 7"
    found = np.zeros(labels().shape, int)
    pixels = seg.pixel_array
    for frame, plane in zip(seg.PerFrameFunctionalGroupsSequence, pixels, strict=True):
        place = frame.PlanePositionSequence[0].ImagePositionPatient
        k = round((float(place[2]) + 50.0) / 2.0)
        number = frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        found[k][plane > 0] = findings.nodules[number - 1].label
    np.testing.assert_array_equal(found, labels())
    described = {each.SegmentNumber: each for each in seg.SegmentSequence}
    for number, nodule in enumerate(findings.nodules, start=1):
        assert described[number].TrackingUID == nodule.tracking_uid
        assert described[number].SegmentLabel == nodule.name
        assert described[number].SegmentedPropertyTypeCodeSequence[0].CodeValue == "27925004"


def test_nodules_that_share_voxels_are_whole(case, tmp_path, monkeypatch) -> None:
    """The report tells both volumes: the segmentation must hold the voxels of both, even of one within the other."""
    findings, segments, volume = case()
    more = labels() * 0
    more[3:6, 5:9, 13:20] = 1
    within = labels() * 0
    within[3, 6, 14] = 1
    segments = [*segments, *(Segment(label, "x", Block(mask, (0, 0, 0))) for label, mask in ((4, more), (5, within)))]
    nodules = tuple(dataclasses.replace(findings.nodules[0], label=n, tracking_uid=f"1.{n}") for n in (3, 1, 4, 5))
    found = dataclasses.replace(findings, nodules=nodules)
    write_seg_and_sr(tmp_path / "seg.dcm", tmp_path / "sr.dcm", found, segments, volume)
    seg = dcmread(tmp_path / "seg.dcm")
    whole = {number: np.zeros(labels().shape, np.uint8) for number in range(1, 5)}
    for frame, plane in zip(seg.PerFrameFunctionalGroupsSequence, seg.pixel_array, strict=True):
        k = round((float(frame.PlanePositionSequence[0].ImagePositionPatient[2]) + 50.0) / 2.0)
        whole[frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber][k] = plane
    for number, mask in enumerate((labels() == 3, labels() == 1, more, within), start=1):
        np.testing.assert_array_equal(whole[number], mask)
    monkeypatch.setattr(dicom_objects, "_MOST_SHARED", 100)
    with pytest.raises(InputError, match="leave each voxel to one nodule"):
        write_seg_and_sr(tmp_path / "seg.dcm", tmp_path / "sr.dcm", found, segments, volume)


def test_the_report_holds_the_figures(written) -> None:
    seg_path, sr_path, findings = written
    report = dcmread(sr_path)
    assert report.Modality == "SR" and report.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    found = texts(report, {})
    assert found["Tracking Unique Identifier"] == [nodule.tracking_uid for nodule in findings.nodules]
    assert found["Tracking Identifier"] == [nodule.name for nodule in findings.nodules]
    for name, figures in (
        ("Volume", [nodule.volume_mm3 for nodule in findings.nodules]),
        ("Long axis", [nodule.long_axis.length_mm for nodule in findings.nodules]),
        ("Short axis", [nodule.short_axis.length_mm for nodule in findings.nodules]),
        ("Mean attenuation", [nodule.mean_hu for nodule in findings.nodules]),
    ):
        np.testing.assert_allclose(found[name], figures, atol=2e-3)
    assert found["Device Observer Model Name"][0].startswith("SAMMed3D "), "not a bare version"
    assert found["Type of nodule"] == ["solid", "solid"]
    assert found["Finding"] == ["27925004", "27925004"]
    assert str(dcmread(seg_path).SOPInstanceUID) in report.to_json(), "the report refers to the segmentation"


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"PatientID": ""}, "lack PatientID"),
        ({"PatientID": None, "PatientSex": None}, "lack PatientID, PatientSex"),
        ({"StudyDate": None}, "lack StudyDate"),
        ({"FrameOfReferenceUID": None}, "lack FrameOfReferenceUID"),
    ],
)
def test_missing_patient_data_are_named(case, tmp_path, fields, message) -> None:
    findings, segments, volume = case(**fields)
    with pytest.raises(InputError, match=message):
        write_seg_and_sr(tmp_path / "a.dcm", tmp_path / "b.dcm", findings, segments, volume)
    assert not list(tmp_path.glob("*.dcm"))


@pytest.mark.parametrize(
    ("name", "kept"),
    [("🫁 גוש", "🫁 גוש"), ("a\tb\nc\u0007", "a b c"), ("1\\2", "1/2"), ("\u0007", "nodule 1"), ("右" * 80, "右" * 64)],
    ids=["letters", "controls", "backslash", "nothing", "long"],
)
def test_names_of_all_kinds(case, tmp_path, name, kept) -> None:
    """In a series of Western European letters."""
    findings, segments, volume = case(SpecificCharacterSet="ISO_IR 100")
    nodules = tuple(dataclasses.replace(each, name=name) for each in findings.nodules if each.label == 1)
    write_seg_and_sr(
        tmp_path / "seg.dcm", tmp_path / "sr.dcm", dataclasses.replace(findings, nodules=nodules), segments, volume
    )
    (segment,) = dcmread(tmp_path / "seg.dcm").SegmentSequence
    report = dcmread(tmp_path / "sr.dcm")
    assert segment.SegmentLabel == kept and texts(report, {})["Tracking Identifier"] == [kept]
    assert str(report.PatientName) == "Müller^Änne"


def test_both_files_are_written_or_none(case, tmp_path) -> None:
    findings, segments, volume = case()
    (tmp_path / "sr.dcm").mkdir()
    with pytest.raises(InputError, match="it is a folder"):
        write_seg_and_sr(tmp_path / "seg.dcm", tmp_path / "sr.dcm", findings, segments, volume)
    assert not (tmp_path / "seg.dcm").exists()


def test_other_files_than_dicom_and_no_highdicom(case, tmp_path, monkeypatch) -> None:
    findings, segments, volume = case()
    bare = dataclasses.replace(findings, scan=dataclasses.replace(findings.scan, series_uid=None))
    with pytest.raises(InputError, match="no DICOM series"):
        write_seg_and_sr(tmp_path / "a.dcm", tmp_path / "b.dcm", bare, segments, volume)
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(InputError, match="pip install highdicom"):
        write_seg_and_sr(tmp_path / "a.dcm", tmp_path / "b.dcm", findings, segments, volume)


SCRIPTS = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
DCMQI = shutil.which("segimage2itkimage", path=SCRIPTS)


def test_one_nodule_is_enough(case, tmp_path) -> None:
    """Of one segment alone, highdicom puts the segment's number where frames share it."""
    findings, segments, volume = case()
    alone = dataclasses.replace(findings, nodules=findings.nodules[:1])
    write_seg_and_sr(tmp_path / "a.dcm", tmp_path / "b.dcm", alone, segments, volume)
    report = dcmread(tmp_path / "b.dcm")
    slices = len(report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence)
    assert slices == 2 and texts(report, {})["Long axis"] == [findings.nodules[0].long_axis.length_mm]
    seg = dcmread(tmp_path / "a.dcm")
    assert int(seg.pixel_array.sum()) == np.count_nonzero(labels() == findings.nodules[0].label)


@pytest.mark.skipif(DCMQI is None and "CI" not in os.environ, reason="dcmqi is not installed")
def test_dcmqi_reads_the_same(written, tmp_path) -> None:
    """An independent reader, in C++ on DCMTK; on CI it must be there."""
    assert DCMQI is not None, "dcmqi is not installed: it is in the test extra"
    seg_path, sr_path, findings = written
    subprocess.run(
        [DCMQI, "--inputDICOM", seg_path, "--outputDirectory", tmp_path, "-p", "x", "-t", "nrrd", "--mergeSegments"],
        check=True,
        capture_output=True,
    )
    image = sitk.ReadImage(str(tmp_path / "x-1.nrrd"))
    array = sitk.GetArrayFromImage(image)
    for number, nodule in enumerate(findings.nodules, start=1):
        assert np.count_nonzero(array == number) == np.count_nonzero(labels() == nodule.label)
        middle = np.argwhere(array == number).mean(axis=0)[::-1]
        lps = image.TransformContinuousIndexToPhysicalPoint(middle.tolist())
        np.testing.assert_allclose((-lps[0], -lps[1], lps[2]), nodule.place.centroid_ras, atol=0.01)
    reader = shutil.which("tid1500reader", path=SCRIPTS)
    assert reader is not None
    subprocess.run(
        [reader, "--inputDICOM", sr_path, "--outputMetadata", tmp_path / "m.json"], check=True, capture_output=True
    )
    groups = json.loads((tmp_path / "m.json").read_text(encoding="utf-8"))["Measurements"]
    assert [each["TrackingUniqueIdentifier"] for each in groups] == [each.tracking_uid for each in findings.nodules]
    for group, nodule in zip(groups, findings.nodules, strict=True):
        values = {each["quantity"]["CodeMeaning"]: float(each["value"]) for each in group["measurementItems"]}
        assert values["Volume"] == pytest.approx(nodule.volume_mm3, abs=2e-3)
        assert values["Long axis"] == nodule.long_axis.length_mm
