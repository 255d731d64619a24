"""Compares the open volume's nodules with those of a prior scan in the scene, as findings."""

from __future__ import annotations

import dataclasses
import datetime
import re
import uuid
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import slicer
import slicer.util
from numpy.typing import NDArray

from ..inference.errors import InputError, PredictionCancelled
from ..report.findings import Caveat, Findings, Nodule, Pair, Point, Scan, read_findings, tracking_uid, without_names
from ..signal import Signal
from ..translation import tr as _
from ..worker.requests import AXES, FunctionRequest, Report, RequestCancelled, Result
from ..worker.thread import Client
from .beside_volume import ownerOf
from .input_gate import dicomFile, seriesUid
from .nodule_segmentation import NoduleSegmentation, findSegmentation
from .nodule_state import SegmentRecord, digest
from .segment_writer import BINARY_LABELMAP, SegmentLabelmap, SegmentWriter, segmentationToWorld
from .states import State
from .volume_geometry import SceneError, VolumeGeometry

if TYPE_CHECKING:
    from ..finding.lungs import LungMask
    from ..report.follow_up import Registration
    from ..report.measuring import MeasuredScan
    from ..report.rules import Patient

#: Attribute of a volume node: its date where its file has none, ISO 8601.
DATE_ATTRIBUTE = "SAMMed3D.Date"

Side = Literal["current", "prior"]

#: Words in the names of lobes' segments, and the lobe; the side is the nodule's own.
_LOBES = (
    (re.compile(r"middle|\brml\b", re.I), "middle lobe"),
    (re.compile(r"upper|\b[rl]ul\b", re.I), "upper lobe"),
    (re.compile(r"lower|\b[rl]ll\b", re.I), "lower lobe"),
    # after these: a lower lobe has a superior segment
    (re.compile(r"superior", re.I), "upper lobe"),
    (re.compile(r"inferior", re.I), "lower lobe"),
)
_LOBE = re.compile(r"lobe|\b[rl][uml]l\b|lung.*(upper|middle|lower|superior|inferior)", re.I)


@dataclass(frozen=True)
class Doubt:
    """A question to the user before two scans are compared: whether to swap them, or if they are of one patient."""

    kind: Literal["swap", "patient"]
    text: str


@dataclass(frozen=True)
class Row:
    """One line of the table: a nodule now, before, or both."""

    current: Nodule | None
    prior: Nodule | None
    pair: Pair | None

    @property
    def shown(self) -> Nodule:
        """The newer of the two."""
        nodule = self.current or self.prior
        assert nodule is not None
        return nodule


@dataclass(frozen=True, eq=False)
class _Taken:
    """The input of one scan's measurement, taken from the scene at one moment.

    Attributes:
        image: identifies the voxels and their place in the world.
        key: identifies everything that the findings depend on.
        array_kji: a view of the scene's memory, copied on the worker thread.
        segments: the arguments of each :class:`..report.measuring.Segment`, whose module needs PyTorch.
        ids: segment IDs by the labels of the segments.
    """

    scan: Scan
    image: tuple[Hashable, ...]
    key: Hashable
    array_kji: NDArray
    ijk_to_world: NDArray
    path: Path | None
    segments: tuple[tuple[Any, ...], ...]
    ids: Mapping[int, str]


@dataclass(frozen=True, eq=False)
class _Measured:
    """The worker thread's answer: the measured scans and their registration."""

    taken: tuple[_Taken, ...]
    scans: tuple[MeasuredScan, ...]
    registration: Registration | None


class Comparison:
    """Measures the nodules of the session's volume and of a prior volume, and pairs them.

    All methods belong to the main thread. The measuring and the registration run on the client's thread: while
    :attr:`busyChanged` has last said True, :meth:`poll` must be called. Masks, points and dates are read again for each
    output, and measured again where they have changed.

    Attributes (signals):
        changed: () rows, pairing or prior.
        progressed: (done, total, text).
        message: (text, isError).
        busyChanged: (bool).
    """

    def __init__(self, session: Any, client: Client | None = None) -> None:
        self._session = session
        self._client = client if client is not None else Client()
        self.changed, self.progressed, self.message = Signal(), Signal(), Signal()
        self.busyChanged = self._client.busyChanged
        self._client.progressed.connect(self._onProgress)
        session.noduleChanged.connect(self._onNoduleChanged)
        session.nodulesChanged.connect(self._onNodulesChanged)
        session.documentChanged.connect(self._onDocumentChanged)
        self._opened = self.current
        self._prior: tuple[Any, Any] = (None, None)
        self._lungs: dict[Hashable, LungMask] = {}
        self._registration: tuple[Hashable, Registration] | None = None
        self._measured: _Measured | None = None
        self._findings: Findings | None = None
        self._isRunning = self._isMeasuring = self._isStale = False
        self._stamped: Hashable = None
        self._then: Callable[[], None] | None = None
        self._pairs: dict[tuple[str, ...], dict[str, str]] = {}
        self._awaited: dict[str, str] = {}
        self._picked: tuple[Side, str] | None = None
        self.isPairing = False
        self.patient: Patient | None = None
        #: Tracking UIDs of the nodules that the user marked.
        self.spiculated: set[str] = set()
        self.upper: set[str] = set()
        self._scene = slicer.mrmlScene
        self._tag = self._scene.AddObserver(self._scene.NodeRemovedEvent, lambda *_event: self._onNodeRemoved())

    def close(self, seconds: float) -> None:
        """Releases all nodes and the worker thread; nothing can be called after this."""
        self._session.noduleChanged.disconnect(self._onNoduleChanged)
        self._session.nodulesChanged.disconnect(self._onNodulesChanged)
        self._session.documentChanged.disconnect(self._onDocumentChanged)
        self._scene.RemoveObserver(self._tag)
        self._client.progressed.disconnect(self._onProgress)
        self._client.close(seconds)
        self._prior = (None, None)
        self._lungs, self._registration, self._pairs = {}, None, {}
        self._drop()

    def poll(self, timeout: float = 0.005) -> bool:
        """Takes the worker thread's answers; see Client.poll."""
        return self._client.poll(timeout)

    # -- the scans ---------------------------------------------------------------------------------------------------

    @property
    def current(self) -> tuple[Any, Any]:
        """Volume and segmentation node of the current scan: the session's."""
        return self._session.volumeNode, self._session.segmentationNode

    @property
    def prior(self) -> tuple[Any, Any]:
        """Volume and segmentation node of the prior scan; None without."""
        return self._prior

    def setPrior(self, volumeNode: Any, segmentationNode: Any = None) -> None:
        """Chooses the prior; without a segmentation, the volume's own nodules."""
        if volumeNode is not None and segmentationNode is None:
            segmentationNode = findSegmentation(volumeNode)
        if (volumeNode, segmentationNode) != self._prior:
            self._prior = volumeNode, segmentationNode
            self._drop()
            self.changed()

    def _onNodeRemoved(self) -> None:
        """Gives up a prior that has left the scene."""
        volume, segmentation = self._prior
        if volume is not None and volume.GetScene() is None:
            self.setPrior(None)
        elif segmentation is not None and segmentation.GetScene() is None:
            self.setPrior(volume)

    def _onDocumentChanged(self) -> None:
        """Forgets the findings of another volume or segmentation, unless the first click made the segmentation."""
        before, self._opened = self._opened, self.current
        if before[0] is not self._opened[0] or before[1] not in (None, self._opened[1]):
            self._drop()
            self.spiculated, self.upper = set(), set()
        self.changed()

    def _drop(self) -> None:
        """Forgets the findings, and stops measuring: they would be of other scans. Documents are written to the end."""
        if self._isMeasuring:
            self._client.cancel()
            self._isMeasuring = False
        self._measured = self._findings = self._then = self._picked = None
        self._awaited = {}
        self.isPairing = self._isStale = False

    def dateOf(self, volumeNode: Any) -> tuple[str, bool]:
        """Returns a scan's date, "" if unknown, and whether it comes from the file (else the user may set it)."""
        if volumeNode is None:
            return "", False
        try:
            date = _header(volumeNode).date
        except SceneError:
            return "", False
        return (date, True) if date else (volumeNode.GetAttribute(DATE_ATTRIBUTE) or "", False)

    def setDate(self, volumeNode: Any, text: str) -> None:
        """Sets the date of a scan whose file has none: ISO 8601, "" for unknown. Raises InputError."""
        text = text.strip()
        if text:
            try:
                text = datetime.date.fromisoformat(text).isoformat()
            except ValueError as error:
                raise InputError(_("{date} is no date: write it as 2024-05-31.").format(date=text)) from error
        if (volumeNode.GetAttribute(DATE_ATTRIBUTE) or "") != text:
            volumeNode.SetAttribute(DATE_ATTRIBUTE, text or None)

    def doubt(self) -> Doubt | None:
        """Returns the question to ask before comparing. Raises InputError, SceneError where they cannot be."""
        from ..report.scan_facts import check_modality, check_scans, days_between

        scans = [_facts(volume) for volume, _segmentation in self._scans()]
        for scan in scans:
            check_modality(scan)
        if len(scans) < 2:
            return None
        days = days_between(scans[1].date, scans[0].date)
        if days is not None and days < 0:
            text = _("The prior ({prior}) is newer than the current scan ({current}). Swap them?")
            return Doubt("swap", text.format(prior=scans[1].date, current=scans[0].date))
        odd = check_scans(scans[0], scans[1])
        if odd:
            return Doubt("patient", _("{reasons}. Compare them all the same?").format(reasons="; ".join(odd)))
        return None

    def _scans(self) -> list[tuple[Any, Any]]:
        """The current scan, and the prior where one is chosen. Raises InputError where the two are one."""
        if self._prior[0] is None:
            return [self.current]
        if self.current[0] is self._prior[0]:
            raise InputError(_("Current and prior are the same volume: choose the prior scan."))
        if self.current[1] is not None and self.current[1] is self._prior[1]:
            raise InputError(
                _("{name} holds the nodules of the current scan: choose the prior's own nodules.").format(
                    name=self._prior[1].GetName()
                )
            )
        return [self.current, self._prior]

    # -- measuring and pairing ---------------------------------------------------------------------------------------

    @property
    def isRunning(self) -> bool:
        """Whether something is being measured or written."""
        return self._isRunning

    @property
    def findings(self) -> Findings | None:
        """Findings of the current scan, with the follow-up where there is a prior; None before measuring or opening."""
        return self._findings

    @property
    def hasMasks(self) -> bool:
        """Whether the findings are of the scans at hand, not from a file."""
        return self._measured is not None

    @property
    def isStale(self) -> bool:
        """Whether scans or nodules are no longer what was measured."""
        if self._measured is not None and not self._isStale and not self._isMeasuring:
            stamp = self._stamp()
            if stamp != self._stamped:
                self._stamped = stamp
                try:
                    self._isStale = not self._isOf(self._take())
                except (SceneError, InputError):
                    self._isStale = True
        return self._isStale

    def _stamp(self) -> Hashable:
        return _stampOf(*self.current), _stampOf(*self._prior)

    def _isOf(self, taken: Sequence[_Taken]) -> bool:
        """Whether the findings are of these very scans and masks."""
        return self._measured is not None and [each.key for each in taken] == [
            each.key for each in self._measured.taken
        ]

    def rows(self) -> list[Row]:
        """Returns the rows of the table: the pairs, then the nodules without a partner."""
        findings = self._findings
        if findings is None:
            return []
        if findings.follow_up is None:
            return [Row(nodule, None, None) for nodule in findings.nodules]
        return [
            Row(findings.nodule(pair.current_uid), findings.prior_nodule(pair.prior_uid), pair)
            for pair in findings.follow_up.pairs
        ]

    def run(self, then: Callable[[], None] | None = None) -> None:
        """Measures the current scan, and compares it with the prior where one is chosen.

        Args:
            then: called when it is done; not after an error or Cancel.
        """
        if self._isRunning:
            return
        if self._session.state is State.NO_TORCH:  # volumes are sampled by it
            self.message(self._session.stateText, True)
            return
        stamp = self._stamp()
        try:
            taken = self._take()
        except (SceneError, InputError) as error:
            self.message(str(error), True)
            return
        isSame, self._stamped = self._isOf(taken), stamp
        self._isStale = self._measured is not None and not isSame
        if isSame:
            self.changed()
            if then is not None:
                then()
            return
        self._then = then
        lungs = dict(self._lungs)
        known = self._registration
        self._isMeasuring = True
        self._submit(lambda report: _measure(taken, lungs, known, report), self._onMeasured)

    def cancel(self) -> None:
        """Stops the running work; earlier findings stay."""
        self._client.cancel()

    def _take(self) -> tuple[_Taken, ...]:
        volume, segmentation = self.current
        if volume is None:
            raise InputError(_("Choose a CT volume first."))
        if any(row.isPending for row in self._session.review.rows()):
            raise InputError(_("A nodule is still being computed: try again in a moment."))
        if len(self._scans()) < 2:
            return (_taken(volume, segmentation),)
        if self._prior[1] is None:
            raise InputError(
                _("{name} has no segmentation: choose it as CT, segment its nodules, then come back.").format(
                    name=self._prior[0].GetName()
                )
            )
        owner = ownerOf(self._prior[1])
        if owner not in (None, self._prior[0]):
            raise InputError(
                _("The segmentation {name} belongs to {owner}, not to {prior}: choose the prior's own nodules.").format(
                    name=self._prior[1].GetName(), owner=owner.GetName(), prior=self._prior[0].GetName()
                )
            )
        return _taken(volume, segmentation), _taken(*self._prior)

    def _submit(self, function: Callable[[Report], Any], onResult: Callable[[Any], None]) -> None:
        self._isRunning = True
        self._client.submit(FunctionRequest(function), lambda result: self._onResult(result, onResult))
        self.changed()

    def _onResult(self, result: Result, onResult: Callable[[Any], None]) -> None:
        self._isRunning = False
        if onResult == self._onMeasured and not self._isMeasuring:
            result = dataclasses.replace(result, value=None, error=None, cancelled=True)  # dropped meanwhile
        self._isMeasuring = False
        if result.error is not None or result.cancelled:
            self._then = None
        if result.error is not None:
            self.message(result.error, True)
        elif not result.cancelled:
            onResult(result.value)
        self.changed()
        self._joinAwaited()

    def _onMeasured(self, value: _Measured) -> None:
        self._measured, self._isStale = value, False
        self._lungs = {each.image: scan.lungs for each, scan in zip(value.taken, value.scans, strict=True)}
        if value.registration is not None:
            self._registration = (tuple(each.image for each in value.taken), value.registration)
        self._pair()
        if not self.rows():
            none = _("There are no nodules in the CT."), _("There are no nodules in either scan.")
            self.message(none[len(value.taken) - 1], False)
        then, self._then = self._then, None
        if then is not None:
            then()

    def _pair(self) -> None:
        """Makes the findings from the measurements and the user's pairs; their UIDs are stored with the segments."""
        measured = self._measured
        if measured is None:
            return
        findings = measured.scans[0].findings
        if measured.registration is not None:
            from ..report.follow_up import follow_up, scan_extent

            now, then = measured.scans
            findings = follow_up(
                now.findings,
                then.findings,
                measured.registration,
                self._uids(self._byHand.items()),
                (scan_extent(now.array_kji, now.ijk_to_ras), scan_extent(then.array_kji, then.ijk_to_ras)),
                self._apart(),
            )
            if measured.registration.prior_to_current is None:
                self.message(measured.registration.message, True)
        self._findings = findings
        nodes = (self.current[1], self._prior[1])
        lists = (findings.nodules, measured.scans[-1].findings.nodules)
        renamed: dict[str | None, str] = {}
        for number, taken in enumerate(measured.taken):
            segments = NoduleSegmentation(nodes[number])
            there = set(segments.ids) if nodes[number] is not None else set()
            for nodule in lists[number]:
                segmentId = taken.ids[nodule.label]
                if segmentId in there:
                    if number == 0:
                        renamed[segments.trackingUid(segmentId)] = nodule.tracking_uid
                    segments.setTrackingUid(segmentId, nodule.tracking_uid)
        self.spiculated, self.upper = (
            {renamed.get(uid, uid) for uid in marked} for marked in (self.spiculated, self.upper)
        )
        self.changed()

    @property
    def _byHand(self) -> dict[str, str]:
        """Pairs that the user made of these two segmentations, also when others were compared in between."""
        key = tuple("" if node is None else node.GetID() for node in (self.current[1], self._prior[1]))
        return self._pairs.setdefault(key, {})

    def _apart(self) -> list[tuple[str, str]]:
        """Pairs that the user parted: UIDs of the measured nodules and of others, which need not be here."""
        assert self._measured is not None
        segments, measured = NoduleSegmentation(self.current[1]), self._measured
        there = set(segments.ids) if self.current[1] is not None else set()
        ids = {
            nodule.tracking_uid: measured.taken[0].ids[nodule.label] for nodule in measured.scans[0].findings.nodules
        }
        return [(uid, other) for uid, each in ids.items() if each in there for other in segments.apartFrom(each)]

    def _uids(self, pairs: Any) -> list[tuple[str, str]]:
        """Converts pairs of segment IDs to pairs of the measured nodules' UIDs; segments that are gone are left out."""
        assert self._measured is not None
        known = [
            {taken.ids[nodule.label]: nodule.tracking_uid for nodule in scan.findings.nodules}
            for taken, scan in zip(self._measured.taken, self._measured.scans, strict=True)
        ]
        return [(known[0][a], known[1][b]) for a, b in pairs if a in known[0] and b in known[1]]

    def segmentOf(self, side: Side, nodule: Nodule | None) -> str | None:
        """Returns the ID of a nodule's segment; None where there is none (any more)."""
        if nodule is None:
            return None
        node = (self.current if side == "current" else self._prior)[1]
        if node is None or node.GetScene() is None:
            return None
        segments = NoduleSegmentation(node)
        return next((each for each in segments.ids if segments.trackingUid(each) == nodule.tracking_uid), None)

    def lost(self, row: Row) -> str:
        """Says that a measured nodule of a row is not in its segmentation any more; "" where all are."""
        sides: tuple[tuple[Side, Nodule | None], ...] = (("current", row.current), ("prior", row.prior))
        for side, nodule in sides if self.hasMasks else ():
            if nodule is not None and self.segmentOf(side, nodule) is None:
                text = _("{name} is not in its segmentation any more: press Compare or Measure.")
                return text.format(name=nodule.name)
        return ""

    def startPairing(self) -> None:
        """Begins pairing: the next two nodules that are picked, one in each scan, become a pair."""
        self.isPairing, self._picked = True, None
        self.message(
            _("Click a nodule in one scan, then the same one in the other: in the table or in the views."), False
        )
        self.changed()

    def stopPairing(self) -> None:
        """Ends pairing."""
        if self.isPairing:
            self.isPairing, self._picked = False, None
            self.changed()

    def pick(self, row: Row, side: Side | None = None) -> None:
        """Takes a clicked nodule as half of the pair that is being made.

        Args:
            row: its row.
            side: of the scan that was clicked; None (in the table): the nodule that fits what was picked before.
        """
        if not self.isPairing or self._measured is None:
            return
        if side is None:
            wanted: Side = "prior" if self._picked is not None and self._picked[0] == "current" else "current"
            side = wanted if getattr(row, wanted) is not None or self._picked is not None else "prior"
        segmentId = self.segmentOf(side, getattr(row, side))
        if segmentId is None and getattr(row, side) is not None:
            self.message(self.lost(row), True)
            return
        if segmentId is None or (self._picked is not None and self._picked[0] == side):
            where = _("prior") if self._picked is not None and self._picked[0] == "current" else _("current")
            self.message(_("Click a nodule of the {which} scan.").format(which=where), True)
            return
        if self._picked is None:
            self._picked = side, segmentId
            other = _("prior") if side == "current" else _("current")
            name = getattr(row, side).name
            self.message(
                _("{name}: now click the same nodule in the {other} scan.").format(name=name, other=other), False
            )
            return
        now, then = (self._picked[1], segmentId) if side == "prior" else (segmentId, self._picked[1])
        self.isPairing, self._picked = False, None
        self._join(now, then)
        self._pair()
        self.message(_("Paired by hand."), False)

    def _join(self, current: str, prior: str) -> None:
        for other in [a for a, b in self._byHand.items() if b == prior]:
            del self._byHand[other]
        self._byHand[current] = prior
        segments, uid = NoduleSegmentation(self.current[1]), NoduleSegmentation(self._prior[1]).trackingUid(prior)
        segments.setApartFrom(current, segments.apartFrom(current) - {uid or ""})

    def part(self, row: Row) -> None:
        """Splits the pair of a row."""
        now, then = self.segmentOf("current", row.current), self.segmentOf("prior", row.prior)
        if self._measured is None or now is None or then is None:
            self.message(self.lost(row), True)
            return
        self._byHand.pop(now, None)
        segments, uid = NoduleSegmentation(self.current[1]), NoduleSegmentation(self._prior[1]).trackingUid(then)
        segments.setApartFrom(now, segments.apartFrom(now) | {uid or ""})
        self._pair()

    def rowAt(self, side: Side, ras: Sequence[float]) -> Row | None:
        """The nodule of a scan at a place (world RAS, mm) or next to it; None where there is none."""
        best, least = None, np.inf
        for row in self.rows():
            nodule = getattr(row, side)
            if nodule is not None:
                away = float(np.linalg.norm(np.subtract(nodule.place.centroid_ras, ras)))
                if away < min(least, 0.5 * nodule.long_axis.length_mm + 3.0):
                    best, least = row, away
        return best

    # -- places ------------------------------------------------------------------------------------------------------

    @staticmethod
    def places(row: Row) -> tuple[Point | None, Point | None]:
        """Returns where a row's nodule lies, or should lie, in the current and in the prior scan; world RAS, mm."""
        expected = row.pair.expected_ras if row.pair is not None else None
        return (
            row.current.place.centroid_ras if row.current is not None else expected,
            row.prior.place.centroid_ras if row.prior is not None else expected,
        )

    def clickHere(self, row: Row) -> None:
        """Clicks where a nodule of the prior should lie in the current scan, and pairs it with the resulting nodule."""
        prior = self.segmentOf("prior", row.prior)
        place = self.places(row)[0]
        if row.current is not None or place is None or prior is None:
            self.message(self.lost(row), True)
            return
        segmentId = self._session.click(place, True, self._session.NEW)
        if segmentId is not None:
            self._awaited[segmentId] = prior

    def _onNoduleChanged(self, _segmentId: str) -> None:
        self._joinAwaited()
        self._noteChange()

    def _onNodulesChanged(self) -> None:
        there = {row.segmentId for row in self._session.review.rows()} if self._awaited else set()
        self._awaited = {now: then for now, then in self._awaited.items() if now in there}
        self._noteChange()

    def _joinAwaited(self) -> None:
        """Pairs the nodules that were clicked at expected places, once all of them are answered."""
        if self._awaited and not self._isRunning and not any(row.isPending for row in self._session.review.rows()):
            for now, then in self._awaited.items():
                self._join(now, then)
            self._awaited = {}
            self.run()

    def _noteChange(self) -> None:
        if not self._isStale and self.isStale:
            self.changed()

    # -- documents ---------------------------------------------------------------------------------------------------

    def toldFindings(self, names: bool = True) -> Findings | None:
        """Returns the findings with the user's entries on the patient, as for documents; None before measuring.

        Raises:
            InputError: the Brock model refuses the age.
        """
        findings = self._findings
        if findings is None:
            return None
        if self.patient is not None:
            from ..report.rules import brock_remark

            count = len(findings.nodules)
            nodules = tuple(
                dataclasses.replace(each, remarks=(*each.remarks, brock_remark(each, self._patientOf(each), count)))
                for each in findings.nodules
            )
            findings = dataclasses.replace(findings, nodules=nodules)
        return findings if names else without_names(findings)

    def _patientOf(self, nodule: Nodule) -> Patient:
        assert self.patient is not None
        uid = nodule.tracking_uid
        upper = uid in self.upper or nodule.place.lobe == "upper lobe"
        return dataclasses.replace(self.patient, spiculation=uid in self.spiculated, upper_lobe=upper)

    def text(self, names: bool = True) -> str:
        """The findings as plain text. Raises InputError."""
        from ..report.document import as_text

        findings = self.toldFindings(names)
        return "" if findings is None else as_text(findings)

    def save(self, path: Path, names: bool = True) -> None:
        """Write a document, in the background: .html, .pdf, .csv, .txt or .json, as the ending says."""
        self._write(lambda findings, report: _document(path, findings, self._measured, report), path, names)

    def saveDicom(self, folder: Path) -> None:
        """Write DICOM SEG and SR into a folder, in the background. They are of the CT's patient."""
        try:
            geometry = VolumeGeometry(self.current[0])
        except SceneError as error:
            self.message(str(error), True)
            return
        self._write(lambda findings, report: _dicom(folder, findings, self._measured, geometry.ijkToRas), folder, True)

    def _write(self, write: Callable[[Findings, Report], None], path: Path, names: bool) -> None:
        try:
            findings = self.toldFindings(names)
        except InputError as error:
            self.message(str(error), True)
            return
        if findings is None or self._isRunning:
            return
        self._submit(
            lambda report: write(findings, report),
            lambda _value: self.message(_("Saved {path}.").format(path=path), False),
        )

    def open(self, path: Path) -> None:
        """Shows findings from a file, whose pairs cannot be changed. Raises InputError."""
        findings = read_findings(path)
        volume = self.current[0]
        self._drop()
        self.spiculated, self.upper = set(), set()
        self._findings = findings
        self.changed()
        if volume is None:
            return
        uid = ""
        with suppress(SceneError):  # a volume that cannot be measured has a name all the same
            uid = seriesUid(volume)
        told = findings.scan.series_uid or ""
        if uid != told or (not uid and volume.GetName() != findings.scan.name):
            text = _("These findings are of {scan}, the chosen CT is {volume}: places may not fit.")
            self.message(text.format(scan=findings.scan.name, volume=volume.GetName()), True)

    def _onProgress(self, progress: Any) -> None:
        texts = {
            "lungs": _("Finding the lungs"),
            "nodules": _("Measuring nodules"),
            "registration": _("Registering the prior with the current scan"),
            "drawing": _("Drawing"),
        }
        self.progressed(progress.done, progress.total, texts.get(progress.text, ""))


# -- out of the scene --------------------------------------------------------------------------------------------------


def _header(volumeNode: Any) -> Scan:
    """Describes a scan by its header. Raises SceneError."""
    from ..report.scan_facts import scan_of

    geometry = VolumeGeometry(volumeNode)
    return scan_of(geometry.array(), geometry.ijkToWorld, volumeNode.GetName(), dicomFile(volumeNode))


def _facts(volumeNode: Any) -> Scan:
    """Describes a scan by its header, with the user's date where the header has none. Raises SceneError."""
    scan = _header(volumeNode)
    return scan if scan.date else dataclasses.replace(scan, date=volumeNode.GetAttribute(DATE_ATTRIBUTE) or None)


def _stampOf(volumeNode: Any, segmentationNode: Any) -> Hashable:
    """Makes a key that changes, at least, with whatever a measurement takes from the scene; no voxel is read for it."""
    try:
        geometry = VolumeGeometry(volumeNode)
        place = segmentationToWorld(segmentationNode).tobytes() if segmentationNode is not None else b""
    except SceneError:
        return None
    found: list[Hashable] = [volumeNode.GetName(), volumeNode.GetAttribute(DATE_ATTRIBUTE)]
    found += [geometry.identity(), geometry.ijkToWorld.tobytes(), place]
    nodules = NoduleSegmentation(segmentationNode)
    for segmentId in nodules.ids if segmentationNode is not None else ():
        segment = nodules.segment(segmentId)
        labelmap = segment.GetRepresentation(BINARY_LABELMAP)
        known = SegmentRecord.fromDict(nodules.record(segmentId)).measurements
        figures = str([known.get(name) for name in ("volume_mm3", "diameters", AXES)])
        time = 0 if labelmap is None else labelmap.GetMTime()
        found.append((segmentId, segment.GetName(), nodules.status(segmentId), time, figures))
    return tuple(found)


def _taken(volumeNode: Any, segmentationNode: Any) -> _Taken:
    """Takes a scan and its masks as they are now. Raises SceneError."""
    geometry, scan = VolumeGeometry(volumeNode), _facts(volumeNode)
    image = (*geometry.identity(), geometry.ijkToWorld.tobytes())
    segments, ids, names = [], {}, []
    if segmentationNode is not None:
        nodules, writer = NoduleSegmentation(segmentationNode), SegmentWriter(segmentationNode, volumeNode)
        lobes = _lobes(segmentationNode, geometry)
        uids: set[str] = set()
        for label, segmentId in enumerate(nodules.ids, start=1):
            block = writer.read(segmentId)
            if block.isEmpty:
                if writer.isOutside(segmentId):
                    text = _("{name} lies outside of {volume}: put both under one transform, or delete it.")
                    raise SceneError(
                        text.format(name=nodules.segment(segmentId).GetName(), volume=volumeNode.GetName())
                    )
                continue
            uid = nodules.trackingUid(segmentId)
            if uid is None or uid in uids:  # a segment that was copied has its original's
                uid = tracking_uid(uuid.uuid4().hex)
            uids.add(uid)
            name, status = nodules.segment(segmentId).GetName(), nodules.status(segmentId)
            lobe, known = _lobeOf(block, lobes), SegmentRecord.fromDict(nodules.record(segmentId))
            measured = known.measurements if known.isOf(block, geometry.scale()) else {}
            axes = measured.get(AXES)
            ends = None if not axes else geometry.localToWorld(axes)
            segments.append((label, name, block, uid, status, lobe, measured, ends))
            ids[label] = segmentId
            names.append((segmentId, name, status, lobe, digest(block), measured.get("volume_mm3"), str(axes)))
    key = (image, scan, tuple(names))
    array, matrix = geometry.array(), geometry.ijkToWorld
    return _Taken(scan, image, key, array, matrix, dicomFile(volumeNode), tuple(segments), ids)


def _lobes(own: Any, geometry: VolumeGeometry) -> list[tuple[str, SegmentLabelmap]]:
    """Returns the lobes in other segmentations of the scene."""
    found = []
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode", own.GetScene()):
        if node is own:
            continue
        for segmentId in node.GetSegmentation().GetSegmentIDs():
            name = (node.GetSegmentation().GetSegment(segmentId).GetName() or "").replace("_", " ")
            lobe = next((lobe for words, lobe in _LOBES if words.search(name)), None)
            if lobe is not None and _LOBE.search(name):
                labelmap = SegmentLabelmap(node, segmentId, geometry)
                if not labelmap.isEmpty:
                    found.append((lobe, labelmap))
    return found


def _lobeOf(block: Any, lobes: Sequence[tuple[str, SegmentLabelmap]]) -> str | None:
    """Returns the lobe that holds the most of a nodule; None where none holds a third of it."""
    inside = np.asarray(block.mask) != 0
    counts = [np.count_nonzero(each.region(block.offset_kji, inside.shape) & inside) for _lobe, each in lobes]
    best = int(np.argmax(counts)) if counts else 0
    return lobes[best][0] if counts and 3 * counts[best] >= np.count_nonzero(inside) else None


# -- on the worker thread ----------------------------------------------------------------------------------------------


class _Share:
    """Reports one part of the progress; returns False where the user cancels."""

    def __init__(self, report: Report, begin: float, end: float, text: str) -> None:
        self._report, self._begin, self._end, self._text = report, begin, end, text
        self(0, 1)

    def __call__(self, done: int, total: int) -> bool:
        share = self._begin + (self._end - self._begin) * min(done / max(total, 1), 1.0)
        if not self._report(round(1000 * share), 1000, self._text):
            raise RequestCancelled
        return True


def _measure(
    taken: tuple[_Taken, ...],
    lungs: dict[Hashable, LungMask],
    known: tuple[Hashable, Registration] | None,
    report: Report,
) -> _Measured:
    """Measures one scan or two, and registers the prior to the current one."""
    from ..torch_setup.loading import load_torch

    load_torch()
    from ..finding.lungs import find_lungs
    from ..inference.validation import air_for_nonsense
    from ..report.follow_up import register
    from ..report.measuring import MeasuredScan, Segment, measure_scan
    from ..report.scan_facts import DENSITY, MASS, TYPE, check_copy, scan_of

    scans, count = [], len(taken)
    if count == 2:
        check_copy(taken[0].array_kji, taken[1].array_kji)
    try:
        for number, each in enumerate(taken):
            begin, width = 0.5 * number / count, 0.5 / count
            array, segments = np.array(each.array_kji), tuple(Segment(*one) for one in each.segments)
            air = air_for_nonsense(array)
            found = _Share(report, begin, begin + 0.6 * width, "lungs")
            mask = lungs.get(each.image) or find_lungs(array, each.ijk_to_world, found)
            facts = scan_of(array, each.ijk_to_world, each.scan.name, each.path, mask)
            odd = (Caveat(air, (DENSITY, MASS, TYPE)),) if air else ()
            facts = dataclasses.replace(facts, date=each.scan.date, caveats=(*facts.caveats, *odd))
            told = _Share(report, begin + 0.6 * width, begin + width, "nodules")
            findings = measure_scan(facts, array, each.ijk_to_world, segments, mask, "segments in 3D Slicer", told)
            scans.append(MeasuredScan(array, each.ijk_to_world, each.path, mask, segments, findings))
        registration = None
        if count == 2:
            key = tuple(each.image for each in taken)
            if known is not None and known[0] == key:
                registration = known[1]
            else:
                steps = _Share(report, 0.5, 1.0, "registration")
                pairs = [(scan.array_kji, scan.ijk_to_ras) for scan in scans]
                registration = register(pairs[0], pairs[1], (scans[0].lungs, scans[1].lungs), steps)
    except PredictionCancelled as stop:
        raise RequestCancelled from stop
    return _Measured(taken, tuple(scans), registration)


def _document(path: Path, findings: Findings, measured: _Measured | None, report: Report) -> None:
    """Writes one document, with pictures where matplotlib and the masks are there. Raises InputError."""
    from ..report import document
    from ..report.findings import write_findings

    ending = path.suffix.lower()
    if ending in (".html", ".pdf"):
        pictures: dict[str, bytes] = {}
        if measured is not None:
            try:
                from ..report.pictures import pictures_of
            except ImportError as error:
                if ending == ".pdf":
                    raise InputError("a PDF needs matplotlib: install it, or save a page (.html)") from error
            else:
                _Share(report, 0.0, 1.0, "drawing")
                pictures = pictures_of(findings, measured.scans[0], (*measured.scans, None)[1])
        (document.write_html if ending == ".html" else document.write_pdf)(path, findings, pictures)
    elif ending == ".json":
        write_findings(path, findings)
    elif ending == ".csv":
        document.write_csv(path, findings)
    elif ending == ".txt":
        document.write_text(path, findings)
    else:
        raise InputError(f"{path} cannot be written: the name must end in .html, .pdf, .csv, .txt or .json")


def _dicom(folder: Path, findings: Findings, measured: _Measured | None, ijkToRas: NDArray) -> None:
    """Writes both objects, in the CT's own coordinates. Raises InputError."""
    from ..report.dicom_objects import write_seg_and_sr

    if not findings.nodules or measured is None:
        raise InputError("there are no nodules to write")
    if measured.scans[0].path is None:
        raise InputError(
            "the CT is no DICOM series: load it from Slicer's DICOM module. Page and table can be saved all the same"
        )
    scan = dataclasses.replace(measured.scans[0], ijk_to_ras=ijkToRas)
    write_seg_and_sr(folder / "segmentation.dcm", folder / "measurements.dcm", findings, scan.segments, scan)
