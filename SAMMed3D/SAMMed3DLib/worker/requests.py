"""What the worker thread is asked and what it answers: plain values, so that whoever asks needs no torch.

Blocks are parts of a volume: a uint8 ``mask`` [k, j, i] and ``offset_kji``, the volume index of its first voxel.
Anything with these two attributes will do (the scene's MaskBlock, the engine's Prediction). Points are in the volume's
local RAS, mm, parent transforms excluded.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from numpy.typing import NDArray

from ..inference.geometry import PlacedMask

if TYPE_CHECKING:
    from ..weights.store import WeightsStore

#: Names a volume in a state: (node id, modification time of the image, matrix as bytes), for instance.
Identity = Hashable

#: Key of measurements.
AXES = "axes_ras"
#: Key of measurements: :func:`.geometry.length_scale` of the matrix that they were taken with.
SCALE = "length_scale"


class Priority(enum.IntEnum):
    """When a request runs: the smallest first, equal ones in the order of submission."""

    SETUP = 0
    """What the others need: the model, the volume."""
    CLICK = 1
    SHORT = 2
    LONG = 3
    """Takes seconds or minutes; CLICK and SHORT ones run in between, at its progress callbacks."""
    IDLE = 4
    """Useful if nothing else is to be done: it is cancelled by any other request."""

    @property
    def slips_in(self) -> bool:
        """Whether it runs in between while a LONG request is under way."""
        return self in (Priority.CLICK, Priority.SHORT)


Report = Callable[..., bool]
"""Tells the progress of a request: called with (done, total, text), with what is known of the answer so far where there
is something, and with ``seconds_left`` where the request knows more of that than its pace tells; False asks to stop."""


class Request(Protocol):
    """What the worker knows of a request: when it runs, and its key.

    A queued request is replaced by a newer one of equal key.
    """

    @property
    def key(self) -> Hashable: ...

    @property
    def priority(self) -> Priority: ...


@dataclass(frozen=True, eq=False)
class FunctionRequest:
    """A function that runs on the thread. Answer: what it returns; it raises RequestCancelled once ``report`` said no.

    None replaces another.
    """

    function: Callable[[Report], Any]
    priority: Priority = Priority.SHORT

    @property
    def key(self) -> Hashable:
        return id(self)


@dataclass(frozen=True)
class LoadModel:
    """Asks for a checkpoint to be loaded. Answer: :class:`ModelInfo`.

    Attributes:
        path: the file.
        device: "cpu", "cuda", "cuda:1", "mps", or "auto".
        precision: "fp32", "bf16", "fp16" or "auto".
        modified: when the file was changed last; an equal request does not load it again.
    """

    path: str
    device: str = "auto"
    precision: str = "auto"
    modified: int = 0
    key: ClassVar[Hashable] = "model"
    priority: ClassVar[Priority] = Priority.SETUP


@dataclass(frozen=True, eq=False)
class SetVolume:
    """Asks for a volume to be copied and checked. Answer: :class:`VolumeInfo`.

    Attributes:
        identity: every later request names the volume by it.
        array_kji: (K, J, I), a view of the scene's memory; it is copied on the worker thread.
        ijk_to_ras: (4, 4) to local RAS.
        ijk_to_world: (4, 4) with the parent transforms, for measurements.
    """

    identity: Identity
    array_kji: NDArray
    ijk_to_ras: NDArray
    ijk_to_world: NDArray
    key: ClassVar[Hashable] = "volume"
    priority: ClassVar[Priority] = Priority.SETUP


@dataclass(frozen=True, eq=False)
class Start:
    """The mask on which clicks work: edited by hand, found by *Segment all*, or from a file.

    Attributes:
        mask, offset_kji: a block that is not empty.
        origin: the engine's own prediction with this very mask, where there is one: it spares an encoding.
    """

    mask: NDArray
    offset_kji: tuple[int, int, int]
    origin: Any = field(default=None, repr=False)


@dataclass(frozen=True, eq=False)
class Predict:
    """Asks for the mask of one nodule after all of its clicks. Answer: :class:`Segmented`.

    The engine remembers what it answered for the nodule and feeds only the clicks that are new, one by one; after a
    click was moved or removed it goes on from the last one that still holds. So a request that replaces a queued one
    never loses a click.

    Attributes:
        identity: the volume's.
        nodule: names the nodule.
        points: (n, 3) all clicks in the order of placing; the engine feeds the first positive one first.
        labels: (n,) 1 inside, 0 outside.
        start: the mask that the clicks change, or None.
        ijk_to_world: (4, 4) for measurements; None measures in local RAS.
        moving: a click is being dragged: a draft will do, which is not remembered. Ask again when it has come to rest.
    """

    identity: Identity
    nodule: Hashable
    points: Sequence[Sequence[float]]
    labels: Sequence[int]
    start: Start | None = None
    ijk_to_world: NDArray | None = None
    moving: bool = False
    priority: ClassVar[Priority] = Priority.CLICK

    @property
    def key(self) -> Hashable:
        return ("predict", self.nodule)


@dataclass(frozen=True, eq=False)
class Measure:
    """Asks for the measurements of masks from elsewhere. Answer: dict, nodule -> as :attr:`Segmented.measurements`."""

    identity: Identity
    blocks: Mapping[Hashable, PlacedMask]
    ijk_to_world: NDArray | None = None
    priority: ClassVar[Priority] = Priority.SHORT

    @property
    def key(self) -> Hashable:
        return ("measure", tuple(self.blocks))


@dataclass(frozen=True, eq=False)
class Generate:
    """Asks for all nodules of the volume. Answer: :class:`Generated`; when cancelled, with what was found so far.

    Meanwhile each Progress with a ``value`` holds what has been found by then: a nodule that stays is the same object.

    Attributes:
        identity: the volume's.
        keep: blocks of nodules that stay; what is found again of them is left out.
        settings: keyword arguments of :class:`SAMMed3DLib.inference.SamAutomaticMaskGenerator3D`.
        ijk_to_world: (4, 4) for measurements.
        detector: file of a detector of record that is asked too: the thorough search. None: a search without.
    """

    identity: Identity
    keep: Sequence[PlacedMask] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    ijk_to_world: NDArray | None = None
    detector: str | None = None
    key: ClassVar[Hashable] = "generate"
    priority: ClassVar[Priority] = Priority.LONG


@dataclass(frozen=True, eq=False)
class FindLungs:
    """Asks for what *Segment all* takes as lung. Answer: :class:`FoundLungs`.

    Attributes:
        identity: the volume's.
    """

    identity: Identity
    key: ClassVar[Hashable] = "lungs"
    priority: ClassVar[Priority] = Priority.LONG


@dataclass(frozen=True, eq=False)
class FoundLungs:
    """The lungs up to the pleura, with their vessels and nodules.

    Attributes:
        mask, offset_kji: the block.
        note: how much it is, and what is missing of the lungs.
    """

    mask: NDArray
    offset_kji: tuple[int, int, int]
    note: str


@dataclass(frozen=True, eq=False)
class Prefetch:
    """Asks what a click at this point would give, and keeps ready what such a click needs.

    Answer: :class:`Segmented`, without measurements. Any other request cancels it.
    """

    identity: Identity
    point: Sequence[float]
    key: ClassVar[Hashable] = "prefetch"
    priority: ClassVar[Priority] = Priority.IDLE


@dataclass(frozen=True)
class VolumeInfo:
    """The volume in use.

    Attributes:
        identity: as in :class:`SetVolume`.
        note: what the user should know of its voxels, or "".
    """

    identity: Identity
    note: str = ""


@dataclass(frozen=True)
class ModelInfo:
    """The network in use.

    Attributes:
        path: its file.
        name: of its architecture or profile.
        device: where it runs, such as "cpu" or "cuda:0".
        precision: number format.
        note: what the user should know (such as a fall-back to the CPU), or "".
    """

    path: str
    name: str
    device: str
    precision: str
    note: str = ""


@dataclass(frozen=True, eq=False)
class Segmented:
    """A nodule after its newest click.

    Attributes:
        mask, offset_kji: the block.
        score: predicted IoU in [0, 1], or None.
        measurements: :class:`SAMMed3DLib.inference.NoduleRecord` as a dict, sizes and places in world coordinates; and
            under :data:`AXES` where the long and the short axis end, (2, 2, 3), local RAS mm; under :data:`SCALE` what
            lengths depended on.
        clicks: how many clicks it took into account.
    """

    mask: NDArray
    offset_kji: tuple[int, int, int]
    score: float | None
    measurements: Mapping[str, Any]
    clicks: int


@dataclass(frozen=True, eq=False)
class FoundNodule:
    """One nodule found by *Segment all*.

    Attributes:
        mask, offset_kji: the block.
        score: probability in [0, 1] that it is a nodule.
        predicted_iou: as :attr:`Segmented.score`.
        measurements: as :attr:`Segmented.measurements`.
        origin: for :attr:`Start.origin`.
        shown_from: place of the sensitivity slider, 0 to 1, from which on it is shown; None: 1 - score.
    """

    mask: NDArray
    offset_kji: tuple[int, int, int]
    score: float
    predicted_iou: float | None
    measurements: Mapping[str, Any]
    origin: Any = field(default=None, repr=False)
    shown_from: float | None = None

    def is_shown_at(self, sensitivity: float) -> bool:
        """Whether the sensitivity slider at this place shows it."""
        first = 1.0 - self.score if self.shown_from is None else self.shown_from
        return sensitivity >= first - 1e-9


@dataclass(frozen=True, eq=False)
class Generated:
    """What *Segment all* found, the best score first, and a remark for the user (or "")."""

    found: tuple[FoundNodule, ...]
    note: str = ""


class RequestCancelled(Exception):
    """The engine stopped because it was asked to; ``value`` is what it has so far."""

    def __init__(self, value: Any = None) -> None:
        super().__init__("cancelled")
        self.value = value


class StaleRequest(RequestCancelled):
    """The request is about a volume or model that the engine does not have (any more)."""


@dataclass(frozen=True, eq=False)
class Result:
    """The end of a request.

    Attributes:
        generation: the number that :meth:`.thread.Worker.submit` gave.
        request: what was asked.
        value: the answer, or None.
        error: what went wrong, for the user; None if nothing did.
        details: the traceback of an unexpected error, for the log.
        cancelled: it was stopped; ``value`` may hold what was found until then.
        seconds: how long it ran.
    """

    generation: int
    request: Any
    value: Any = None
    error: str | None = None
    details: str = ""
    cancelled: bool = False
    seconds: float = 0.0


@dataclass(frozen=True)
class Progress:
    """How far a running request is: ``done`` of ``total`` (0 = unknown).

    Attributes:
        seconds_left: an estimate, or None.
        value: the answer as far as it is known, where that has changed; else None.
    """

    generation: int
    request: Any = dataclasses.field(repr=False)
    done: int = 0
    total: int = 0
    text: str = ""
    seconds_left: float | None = None
    value: Any = dataclasses.field(default=None, repr=False)


def model_download(store: WeightsStore, name: str) -> FunctionRequest:
    """Asks for a model of the catalog to be downloaded; progress is told in megabytes. Answer: its new ModelEntry."""
    from ..weights.download import DownloadCancelled

    def fetch(report: Report) -> Any:
        title = store.entry(name).title

        def progress(done: int, total: int | None) -> bool:
            of = f" of {total / 1e6:.0f}" if total else ""
            return report(done, total or 0, f"Downloading {title}: {done / 1e6:.0f}{of} MB")

        try:
            return store.download(name, progress)
        except DownloadCancelled as error:
            raise RequestCancelled from error

    return FunctionRequest(fetch, Priority.LONG)
