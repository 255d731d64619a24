"""The session: everything between the user's clicks and the segments, without a widget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from ..signal import Signal
from .nodule_table import NoduleRow
from .states import State

Point = Sequence[float]


class ModelProvider(Protocol):
    """What the session must know about the chosen model; asked again at each use, so it may change."""

    @property
    def path(self) -> Path | None:
        """The chosen checkpoint file, None while there is none."""

    @property
    def device(self) -> str:
        """"auto", "cpu", "cuda", ..."""

    @property
    def precision(self) -> str:
        """"auto", "fp32", "bf16" or "fp16"."""

    def torchInstalled(self) -> bool:
        """Whether ``import torch`` would work; must not import it (importlib.util.find_spec does)."""


class Session:
    """The one object behind the widget, the logic for scripts and the self-test.

    All methods belong to the main thread and return at once; points are world RAS, mm. While :attr:`busyChanged` has
    last said True, :meth:`poll` must be called every 5 ms or so.

    Args:
        worker: an :class:`SAMMed3DLib.worker.EngineWorker`.
        models: the chosen model.
        scene: default: slicer.mrmlScene.

    Attributes (signals):
        stateChanged: (State).
        nodulesChanged: () rows were added, removed or reordered, or all may have changed.
        noduleChanged: (segmentId) one row changed.
        selectionChanged: (segmentId or None).
        historyChanged: () canUndo, canRedo or their texts.
        progressed: (done, total, text) of long work; total 0 = unknown.
        message: (text, isError) for the status line.
        busyChanged: (bool) start or stop polling.
        documentChanged: () another volume, segmentation or point list is in use (also by a node's deletion): node
            selectors follow :attr:`volumeNode`, :attr:`segmentationNode` and :attr:`promptsNode`.

    Attributes (options):
        polarity: the sign of points that come from the Markups toolbar; True = inside.
        everyClickIsNew: each positive click makes a new nodule even while one is selected.
        doNotOverlap: voxels of other segments are left out of what is written.
    """

    def __init__(self, worker: Any, models: ModelProvider, scene: Any = None) -> None:
        self.stateChanged = Signal()
        self.nodulesChanged = Signal()
        self.noduleChanged = Signal()
        self.selectionChanged = Signal()
        self.historyChanged = Signal()
        self.progressed = Signal()
        self.message = Signal()
        self.busyChanged = Signal()
        self.documentChanged = Signal()
        self.polarity = True
        self.everyClickIsNew = False
        self.doNotOverlap = False

    # -- what is being worked on -------------------------------------------------------------------------------------

    @property
    def state(self) -> State: ...

    @property
    def stateText(self) -> str:
        """The state in a sentence, translated."""

    @property
    def modelInfo(self) -> Any:
        """:class:`SAMMed3DLib.requests.ModelInfo` (path, name, device, precision, note) of the loaded model, or None."""

    @property
    def volumeNode(self) -> Any: ...

    @property
    def segmentationNode(self) -> Any: ...

    @property
    def promptsNode(self) -> Any: ...

    @property
    def selectedId(self) -> str | None:
        """Segment ID of the selected nodule; None = the next click starts a new one."""

    def setVolume(self, node: Any | None) -> None:
        """Work on a volume; its segmentation and point list are found in the scene, or made with the first click."""

    def setSegmentation(self, node: Any | None) -> None:
        """Put nodules into this segmentation; None = the volume's own, made with the first click."""

    def setPrompts(self, node: Any | None) -> None:
        """Take this point list as prompts; its points that belong to no nodule yet are taken as clicks."""

    def setModel(self) -> None:
        """The provider's choice has changed (or PyTorch was installed): load it; nodules stay."""

    def preload(self) -> None:
        """Load model and volume and encode a first crop, in the background; nothing if something is missing."""

    def suspend(self) -> None:
        """Let go of all nodes, before the scene is closed."""

    def resume(self) -> None:
        """The scene is there again."""

    def close(self) -> None:
        """Let go of everything, for good; the worker goes on living."""

    # -- clicks ------------------------------------------------------------------------------------------------------

    def click(self, rasWorld: Point, positive: bool = True) -> str | None:
        """A click in a slice view; returns the ID of the nodule's segment, None if it was refused (see message)."""

    def addNodule(self) -> None:
        """The next click starts a new nodule."""

    def nextNodule(self) -> None:
        """The same, for who has just finished one."""

    def prefetch(self, rasWorld: Point) -> None:
        """The pointer rests here: prepare for a click."""

    # -- the list ----------------------------------------------------------------------------------------------------

    def rows(self) -> list[NoduleRow]:
        """One row for each segment, in the order of the segmentation."""

    def select(self, segmentId: str | None) -> None:
        """Show this nodule's points, hide the others'; further clicks refine it. None: a new nodule."""

    def jumpTo(self, segmentId: str) -> None:
        """Move all slice views, and the 3D views' focus, to a nodule."""

    def accept(self, segmentId: str) -> None:
        """Its status becomes "reviewed"."""

    def flag(self, segmentId: str) -> None:
        """Its status becomes "flagged"."""

    def unreview(self, segmentId: str) -> None:
        """Its status becomes "AI" again."""

    def rename(self, segmentId: str, name: str) -> None: ...

    def setVisible(self, segmentId: str, on: bool) -> None:
        """Show or hide it in all views (not part of the history)."""

    def delete(self, segmentId: str) -> None:
        """Remove a nodule and its points; Undo brings both back."""

    def acceptSelectedAndNext(self) -> None:
        """Accept the selected nodule, then select and show the next one that is not reviewed."""

    def rejectSelectedAndNext(self) -> None:
        """Delete the selected nodule, then select and show the next one that is not reviewed."""

    def show3d(self, on: bool) -> None:
        """Closed surfaces of all nodules; brought up to date when the work pauses."""

    # -- history -----------------------------------------------------------------------------------------------------

    @property
    def canUndo(self) -> bool: ...

    @property
    def canRedo(self) -> bool: ...

    @property
    def undoText(self) -> str: ...

    @property
    def redoText(self) -> str: ...

    def undo(self) -> None: ...

    def redo(self) -> None: ...

    # -- all nodules -------------------------------------------------------------------------------------------------

    def segmentAll(self) -> None:
        """Find all nodules, with progress; reviewed ones and ones with points are kept."""

    def cancel(self) -> None:
        """Stop *Segment all* (what was found is kept), or drop the clicks that wait for an answer."""

    @property
    def sensitivity(self) -> float: ...

    @property
    def hasCandidates(self) -> bool:
        """Whether the sensitivity slider has something to show or hide."""

    @property
    def candidateCounts(self) -> tuple[int, int]:
        """(shown, found) by the latest *Segment all*."""

    def setSensitivity(self, sensitivity: float) -> None:
        """Show more (towards 1) or fewer (towards 0) of the found nodules, without computing anything again."""

    # -- the event loop ----------------------------------------------------------------------------------------------

    @property
    def isBusy(self) -> bool: ...

    def poll(self, timeout: float = 0.005) -> bool:
        """Wait up to ``timeout`` seconds for the worker and take at most one answer; returns whether to go on polling.

        Waiting is what lets the worker run: Slicer's main thread holds Python's lock otherwise.
        """

    def waitUntilIdle(self, timeout: float = 60.0, keepAlive: Callable[[], None] | None = None) -> bool:
        """Poll until everything is answered; False after ``timeout`` seconds. For scripts and tests."""
