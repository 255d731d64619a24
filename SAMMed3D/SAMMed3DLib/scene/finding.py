"""*Segment all*: the search, the choice of the found nodules that are shown, and its one step in the history.

All found nodules stay in memory with their masks, and with the scene in an attribute of the segmentation; the
sensitivity decides which are segments. Whatever the user touched is a nodule like any other and no longer follows the
sensitivity.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Any

import numpy as np
import slicer
import slicer.util

from ..signal import Signal
from ..translation import tr as _
from ..worker.requests import FoundNodule, Generate, Generated, Progress, Result, Segmented, Start
from .nodule_editor import NoduleEditor
from .nodule_segmentation import AI
from .nodule_state import NoduleSnapshot, digest
from .open_volume import told
from .undo_stack import NoduleChange
from .volume_geometry import SceneError, VolumeGeometry

#: A found nodule that shares more than this part of its voxels with another nodule is not shown.
_SHARED = 0.3


@dataclass(eq=False)
class ListedNodule:
    """One found nodule.

    Attributes:
        found: the engine's answer.
        number: for its name.
        segmentId: of its segment, None before it was first shown.
        hidden: the segment as it was when the sensitivity took it off, None while it is shown (or was never shown).
    """

    found: FoundNodule
    number: int
    segmentId: str | None = None
    hidden: NoduleSnapshot | None = None

    @cached_property
    def _values(self) -> dict[str, Any]:
        """The engine's answer as JSON values, without the state that saves the next click an encoding."""
        found = self.found
        bits = zlib.compress(np.packbits(found.mask != 0).tobytes())
        return {
            "mask": base64.b64encode(bits).decode("ascii"),
            "shape": [int(length) for length in found.mask.shape],
            "offset": [int(start) for start in found.offset_kji],
            "score": float(found.score),
            "iou": None if found.predicted_iou is None else float(found.predicted_iou),
            "shownFrom": None if found.shown_from is None else float(found.shown_from),
            "measurements": dict(found.measurements),
        }

    def toDict(self) -> dict[str, Any]:
        """Returns JSON values."""
        segmentId = None if self.hidden is not None else self.segmentId
        return {**self._values, "number": self.number, "segmentId": segmentId}

    @classmethod
    def fromDict(cls, values: Mapping[str, Any]) -> ListedNodule:
        """Makes it from JSON values. Raises ValueError, TypeError, KeyError or zlib.error where they cannot be read."""
        k, j, i = (int(length) for length in values["shape"])
        bits = np.frombuffer(zlib.decompress(base64.b64decode(values["mask"])), dtype=np.uint8)
        mask = np.unpackbits(bits, count=k * j * i).reshape(k, j, i)
        a, b, c = (int(start) for start in values["offset"])
        measurements, shown = dict(values["measurements"]), values["shownFrom"]
        found = FoundNodule(mask, (a, b, c), float(values["score"]), values["iou"], measurements, None, shown)
        return cls(found, int(values["number"]), values["segmentId"])


class CandidateRun:
    """The candidates of a run, the likeliest first.

    Args:
        found: the nodules that the engine found.
        previous: the run before, which counts again when this one is undone; default: none.
        firstNumber: the names of its segments count from here, in the order of finding, whatever the sensitivity; in
            that of the list once the search is over.

    Attributes:
        change: its step in the history.
    """

    def __init__(
        self, found: Iterable[FoundNodule] = (), previous: CandidateRun | None = None, firstNumber: int = 1
    ) -> None:
        self.candidates: list[ListedNodule] = []
        self.previous = self if previous is None else previous
        self.change = NoduleChange("", {})
        self.firstNumber = self._next = firstNumber
        self.update(tuple(found))

    def update(self, found: Sequence[FoundNodule], firstNumber: int = 1) -> list[ListedNodule]:
        """Takes the search's present candidates, new ones numbered from ``firstNumber`` at least; returns those that
        are no longer among them."""
        known = {id(one.found): one for one in self.candidates}
        gone = [one for one in self.candidates if all(one.found is not nodule for nodule in found)]
        self._next = max(self._next, firstNumber)
        self.candidates = []
        for nodule in sorted(found, key=lambda nodule: -nodule.score):
            one = known.get(id(nodule)) or ListedNodule(nodule, self._next)
            self._next = max(self._next, one.number + 1)
            self.candidates.append(one)
        return gone

    def toText(self, shapeKji: Sequence[int]) -> str:
        """Returns the text to keep with a scene; "" for a run without candidates."""
        if not self.candidates:
            return ""
        candidates = [one.toDict() for one in self.candidates]
        values = {"volume": [int(length) for length in shapeKji], "candidates": candidates}
        return json.dumps(values, separators=(",", ":"))

    @classmethod
    def fromText(cls, text: str, shapeKji: Sequence[int]) -> CandidateRun:
        """Reads what :meth:`toText` wrote; makes an empty run where it is of other voxels or cannot be read."""
        run = cls()
        try:
            values = json.loads(text)
            if [int(length) for length in values["volume"]] == [int(length) for length in shapeKji]:
                run.candidates = [ListedNodule.fromDict(one) for one in values["candidates"]]
        except (ValueError, TypeError, KeyError, zlib.error):
            run.candidates = []
        return run

    def plan(
        self,
        sensitivity: float,
        exists: Callable[[str], bool],
        isTouched: Callable[[str], bool],
        isConcealed: Callable[[str], bool] = lambda _segmentId: False,
    ) -> tuple[list[ListedNodule], list[ListedNodule]]:
        """Decides which candidates to show and which to hide.

        Args:
            sensitivity: 0 to 1.
            exists: whether a segment is there.
            isTouched: whether the user has done something with it.
            isConcealed: whether it is there, but about to be taken off.

        Returns:
            (to show, to hide), each the likeliest first. Candidates whose segment the user deleted stay away.
        """
        show, hide = [], []
        for one in self.candidates:
            isWanted = one.found.is_shown_at(sensitivity)
            if one.segmentId is not None and exists(one.segmentId):
                if isWanted and isConcealed(one.segmentId):
                    show.append(one)
                elif not isWanted and not isTouched(one.segmentId):
                    hide.append(one)
            elif isWanted and (one.segmentId is None or one.hidden is not None):
                show.append(one)
        return show, hide

    def positionOf(self, candidate: ListedNodule, exists: Callable[[str], bool]) -> str | None:
        """Returns the segment before which a candidate is listed: that of the next candidate that is shown."""
        after = self.candidates[self.candidates.index(candidate) + 1 :]
        return next((one.segmentId for one in after if one.segmentId is not None and exists(one.segmentId)), None)


def overlapsAny(block: Any, others: Sequence[Any]) -> bool:
    """Whether a block shares much of its voxels, or of theirs, with one of the others."""
    low = np.asarray(block.offset_kji)
    high = low + block.mask.shape
    voxels = int(np.count_nonzero(block.mask))
    for other in others:
        start = np.maximum(low, other.offset_kji)
        end = np.minimum(high, np.asarray(other.offset_kji) + other.mask.shape)
        if np.any(end <= start):
            continue
        windows = (
            one.mask[tuple(slice(int(a), int(b)) for a, b in zip(start - o, end - o, strict=True))] != 0
            for one, o in ((block, low), (other, np.asarray(other.offset_kji)))
        )
        common = int(np.count_nonzero(np.logical_and(*windows)))
        if common > _SHARED * min(voxels, int(np.count_nonzero(other.mask))):
            return True
    return False


class Finding:
    """Finds all nodules of an open volume, and shows more or fewer of them.

    What the sensitivity takes off is out of sight at once. Segments are made and removed one at a time, from
    :meth:`work`, so that no turn of the event loop takes long.

    Attributes:
        ended: Signal(segmentId): a search is over, and this is the likeliest of the new nodules; None without any.
        wasSearched: the latest search came to its end, or was stopped with what it had found.
    """

    def __init__(self, editor: NoduleEditor) -> None:
        self.ended = Signal()
        self.volume = editor.volume
        self._editor = editor
        self._pipeline = editor.pipeline
        self.wasSearched = False
        self._generation: int | None = None
        self._run = CandidateRun()
        self._growing: CandidateRun | None = None
        self._todo: deque[tuple[ListedNodule, bool]] = deque()
        self._afterwards: deque[Callable[[], None]] = deque()
        self._ending: tuple[str, bool, int] | None = None
        self._moved = False
        self._reopen()

    def _reopen(self) -> None:
        """Restores the candidates of a scene that was opened again."""
        if self.volume.segmentationNode is None:
            return
        try:
            self._run = CandidateRun.fromText(self.volume.segmentation.found(), self.volume.geometry.shapeKji)
        except SceneError:
            return  # the volume cannot be used, which others say

    # -- the search --------------------------------------------------------------------------------------------------

    @property
    def isRunning(self) -> bool:
        """Whether nodules are being looked for."""
        return self._generation is not None

    @told
    def start(self) -> None:
        """Finds all nodules, with progress; reviewed ones and ones with points are kept. A running search goes on."""
        geometry = self.volume.geometry
        self.wasSearched = self.wasSearched and self.isRunning
        if self.isRunning:
            return
        detector = self._pipeline.models.detector if self.volume.options.thorough else None
        if detector is None and self.volume.options.thorough:
            raise SceneError(_("The detector of the thorough search is not here: get it in the Model section."))
        if not self._pipeline.ensure(geometry):
            return
        keep = [self.volume.writer.read(segmentId) for segmentId in self.volume.nodules if self.isKept(segmentId)]
        request = Generate(
            geometry.identity(),
            [one for one in keep if not one.isEmpty],
            {},
            geometry.ijkToWorld,
            None if detector is None else str(detector),
        )
        self._generation = self._pipeline.submit(request, self._onResult)

    def stop(self) -> None:
        """Ends the search; what was found so far is shown."""
        self._pipeline.stop(self._generation)

    def close(self) -> None:
        """Stops waiting for an answer; earlier findings that the search had not come to come back."""
        self._pipeline.drop(self._generation)
        growing, self._growing = self._growing, None
        isKept, self._afterwards = not self._afterwards, deque()
        with suppress(SceneError):
            if (growing is not None and growing is self._run and self._keepOld(growing)) or not isKept:
                self._keep()

    def isKept(self, segmentId: str) -> bool:
        """Whether a nodule stays when nodules are looked for again: true of every one that somebody has touched."""
        volume = self.volume
        state, record = volume.nodules[segmentId], volume.record(segmentId)
        isAsMade = record.probability is not None and not record.isTouched and not state.prompts
        if not isAsMade or volume.segmentation.status(segmentId) != AI:
            return True
        if state.block is None:
            volume.adopt(segmentId)
        isAsFound = volume.record(segmentId).mask == digest(state.block)  # also in a reopened scene
        return (state.isForeign and not isAsFound) or volume.writer.wasEdited(segmentId)

    @told
    def onProgress(self, progress: Progress) -> None:
        """Shows what the search has found by now."""
        isOwn = progress.generation == self._generation and progress.value is not None
        if isOwn and progress.request.identity == self.volume.geometry.identity():
            self._take(progress.value)

    def _onResult(self, result: Result) -> None:
        if result.generation != self._generation:
            return
        self._generation = None
        growing, self._growing = self._growing, None
        if result.error is not None:
            self.volume.message(result.error, True)
            if growing is not None and growing is self._run and self._keepOld(growing):
                self._plan()
                self.volume.refreshList()
        elif result.request.identity != self.volume.geometry.identity():
            self.volume.message(_("The volume has changed meanwhile: start Segment all again."), True)
        elif result.value is None or (growing is not None and growing is not self._run):  # it was undone meanwhile
            self.volume.message(_("The search was canceled."), False)
        elif result.cancelled and growing is None and not result.value.found:
            self.wasSearched = True
            self.volume.message(_("The search was canceled before it found a nodule."), False)
        else:
            self._growing = growing
            self.wasSearched = True
            self._take(result.value, result)
            self._growing = None

    def _take(self, generated: Generated, result: Result | None = None) -> None:
        """Shows found nodules; the first of them begins a step of the history and removes earlier, untouched ones.

        ``result``: of a search that is over; where it was cut short, earlier ones that it had not come to come back.
        """
        volume = self.volume
        if self._growing is None:
            self._growing = self._begin()
        run = self._growing
        own = {one.segmentId for one in run.candidates if one.segmentId is not None}
        others = [each for each in list(volume.nodules) if each not in own or self.isKept(each)]
        kept = [volume.writer.read(segmentId) for segmentId in others]
        known = {id(one.found) for one in run.candidates}
        found = [one for one in generated.found if id(one) in known or not overlapsAny(one, kept)]
        gone = run.update(found, volume.nextNumber())
        if run is not self._run:
            return
        for one in gone:
            if one.segmentId is not None and self._exists(one.segmentId) and one.segmentId not in others:
                volume.remove(one.segmentId)
        if result is not None:
            self._ending = (generated.note, result.cancelled, self._keepOld(run) if result.cancelled else 0)
            self._renumber(run)
        self._plan()
        volume.refreshList()

    def _renumber(self, run: CandidateRun) -> None:
        """Numbers the candidates that nobody has touched in the order of the list, now that it is complete."""
        volume = self.volume
        if volume.segmentationNode is None:
            return
        segments, naming = volume.segmentation, volume.segmentation.naming
        own = [
            one
            for one in run.candidates
            if one.segmentId is None
            or (one.hidden is None and self._exists(one.segmentId) and not self.isKept(one.segmentId))
        ]
        renamed = {one.segmentId for one in own}
        taken = {
            naming.numberOf(segments.segment(each).GetName() or "") for each in segments.ids if each not in renamed
        }
        numbers = (number for number in count(run.firstNumber) if number not in taken)
        with volume.changing():
            for one, number in zip(own, numbers):  # noqa: B905  # there is no end to numbers
                if one.segmentId is not None:
                    segment = segments.segment(one.segmentId)
                    if segment.GetName() == naming.nameOf(one.number):
                        segment.SetName(naming.nameOf(number))
                one.number = number

    def _begin(self) -> CandidateRun:
        """Begins a run without candidates, as a step of the history."""
        volume = self.volume
        old = [segmentId for segmentId in list(volume.nodules) if not self.isKept(segmentId)]
        run = CandidateRun((), self._run, volume.nextNumber(without=old))
        before = {segmentId: volume.snapshot(segmentId) for segmentId in old}
        run.change = self._editor.step(_("Segment all"), before, _RunInHistory(self, run))
        for segmentId in old:
            volume.remove(segmentId)
        self._run = run
        return run

    def _keepOld(self, run: CandidateRun) -> int:
        """Brings back earlier findings that were not found again by now, for the slider too; returns how many.

        Raises SceneError.
        """
        volume = self.volume
        if volume.volumeNode is None or volume.segmentationNode is None:
            return 0
        known = [one.found for one in run.candidates]
        others = [*known, *(volume.writer.read(segmentId) for segmentId in volume.nodules)]
        gone = {
            segmentId: snapshot
            for segmentId, snapshot in run.change.before.items()
            if snapshot is not None and segmentId not in volume.nodules
        }
        kept = [
            one
            for one in run.previous.candidates
            # not one that the user has deleted, or touched
            if (one.segmentId is None or one.hidden is not None or one.segmentId in gone)
            and not overlapsAny(one.found, others)
        ]
        run.update([*known, *(one.found for one in kept)], volume.nextNumber())
        own = {id(one.found): one for one in run.candidates}
        for one in kept:
            if one.hidden is None and one.segmentId is not None:
                again = own[id(one.found)]
                again.segmentId = one.segmentId
                taken = {volume.segmentation.segment(segmentId).GetName() for segmentId in volume.nodules}
                segment = volume.restore(gone[one.segmentId]).segment
                if segment.GetName() in taken:
                    with volume.changing():
                        segment.SetName(volume.segmentation.naming.nameOf(again.number))
                following = run.positionOf(again, self._exists)
                if following is not None:
                    volume.moveBefore(one.segmentId, following)
        return len(kept)

    def _tell(self, note: str, wasStopped: bool, kept: int) -> None:
        """Tells the user how the search ended, with the engine's note on it, and how many earlier ones were kept."""
        shown, found = self.counts
        found -= kept
        if found and wasStopped:
            text = _("{found} nodules found until the search was canceled, {shown} shown.")
        elif found:
            text = _("{found} nodules found, {shown} shown: accept or reject them; the slider shows more or fewer.")
        else:
            text = _("The search was canceled before it found a nodule.") if wasStopped else _("No nodules were found.")
        if kept:
            note = " ".join([_("{kept} of an earlier search are kept.").format(kept=kept), note])
        self.volume.message(" ".join([text.format(found=found, shown=shown), note]).strip(), False)

    # -- the slider --------------------------------------------------------------------------------------------------

    @property
    def hasCandidates(self) -> bool:
        """Whether there are candidates that the slider shows or hides."""
        return bool(self._run.candidates)

    @property
    def counts(self) -> tuple[int, int]:
        """Numbers of candidates of the latest search: (shown, found)."""
        return len(self.shownIds), len(self._run.candidates)

    @property
    def _shown(self) -> list[ListedNodule]:
        concealed = self.volume.concealed
        return [one for one in self._run.candidates if one.segmentId in self.volume.nodules.keys() - concealed.keys()]

    @property
    def shownIds(self) -> list[str]:
        """Segment IDs of the candidates that are shown, the likeliest first."""
        return [one.segmentId for one in self._shown if one.segmentId is not None]

    @told
    def setSensitivity(self, sensitivity: float) -> None:
        """Shows more (towards 1) or fewer (towards 0) of the found nodules, without computing anything again."""
        self.volume.options.sensitivity = min(1.0, max(0.0, float(sensitivity)))
        if self.hasCandidates:
            self._plan(moved=True)

    def use(self, run: CandidateRun) -> None:
        """Lets the slider decide on the candidates of this run; a search whose step was undone ends."""
        if self._run is self._growing and run is not self._run:
            self.stop()
        self._run = run
        self._keep()

    def _keep(self) -> None:
        """Stores the candidates with the scene."""
        if self.volume.segmentationNode is not None:
            with self.volume.changing():
                self.volume.segmentation.setFound(self._run.toText(self.volume.geometry.shapeKji))

    def _exists(self, segmentId: str) -> bool:
        return segmentId in self.volume.nodules

    def _plan(self, moved: bool = False) -> None:
        volume = self.volume
        show, hide = self._run.plan(
            volume.options.sensitivity, self._exists, self.isKept, lambda segmentId: segmentId in volume.concealed
        )
        # At once, and in one change of the display: to the eye that is all that happens.
        volume.reveal([one.segmentId for one in show if one.segmentId is not None])
        volume.conceal([one.segmentId for one in hide if one.segmentId is not None])
        self._todo = deque([(one, False) for one in hide] + [(one, True) for one in show])
        self._moved = self._moved or (moved and bool(self._todo))
        if not self._todo:
            self._done()
        elif hide:
            volume.refreshList()

    @property
    def hasWork(self) -> bool:
        """Whether :meth:`work` has something to do."""
        return bool(self._todo or self._afterwards)

    def work(self) -> None:
        """Shows or hides one candidate, or does one of the things that come afterwards."""
        if not self._todo:
            self._afterwards.popleft()()
            return
        candidate, show = self._todo.popleft()
        try:
            if show:
                self._show(candidate)
            elif candidate.segmentId is not None:
                candidate.hidden = self._unconcealed(candidate.segmentId)
                self.volume.remove(candidate.segmentId)
        except SceneError as error:
            self._todo.clear()
            self.volume.message(str(error), True)
        if not self._todo:
            self._done()

    def _unconcealed(self, segmentId: str) -> NoduleSnapshot | None:
        """The snapshot of a nodule as it was before it was hidden."""
        snapshot, wasVisible = self.volume.snapshot(segmentId), self.volume.concealed.get(segmentId)
        if snapshot is None or wasVisible is None:
            return snapshot
        return dataclasses.replace(snapshot, segment=dataclasses.replace(snapshot.segment, visible=wasVisible))

    def pause(self) -> None:
        """Stops showing and hiding until the sensitivity changes."""
        self._todo.clear()
        self.volume.reveal(list(self.volume.concealed))
        while self._afterwards:
            self._afterwards.popleft()()

    def _done(self) -> None:
        """What comes after showing and hiding, in turns of its own: each draws, or fills the list."""
        self._afterwards = deque((self._keep, self.volume.refreshList, self._end))

    def _end(self) -> None:
        volume = self.volume
        moved, self._moved = self._moved, False
        if self._ending is not None:
            ending, self._ending = self._ending, None
            self._tell(*ending)
            self.ended(max(self._shown, key=lambda one: one.found.score).segmentId if self._shown else None)
        elif moved:
            shown, found = self.counts
            volume.message(_("{shown} of {found} found nodules are shown.").format(shown=shown, found=found), False)

    def _show(self, candidate: ListedNodule) -> None:
        volume, found = self.volume, candidate.found
        if candidate.segmentId is not None and self._exists(candidate.segmentId):
            return  # it was about to be taken off, and is in sight again
        if candidate.hidden is not None:
            volume.restore(candidate.hidden)
            candidate.hidden = None
            return
        state = volume.addNodule(candidate.number)
        candidate.segmentId = segmentId = state.segmentId
        self._run.change.before.setdefault(segmentId, None)
        # The origin spares the first click an encoding.
        state.start = Start(found.mask, found.offset_kji, found.origin)
        volume.setRecord(segmentId, probability=found.score)
        answer = Segmented(found.mask, found.offset_kji, found.predicted_iou, found.measurements, 0)
        isUnmeasured = volume.write(segmentId, answer)
        following = self._run.positionOf(candidate, self._exists)
        if following is not None:
            volume.moveBefore(segmentId, following)
        if isUnmeasured:
            self._editor.measure(segmentId)


def volumesOf(scene: Any) -> list[Any]:
    """Lists the volumes of a scene in which nodules can be looked for."""
    found = []
    for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode", scene):
        with suppress(SceneError):
            VolumeGeometry(node)
            found.append(node)
    return found


class VolumeQueue:
    """Volumes to be searched one after the other, and the results.

    Attributes:
        home: the volume to come back to.
        current: the one that is being searched, None before the first.
        failed: names of those that could not be searched.
    """

    def __init__(self, home: Any, volumes: Sequence[Any]) -> None:
        self.home, self.current, self.failed = home, None, list[str]()
        self._waiting = deque((node, node.GetName() or "") for node in volumes)
        self._name = ""
        self._total, self._done, self._found = len(volumes), 0, 0
        self._isStopped = False

    def next(self) -> Any | None:
        """Returns the next volume that is still in the scene, None where there is no more."""
        self.current = None
        while self._waiting and self.current is None:
            node, self._name = self._waiting.popleft()
            if node.GetScene() is None:
                self.failed.append(self._name)
            else:
                self.current = node
        return self.current

    def finish(self, isSearched: bool, shown: int) -> None:
        """Notes that the search in the current volume is over; one that was cut short counts its nodules alone."""
        if not isSearched:
            self.failed.append(self._name)
            return
        self._done += not self._isStopped
        self._found += shown

    def stop(self) -> None:
        """Ends the queue after the current volume."""
        self._isStopped = True
        self._waiting.clear()

    @property
    def position(self) -> str:
        """Says which volume of how many is being searched."""
        number = self._total - len(self._waiting)
        return _("{number} of {total}, {name}").format(number=number, total=self._total, name=self._name)

    @property
    def summary(self) -> str:
        """Sums up the results in a sentence."""
        text = _("{found} nodules shown in {done} of {total} volumes.")
        if self._isStopped:
            text = _("Canceled: {found} nodules shown in {done} of {total} volumes.")
        said = text.format(found=self._found, done=self._done, total=self._total)
        if self.failed:
            said += " " + _("Not searched: {names}.").format(names=", ".join(self.failed))
        return said


class _RunInHistory:
    """Tells a run when its step is undone and redone: the slider works only in between."""

    def __init__(self, owner: Finding, run: CandidateRun) -> None:
        self._owner = owner
        self._run = run
        self._isDone = True

    def onRestored(self, change: NoduleChange) -> None:
        """The step was undone or redone; ``change`` leads back."""
        self._run.change = change
        self._isDone = not self._isDone
        self._owner.use(self._run if self._isDone else self._run.previous)
