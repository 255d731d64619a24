"""The nodules of two volumes of one scene: measured, paired, corrected, written, and known again after a save."""

from __future__ import annotations

import dataclasses
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer

from report.dicom_series import write_series
from SAMMed3DLib.inference.errors import InputError
from SAMMed3DLib.report import follow_up as engine
from SAMMed3DLib.report.findings import read_findings
from SAMMed3DLib.report.follow_up import Registration
from SAMMed3DLib.report.rules import Patient
from SAMMed3DLib.scene.comparison import Comparison, Row
from SAMMed3DLib.scene.mask_block import MaskBlock
from SAMMed3DLib.scene.nodule_segmentation import NoduleSegmentation, createSegmentation
from SAMMed3DLib.scene.segment_writer import SegmentWriter
from SAMMed3DLib.scene.two_rows import CURRENT_VIEWS, LAYOUT, PRIOR_VIEWS, TwoRows
from SAMMed3DLib.worker.requests import AXES
from scene.session_bench import Bench

#: Voxel (k, j, i) of the nodules in both scans; the prior has one more, which is gone in the current one.
PLACES = ((8, 8, 8), (8, 20, 22), (24, 10, 20))
GONE = (26, 22, 8)
MOVED = ((1.0, 0.0, 0.0, 12.0), (0.0, 1.0, 0.0, -7.0), (0.0, 0.0, 1.0, 5.0), (0.0, 0.0, 0.0, 1.0))


class Two:
    """Two volumes of one grid, nodules at the same places in both."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.now = [self._click(place) for place in PLACES]
        self.priorVolume = self.another("Before")
        self.priorNode = createSegmentation(self.priorVolume)
        self.before = [self._add(f"old {n}", place) for n, place in enumerate((*PLACES, GONE), start=1)]
        self.comparison = Comparison(bench.session)
        self.messages: list[tuple[str, bool]] = []
        self.comparison.message.connect(lambda *message: self.messages.append(message))
        self.comparison.setDate(bench.volume, "2024-07-01")
        self.comparison.setDate(self.priorVolume, "2024-01-01")

    def another(self, name: str) -> Any:
        """A scan of other voxels than the current one, of which it would be a copy."""
        volume = self.bench.addVolume(name)
        slicer.util.arrayFromVolume(volume)[0, 0, 0] += 1
        return volume

    def _click(self, place: tuple[int, int, int]) -> str:
        self.bench.session.select(None)
        segmentId = self.bench.click(*place)
        assert segmentId is not None
        return segmentId

    def _add(self, name: str, place: tuple[int, int, int]) -> str:
        nodules = NoduleSegmentation(self.priorNode)
        segmentId = nodules.addNodule(name)
        start = tuple(x - 2 for x in place)
        SegmentWriter(self.priorNode, self.priorVolume).write(segmentId, MaskBlock(np.ones((5, 5, 5), np.uint8), start))
        return segmentId

    def wait(self) -> None:
        end = time.monotonic() + 60
        while self.comparison.isRunning:
            assert time.monotonic() < end, "it never ends"
            self.comparison.poll(0.02)

    def run(self) -> None:
        self.comparison.setPrior(self.priorVolume, self.priorNode)
        self.comparison.run()
        self.wait()

    def row(self, name: str) -> Row:
        return next(row for row in self.comparison.rows() if name in (_name(row.current), _name(row.prior)))

    def pairs(self) -> list[tuple[str | None, str | None, str]]:
        return [(_name(row.current), _name(row.prior), row.pair.status) for row in self.comparison.rows() if row.pair]

    def uid(self, node: Any, segmentId: str) -> str | None:
        return NoduleSegmentation(node).trackingUid(segmentId)


def _name(nodule: Any) -> str | None:
    return None if nodule is None else nodule.name


@pytest.fixture
def two(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[Two]:
    """The scans lie on each other; the real registration needs lungs, see Testing/report."""
    monkeypatch.setattr(engine, "register", lambda *_scans, **_more: Registration(np.eye(4), 1.0, 1.0, "affine"))
    made = Two(bench)
    yield made
    made.comparison.close(2.0)


def test_without_a_prior_the_scan_is_measured(two: Two) -> None:
    two.comparison.run()
    two.wait()
    rows = two.comparison.rows()
    assert [row.pair for row in rows] == [None, None, None]
    assert {_name(row.current) for row in rows} == {"Nodule 1", "Nodule 2", "Nodule 3"}
    measured = two.bench.row(two.now[0]).measurements["volume_mm3"]
    assert rows[0].current is not None and rows[0].current.volume_mm3 == measured, "one volume in list and report"
    assert two.comparison.findings is not None and two.comparison.findings.scan.date == "2024-07-01"
    assert "no lungs" in " ".join(each.text for each in two.comparison.findings.scan.caveats)


def test_pairs_dates_and_uids(two: Two) -> None:
    two.run()
    assert two.pairs() == [
        ("Nodule 1", "old 1", "matched"),
        ("Nodule 2", "old 2", "matched"),
        ("Nodule 3", "old 3", "matched"),
        (None, "old 4", "gone"),
    ]
    course = two.comparison.findings.follow_up
    assert course.days == 182 and course.prior.date == "2024-01-01"
    node = two.bench.session.segmentationNode
    uids = [two.uid(node, each) for each in two.now]
    assert uids == [two.uid(two.priorNode, each) for each in two.before[:3]] and len(set(uids)) == 3
    gone = two.row("old 4")
    assert two.comparison.places(gone)[0] == pytest.approx(two.bench.ras(*GONE), abs=0.01)


def test_uids_and_what_was_parted_stay_with_the_segments_over_saves(two: Two, tmp_path: Path) -> None:
    two.run()
    two.comparison.part(two.row("Nodule 2"))
    node, now, before = two.bench.session.segmentationNode.GetName(), list(two.now), list(two.before)
    own = two.uid(two.bench.session.segmentationNode, now[1])
    uids = [two.uid(two.priorNode, each) for each in before]
    two.bench.scene.save(tmp_path / "scene.mrb")
    two.bench.scene.load(tmp_path / "scene.mrb")
    scene = two.bench.scene.scene
    segmentations = {each.GetName(): each for each in slicer.util.getNodesByClass("vtkMRMLSegmentationNode", scene)}
    assert [NoduleSegmentation(segmentations[node]).trackingUid(each) for each in now] == [uids[0], own, uids[2]]
    assert [NoduleSegmentation(segmentations["Before nodules"]).trackingUid(each) for each in before] == uids
    volumes = {each.GetName(): each for each in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode", scene)}
    two.bench.session.setVolume(volumes["CT"])
    two.comparison.setPrior(volumes["Before"])
    two.comparison.run()
    two.wait()
    assert ("Nodule 2", None, "new") in two.pairs() and (None, "old 2", "gone") in two.pairs(), "parted for good"
    two.comparison.startPairing()
    two.comparison.pick(two.row("Nodule 2"))
    two.comparison.pick(two.row("old 2"))
    assert ("Nodule 2", "old 2", "matched") in two.pairs()


def test_two_clicks_correct_a_pair(two: Two) -> None:
    two.run()
    two.comparison.startPairing()
    two.comparison.pick(two.row("Nodule 1"))
    two.comparison.pick(two.row("old 4"))
    assert not two.comparison.isPairing
    assert ("Nodule 1", "old 4", "matched") in two.pairs() and (None, "old 1", "gone") in two.pairs()
    pair = two.row("Nodule 1").pair
    assert pair is not None and pair.by_hand
    node = two.bench.session.segmentationNode
    assert two.uid(node, two.now[0]) == two.uid(two.priorNode, two.before[3])
    # measured anew, and by another comparison, the pair holds: the UIDs say so
    again = Comparison(two.bench.session)
    again.setPrior(two.priorVolume, two.priorNode)
    again.run()
    while again.isRunning:
        again.poll(0.02)
    found = {(_name(row.current), _name(row.prior)) for row in again.rows()}
    again.close(2.0)
    assert ("Nodule 1", "old 4") in found


def test_a_click_in_the_wrong_scan_makes_no_pair(two: Two) -> None:
    two.run()
    before = two.pairs()
    two.comparison.startPairing()
    two.comparison.pick(two.row("Nodule 1"), "current")
    two.comparison.pick(two.row("Nodule 2"), "current")
    assert two.comparison.isPairing and two.messages[-1][1] and "prior" in two.messages[-1][0]
    assert two.pairs() == before


def test_a_wrong_pair_is_parted_and_gets_another_uid(two: Two) -> None:
    two.run()
    two.comparison.part(two.row("Nodule 2"))
    assert ("Nodule 2", None, "new") in two.pairs() and (None, "old 2", "gone") in two.pairs()
    node = two.bench.session.segmentationNode
    assert two.uid(node, two.now[1]) not in (None, two.uid(two.priorNode, two.before[1]))


def test_click_here_makes_the_partner(two: Two) -> None:
    two.run()
    two.comparison.clickHere(two.row("old 4"))
    two.bench.settle()
    two.wait()
    row = two.row("old 4")
    assert row.current is not None and row.pair is not None and row.pair.status == "matched" and row.pair.by_hand
    assert len(two.bench.session.review.rows()) == 4


def test_places_pick_the_nodule_that_lies_there(two: Two) -> None:
    two.run()
    assert two.comparison.rowAt("prior", two.bench.ras(*GONE)) == two.row("old 4")
    assert two.comparison.rowAt("current", two.bench.ras(*GONE)) is None
    assert two.comparison.rowAt("current", two.bench.ras(*PLACES[1])) == two.row("Nodule 2")


def test_a_failed_registration_is_said_and_pairs_are_made_by_hand(bench: Bench) -> None:
    two = Two(bench)  # no lungs in there: the real registration fails
    two.run()
    assert {status for _now, _before, status in two.pairs()} == {"unmatched"}
    assert any("registration failed" in text and isError for text, isError in two.messages)
    two.comparison.startPairing()
    two.comparison.pick(two.row("old 3"))
    two.comparison.pick(two.row("Nodule 3"))
    assert ("Nodule 3", "old 3", "matched") in two.pairs()
    assert two.comparison.places(two.row("old 4"))[0] is None
    two.comparison.close(2.0)


def test_what_is_asked_and_refused(two: Two) -> None:
    comparison = two.comparison
    assert comparison.doubt() is None
    comparison.setPrior(two.bench.volume)
    with pytest.raises(InputError, match="same volume"):
        comparison.doubt()
    comparison.setPrior(two.priorVolume, two.priorNode)
    comparison.setDate(two.priorVolume, "2025-01-01")
    doubt = comparison.doubt()
    assert doubt is not None and doubt.kind == "swap"
    with pytest.raises(InputError, match="2024-05-31"):
        comparison.setDate(two.priorVolume, "31.5.2024")
    comparison.setPrior(two.bench.addVolume("bare"))
    comparison.run()
    assert not comparison.isRunning and "no segmentation" in two.messages[-1][0]
    comparison.setPrior(two.bench.addVolume("other"), two.priorNode)
    comparison.run()
    assert not comparison.isRunning and "belongs to Before" in two.messages[-1][0]


def test_names_that_differ_are_asked_and_other_modalities_refused(
    two: Two, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    def describe(volume: Any, name: str, date: str, modality: str = "CT") -> None:
        header = Dataset()
        header.SpecificCharacterSet, header.PatientName = "ISO_IR 192", name
        header.SOPClassUID, header.SOPInstanceUID = CTImageStorage, generate_uid()
        header.SeriesInstanceUID, header.Modality, header.SeriesDate = generate_uid(), modality, date
        header.Rows, header.Columns = volume.GetImageData().GetDimensions()[1::-1]
        header.file_meta = FileMetaDataset()
        header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        header.save_as(tmp_path / f"{header.SOPInstanceUID}", enforce_file_format=True)
        volume.SetAttribute("DICOM.instanceUIDs", f"{header.SOPInstanceUID} 1.2.3")

    database = types.SimpleNamespace(fileForInstance=lambda uid: str(tmp_path / uid))
    monkeypatch.setattr(slicer, "dicomDatabase", database, raising=False)
    two.comparison.setPrior(two.priorVolume, two.priorNode)
    describe(two.bench.volume, "Müller", "20240701")
    describe(two.priorVolume, "Meier", "20240101", "MR")
    with pytest.raises(InputError, match="Before is of modality MR: give a CT"):
        two.comparison.doubt()
    describe(two.priorVolume, "Meier", "20240101")
    assert two.comparison.dateOf(two.bench.volume) == ("2024-07-01", True)
    doubt = two.comparison.doubt()
    assert doubt is not None and doubt.kind == "patient" and "Meier" in doubt.text and "Müller" in doubt.text


def test_findings_follow_the_masks(two: Two) -> None:
    two.run()
    first = two.comparison.findings
    done: list[int] = []
    two.comparison.run(lambda: done.append(1))
    assert done == [1] and not two.comparison.isRunning and two.comparison.findings is first, "nothing has changed"
    two.bench.edit(two.now[0], two.bench.cubes([PLACES[0], (12, 8, 8)]))
    two.bench.settle()
    two.comparison.run(lambda: done.append(2))
    two.wait()
    assert done == [1, 2]
    row = two.row("Nodule 1")
    assert row.current is not None and row.prior is not None and row.current.volume_mm3 > 1.3 * row.prior.volume_mm3


def test_axes_by_hand_go_into_the_findings(two: Two, tmp_path: Path) -> None:
    two.run()
    bench, segmentId = two.bench, two.now[0]
    k, j, i = PLACES[0]
    ends = [[(k, j, i - 6), (k, j, i + 6)], [(k, j - 3, i), (k, j + 3, i)]]
    drawn = np.array([[bench.ras(*end) for end in axis] for axis in ends])
    volume = two.bench.session.volume
    known = dict(volume.record(segmentId).measurements) | {"slice_index": k, AXES: np.zeros((2, 2, 3)).tolist()}
    known[AXES][0][0] = volume.geometry.worldToLocal(drawn[0, 0]).tolist()
    volume.setMeasurements(segmentId, volume.writer.read(segmentId), known)
    volume.select(segmentId)
    bench.session._editor.drawAxes(segmentId, drawn, True)
    two.run()
    nodule = two.row("Nodule 1").shown
    assert nodule.diameters_by_hand and not two.row("Nodule 2").shown.diameters_by_hand
    assert (nodule.long_axis.length_mm, nodule.short_axis.length_mm) == (8.4, 4.2)
    assert (nodule.mean_diameter_mm, nodule.place.slice_number) == (6.3, k + 1)
    np.testing.assert_allclose(nodule.long_axis.end_ras, drawn[0, 1], atol=2e-3)
    # those of the model's output, of which the list tells: of the mask's voxels they are others
    other, block = two.now[1], volume.writer.read(two.now[1])
    ends = drawn + np.subtract(bench.ras(*PLACES[1]), bench.ras(*PLACES[0]))
    local = {AXES: volume.geometry.worldToLocal(ends).tolist(), "slice_index": PLACES[1][0]}
    volume.setMeasurements(other, block, {**volume.record(other).measurements, **local})
    two.run()
    found = two.row("Nodule 2").shown
    assert (found.long_axis.length_mm, found.mean_diameter_mm) == (8.4, 6.3) and not found.diameters_by_hand
    assert found.place.slice_number == PLACES[1][0] + 1
    two.comparison.save(tmp_path / "findings.json")
    two.wait()
    assert [each.diameters_by_hand for each in read_findings(tmp_path / "findings.json").nodules].count(True) == 1


def test_cancelling_keeps_what_was_there(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(_now: Any, _then: Any, _lungs: Any, progress: Callable[[int, int], object]) -> Registration:
        while True:
            time.sleep(0.002)
            progress(1, 10)

    monkeypatch.setattr(engine, "register", endless)
    two.comparison.setPrior(two.priorVolume, two.priorNode)
    two.comparison.run()
    heard: list[str] = []
    two.comparison.progressed.connect(lambda _done, _total, text: heard.append(text))
    end = time.monotonic() + 60
    while "Registering the prior with the current scan" not in heard:
        assert time.monotonic() < end
        two.comparison.poll(0.02)
    two.comparison.cancel()
    two.wait()
    assert two.comparison.findings is None and not any(isError for _text, isError in two.messages)


def test_documents(two: Two, tmp_path: Path) -> None:
    two.run()
    two.comparison.patient = Patient(62, True, False, True, False, False)
    uid = two.row("Nodule 1").shown.tracking_uid
    two.comparison.spiculated.add(uid)
    for name in ("page.html", "table.csv", "findings.json"):
        two.comparison.save(tmp_path / name)
        two.wait()
        assert two.messages[-1] == (f"Saved {tmp_path / name}.", False)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64") == 3 and "Brock model" in page
    text = two.comparison.text()
    assert text.count("Brock model") == 3 and text.count("spiculated") == 1
    saved = read_findings(tmp_path / "findings.json")
    assert saved.nodules == two.comparison.toldFindings().nodules
    two.comparison.save(tmp_path / "nowhere" / "page.html")
    two.wait()
    assert two.messages[-1][1] and "nowhere" in two.messages[-1][0]
    two.comparison.startPairing()
    for name in ("Nodule 1", "old 4"):
        two.comparison.pick(two.row(name))
    assert two.row("Nodule 1").shown.tracking_uid != uid, "it takes its partner's"
    two.comparison.setPrior(None)
    for prior in ((None, None), (two.priorVolume, two.priorNode)):
        two.comparison.setPrior(*prior)
        two.comparison.run()
        two.wait()
        (told,) = (each for each in two.comparison.toldFindings().nodules if "spiculated" in each.remarks[0])
        assert told.name == "Nodule 1", "what was marked stays marked"
    two.comparison.patient = dataclasses.replace(two.comparison.patient, age=7)
    two.comparison.save(tmp_path / "young.html")
    assert "18 to 120" in two.messages[-1][0] and not (tmp_path / "young.html").exists()


def test_dicom_of_a_volume_that_is_no_series_is_refused(two: Two, tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    two.run()
    two.comparison.saveDicom(tmp_path)
    two.wait()
    assert two.messages[-1][1] and "no DICOM series" in two.messages[-1][0] and not list(tmp_path.iterdir())
    two.bench.volume.SetAndObserveTransformNodeID(two.bench.scene.add_warp().GetID())
    two.comparison.saveDicom(tmp_path)
    assert two.messages[-1][1] and "non-linear" in two.messages[-1][0] and not two.comparison.isRunning


def test_dicom_of_a_series_bears_the_segments_uids(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("highdicom")
    from pydicom import dcmread

    array = np.full((8, 30, 24), -850, np.int16)
    matrix = np.diag([-0.7, -0.7, 2.0, 1.0])
    write_series(tmp_path / "series", array, matrix)
    files = {str(dcmread(file).SOPInstanceUID): file for file in (tmp_path / "series").iterdir()}
    database = types.SimpleNamespace(fileForInstance=lambda uid: str(files[uid]))
    monkeypatch.setattr(slicer, "dicomDatabase", database, raising=False)
    volume = bench.scene.add_volume(array, matrix)
    volume.SetAttribute("DICOM.instanceUIDs", " ".join(files))
    volume.SetAndObserveTransformNodeID(bench.scene.add_transform(MOVED).GetID())
    bench.session.setVolume(volume)
    segmentId = bench.click(4, 10, 12)
    comparison = Comparison(bench.session)
    comparison.run()
    messages: list[str] = []
    comparison.message.connect(lambda text, _isError: messages.append(text))
    for step in (lambda: None, lambda: comparison.saveDicom(tmp_path)):
        step()
        while comparison.isRunning:
            comparison.poll(0.02)
    comparison.close(2.0)
    assert messages == [f"Saved {tmp_path}."]
    uid = NoduleSegmentation(bench.session.segmentationNode).trackingUid(str(segmentId))
    seg = dcmread(tmp_path / "segmentation.dcm")
    assert [str(each.TrackingUID) for each in seg.SegmentSequence] == [uid]
    assert int(seg.pixel_array.sum()) == 125, "in the CT's own slices, wherever the volume was moved to"
    assert uid in str(dcmread(tmp_path / "measurements.dcm"))


def test_patient_data_that_dicom_needs_are_named_and_the_table_is_there(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("highdicom")
    array, matrix = np.full((8, 30, 24), -850, np.int16), np.diag([-0.7, -0.7, 2.0, 1.0])
    write_series(tmp_path / "Reihe größer", array, matrix, PatientID="", PatientBirthDate=None)
    file = next((tmp_path / "Reihe größer").iterdir())
    database = types.SimpleNamespace(fileForInstance=lambda uid: str(file))
    monkeypatch.setattr(slicer, "dicomDatabase", database, raising=False)
    volume = bench.scene.add_volume(array, matrix, "Müller, Änne")
    volume.SetAttribute("DICOM.instanceUIDs", "1.2.3")
    bench.session.setVolume(volume)
    bench.click(4, 10, 12)
    comparison = Comparison(bench.session)
    comparison.run()
    messages: list[tuple[str, bool]] = []
    comparison.message.connect(lambda *message: messages.append(message))
    out = tmp_path / "Ausgabe ü"
    out.mkdir()
    for step in (lambda: None, lambda: comparison.saveDicom(out), lambda: comparison.save(out / "Müller.csv")):
        step()
        while comparison.isRunning:
            comparison.poll(0.02)
    comparison.close(2.0)
    assert (
        messages[0][1] and "the CT's files lack PatientBirthDate, PatientID: export the series again" in messages[0][0]
    )
    assert messages[1] == (f"Saved {out / 'Müller.csv'}.", False) and [each.name for each in out.iterdir()] == [
        "Müller.csv"
    ]


def test_without_pytorch_it_says_what_is_missing(two: Two) -> None:
    two.bench.models.torch = False
    two.comparison.run()
    assert not two.comparison.isRunning and two.messages[-1][1] and "PyTorch" in two.messages[-1][0]


def test_opened_findings_lead_to_the_segments(two: Two, tmp_path: Path) -> None:
    two.run()
    two.comparison.save(tmp_path / "findings.json")
    two.wait()
    shown = two.pairs()
    other = Comparison(two.bench.session)
    other.setPrior(two.priorVolume, two.priorNode)
    two.bench.volume.SetAndObserveTransformNodeID(two.bench.scene.add_warp().GetID())  # nothing is measured for it
    other.open(tmp_path / "findings.json")
    assert [(_name(row.current), _name(row.prior), row.pair.status) for row in other.rows() if row.pair] == shown
    assert not other.hasMasks
    assert [other.segmentOf("current", row.current) for row in other.rows()[:3]] == two.now
    other.close(2.0)


def test_lobes_come_from_another_segmentation(two: Two) -> None:
    lobes = two.bench.scene.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "lobes")
    lobes.SetReferenceImageGeometryParameterFromVolumeNode(two.bench.volume)
    lower = "Left lower lobe, superior segment"
    halves = {"lung_upper_lobe_left": slice(18, 36), lower: slice(0, 18), "trachea": slice(0, 36)}
    for name, part in halves.items():
        segmentId = lobes.GetSegmentation().AddEmptySegment("", name)
        mask = np.zeros((36, 30, 32), np.uint8)
        mask[part] = 1
        SegmentWriter(lobes, two.bench.volume).write(segmentId, MaskBlock(mask, (0, 0, 0)))
    two.comparison.run()
    two.wait()
    found = {row.shown.name: row.shown.place.lobe for row in two.comparison.rows()}
    assert found == {"Nodule 1": "lower lobe", "Nodule 2": "lower lobe", "Nodule 3": "upper lobe"}


def test_figures_of_another_scale_are_not_told(two: Two) -> None:
    """The list's figures were measured before the CT came under a transform that doubles one axis."""
    two.comparison.run()
    two.wait()
    listed = two.row("Nodule 1").shown.volume_mm3
    node = two.bench.scene.add_transform(np.diag([2.0, 1.0, 1.0, 1.0]))
    two.bench.volume.SetAndObserveTransformNodeID(node.GetID())
    two.comparison.run()
    two.wait()
    voxels = int(two.bench.full(two.now[0]).sum())
    assert listed == voxels, "the bench's engine counts voxels"
    matrix = two.bench.session.volume.geometry.ijkToWorld
    assert two.row("Nodule 1").shown.volume_mm3 == pytest.approx(voxels * abs(np.linalg.det(matrix[:3, :3])))


# -- scans and nodules that change or go -------------------------------------------------------------------------------


def test_what_changes_after_the_comparison_is_noticed_and_measured_anew(two: Two) -> None:
    two.run()
    comparison, heard = two.comparison, []
    comparison.changed.connect(lambda: heard.append(comparison.isStale))
    two.bench.session.select(two.now[1])
    two.bench.session.review.show3d(True)
    two.bench.settle()
    comparison.part(two.row("Nodule 2"))
    assert not comparison.isStale, "nothing that was measured"
    heard.clear()
    two.bench.click(*PLACES[0])
    assert heard == [True]
    two.bench.session.undo()
    two.bench.settle()
    comparison.run()
    assert not comparison.isStale and not comparison.isRunning, "it is what it was"
    prior = NoduleSegmentation(two.priorNode)
    for change in (
        lambda: two.bench.volume.SetName("CT <heute>"),
        lambda: two.priorVolume.SetName("größer & älter"),
        lambda: comparison.setDate(two.priorVolume, "2023-01-01"),
        lambda: prior.segment(two.before[0]).SetName("umbenannt"),
        lambda: prior.setStatus(two.before[1], "reviewed"),
        lambda: prior.remove(two.before[3]),
    ):
        change()
        assert comparison.isStale
        two.run()
        assert not comparison.isStale
    findings = comparison.findings
    assert (findings.scan.name, findings.follow_up.prior.name) == ("CT <heute>", "größer & älter")
    assert findings.follow_up.days == 547 and ("Nodule 1", "umbenannt", "matched") in two.pairs()
    assert not any(before == "old 4" for _now, before, _status in two.pairs())


def test_transforms_move_both_and_a_mask_outside_of_its_volume_is_named(two: Two) -> None:
    two.run()
    before = two.pairs()
    transform = two.bench.scene.add_transform(MOVED)
    for node in (two.priorVolume, two.priorNode):
        node.SetAndObserveTransformNodeID(transform.GetID())
    assert two.comparison.isStale
    two.run()
    place = two.row("old 1").prior.place.centroid_ras
    assert place == pytest.approx(np.add(two.bench.ras(*PLACES[0]), (12.0, -7.0, 5.0)), abs=0.01)
    for node in (two.priorVolume, two.priorNode):
        node.HardenTransform()
    two.run()
    assert two.row("old 1").prior.place.centroid_ras == pytest.approx(place, abs=0.01)
    assert [each[:2] for each in two.pairs()] == [each[:2] for each in before]
    two.priorVolume.SetAndObserveTransformNodeID(transform.GetID())
    two.priorVolume.HardenTransform()
    two.run()
    assert two.messages[-1] == ("old 2 lies outside of Before: put both under one transform, or delete it.", True)


def test_nodules_that_were_deleted_are_named(two: Two) -> None:
    two.run()
    two.comparison.startPairing()
    two.comparison.pick(two.row("Nodule 1"))
    two.comparison.pick(two.row("old 4"))
    pair, gone = two.row("Nodule 1"), two.row("old 1")
    two.bench.session.review.delete(two.now[0])
    NoduleSegmentation(two.priorNode).remove(two.before[0])
    for act in (lambda: two.comparison.part(pair), lambda: two.comparison.clickHere(gone)):
        act()
        name = "Nodule 1" if two.messages[-1][0].startswith("Nodule") else "old 1"
        assert two.messages[-1] == (f"{name} is not in its segmentation any more: press Compare or Measure.", True)
    assert name == "old 1" and two.comparison.lost(two.row("Nodule 2")) == ""
    two.comparison.startPairing()
    two.comparison.pick(pair)
    assert two.messages[-1][0].startswith("Nodule 1 is not in its segmentation")
    two.run()
    assert two.pairs() == [("Nodule 2", "old 2", "matched"), ("Nodule 3", "old 3", "matched"), (None, "old 4", "gone")]


def test_scans_that_go_take_their_findings_along(two: Two) -> None:
    two.run()
    two.bench.scene.scene.RemoveNode(two.priorNode)
    assert two.pairs() == [] and two.comparison.prior == (two.priorVolume, None)
    two.comparison.run()
    assert "Before has no segmentation" in two.messages[-1][0]
    two.bench.scene.scene.RemoveNode(two.priorVolume)
    assert two.comparison.prior == (None, None)
    two.comparison.run()
    two.wait()
    assert len(two.comparison.rows()) == 3 and two.comparison.findings.follow_up is None
    two.bench.scene.scene.RemoveNode(two.bench.volume)
    assert two.comparison.findings is None
    two.comparison.run()
    assert two.messages[-1] == ("Choose a CT volume first.", True)


@pytest.mark.parametrize("end", ["volume", "prior", "segmentation", "scene", "file"])
def test_measurements_of_scans_that_went_meanwhile_are_dropped(two: Two, tmp_path: Path, end: str) -> None:
    two.run()
    two.comparison.save(tmp_path / "findings.json")
    two.wait()
    two.comparison.setPrior(None)
    other = createSegmentation(two.bench.addVolume("other"))
    two.comparison.setPrior(two.priorVolume, two.priorNode)
    two.comparison.run()
    two.messages.clear()
    {
        "volume": lambda: two.bench.session.setVolume(None),
        "prior": lambda: two.comparison.setPrior(None),
        "segmentation": lambda: two.comparison.setPrior(two.priorVolume, other),
        "scene": lambda: two.bench.scene.scene.Clear(0),
        "file": lambda: two.comparison.open(tmp_path / "findings.json"),
    }[end]()
    two.wait()
    assert not two.comparison.hasMasks and len(two.pairs()) == (4 if end == "file" else 0)
    assert not any(isError for _text, isError in two.messages)
    if end == "scene":
        assert two.comparison.prior == (None, None)


def test_corrections_hold_when_another_prior_was_compared_in_between(two: Two) -> None:
    two.run()
    two.comparison.startPairing()
    two.comparison.pick(two.row("Nodule 1"))
    two.comparison.pick(two.row("old 4"))
    two.comparison.part(two.row("Nodule 2"))
    corrected = two.pairs()
    first = two.priorVolume, two.priorNode
    two.priorVolume = two.another("Older")
    two.priorNode = createSegmentation(two.priorVolume)
    for number, place in enumerate(PLACES, start=1):
        two._add(f"older {number}", place)
    two.run()
    assert [each[1:] for each in two.pairs()] == [(f"older {number}", "matched") for number in (1, 2, 3)]
    two.priorVolume, two.priorNode = first
    two.run()
    assert sorted(map(str, two.pairs())) == sorted(map(str, corrected)) and two.row("Nodule 1").pair.by_hand


def test_one_scan_is_not_compared_with_itself(two: Two) -> None:
    own = two.bench.session.segmentationNode
    two.comparison.setPrior(two.bench.volume)
    two.comparison.run()
    assert not two.comparison.isRunning and "the same volume" in two.messages[-1][0]
    own.SetNodeReferenceID(own.GetReferenceImageGeometryReferenceRole(), None)
    two.comparison.setPrior(two.priorVolume, own)
    two.comparison.run()
    assert not two.comparison.isRunning and "holds the nodules of the current scan" in two.messages[-1][0]


def test_a_copy_of_the_scan_is_no_prior(two: Two) -> None:
    two.priorVolume = two.bench.addVolume("Copy")
    two.priorNode = createSegmentation(two.priorVolume)
    two.run()
    assert two.comparison.findings is None
    assert two.messages[-1] == ("both scans hold the same voxels: give the prior of another date", True)


def test_values_that_are_no_numbers_count_as_air_and_are_named(two: Two) -> None:
    array = np.full((36, 30, 32), -800.0, np.float32)
    array[8, 8, 8], array[20, 0, :] = np.nan, np.inf
    volume = two.bench.scene.add_volume(array, name="holes")
    volume.CopyOrientation(two.bench.volume)
    two.priorVolume, two.priorNode = volume, createSegmentation(volume)
    two._add("old 1", PLACES[0])
    two.run()
    row = two.row("old 1")
    assert row.prior.mean_hu == pytest.approx(-800.0 - 224.0 / 125.0) and row.pair.volume.percent_interval.low < 0.0
    assert "prior: 33 voxels are no numbers (NaN, infinite): they count as air" in two.comparison.text()
    assert np.isnan(slicer.util.arrayFromVolume(volume)[8, 8, 8]), "the volume is as it was"


def test_no_nodules_are_said(two: Two) -> None:
    empty = two.another("empty")
    two.comparison.setPrior(empty, createSegmentation(empty))
    two.bench.session.setVolume(two.bench.addVolume("empty now"))
    two.comparison.run()
    two.wait()
    assert two.messages[-1] == ("There are no nodules in either scan.", False)
    two.comparison.setPrior(None)
    two.comparison.run()
    two.wait()
    assert two.messages[-1] == ("There are no nodules in the CT.", False)
    assert "No nodules." in two.comparison.text()


def test_two_clicks_at_expected_places_make_two_pairs(two: Two) -> None:
    two._add("old 5", (14, 22, 20))
    two.run()
    for name in ("old 4", "old 5"):
        two.comparison.clickHere(two.row(name))
    two.bench.settle()
    two.wait()
    for name in ("old 4", "old 5"):
        row = two.row(name)
        assert row.current is not None and row.pair.by_hand


# -- two rows of views -------------------------------------------------------------------------------------------------


def test_two_rows_show_both_scans_at_one_place(two: Two) -> None:
    scene = two.bench.scene.scene
    layouts = slicer.vtkMRMLLayoutLogic()
    layouts.SetMRMLScene(scene)
    layout = scene.GetFirstNodeByClass("vtkMRMLLayoutNode")
    layout.SetViewArrangement(layout.SlicerLayoutFourUpView)
    rows = TwoRows()
    segmentation = two.bench.session.segmentationNode
    assert rows.show((segmentation, None), two.priorVolume, (two.priorNode,)) and rows.isShown
    assert layout.GetViewArrangement() == LAYOUT
    views = {node.GetLayoutName(): node for node in slicer.util.getNodesByClass("vtkMRMLSliceNode", scene)}
    assert set(views) >= {*CURRENT_VIEWS, *PRIOR_VIEWS}
    assert [views[name].GetOrientation() for name in PRIOR_VIEWS] == ["Axial", "Coronal", "Sagittal"]
    layers = {
        node.GetLayoutName(): node.GetBackgroundVolumeID()
        for node in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode", scene)
    }
    assert [layers[name] for name in PRIOR_VIEWS] == [two.priorVolume.GetID()] * 3
    rows.jump((1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
    place = {name: [node.GetSliceToRAS().GetElement(axis, 3) for axis in range(3)] for name, node in views.items()}
    assert place["Red"] == pytest.approx([1.0, 2.0, 3.0])
    assert all(place[name] == pytest.approx([4.0, 5.0, 6.0]) for name in PRIOR_VIEWS)
    shown = {name: views[name].GetID() for name in views}
    display = two.priorNode.GetDisplayNode()
    assert set(display.GetViewNodeIDs()) == {shown[name] for name in PRIOR_VIEWS}
    assert not set(segmentation.GetDisplayNode().GetViewNodeIDs()) & {shown[name] for name in PRIOR_VIEWS}
    # a scene that is saved meanwhile does not keep it
    scene.InvokeEvent(scene.StartSaveEvent)
    assert not display.GetViewNodeIDs()
    scene.InvokeEvent(scene.EndSaveEvent)
    assert set(display.GetViewNodeIDs()) == {shown[name] for name in PRIOR_VIEWS}
    rows.close()
    assert layout.GetViewArrangement() == layout.SlicerLayoutFourUpView and not display.GetViewNodeIDs()


def test_without_a_main_window_there_are_no_rows(two: Two) -> None:
    rows = TwoRows()
    assert not rows.show((), two.priorVolume, (two.priorNode,)) and not rows.isShown
    rows.jump((0.0, 0.0, 0.0), None)
    rows.close()
