"""One interface to everything that can be evaluated: 3D models, 2D models slice by slice, classic tools."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from SAMMed3DLib.commandline.segmenting import load_predictor
from SAMMed3DLib.files.image_file import given_path
from SAMMed3DLib.inference import InputError
from SAMMed3DLib.inference.geometry import Block, voxel_spacing
from SAMMed3DLib.model import CheckpointError
from SAMMed3DLib.model.sizes import ALIASES, NODULE_NETS, model_names
from SAMMed3DLib.torch_setup.device import auto_device

from ..data.clicks import ClickSimulator
from ..data.instances import LabelledNodule
from .baselines import region_growing, threshold_morphology
from .evaluation import NoduleResult, Predictor, evaluate_nodule
from .evaluation_config import CLASSICS, PEERS_2D, EvaluationConfig, EvaluationError
from .peer2d import PEERS, Peer2D, PeerKind
from .sam2d import load_sam2d
from .slicewise import Prompt, SlicewisePredictor, evaluate_slices


class Evaluated(Protocol):
    """A model or tool that is clicked by the simulated user.

    Attributes:
        description: what it is, for reports: plain values by name, "title" among them.
    """

    description: dict[str, Any]

    def set_image(self, array_kji: NDArray, ijk_to_ras: NDArray) -> None:
        """Take a volume. Raises InputError for one that cannot be used."""

    def evaluate(
        self, nodule: LabelledNodule, clicks: int, simulator: ClickSimulator, first: ClickSimulator | None = None
    ) -> NoduleResult:
        """Clicks on a nodule of that volume; ``first`` places the first click where the simulator shall not."""


class VolumePredictor(Predictor, Protocol):
    """SamPredictor3D, or a tool with its interface."""

    def set_image(self, array_kji: NDArray, ijk_to_ras: NDArray) -> None: ...


class ClickedVolume:
    """A model that sees the volume: one click anywhere in the nodule at a time."""

    def __init__(self, predictor: VolumePredictor, description: dict[str, Any]) -> None:
        self.description = description
        self._predictor = predictor
        self._ijk_to_ras: NDArray = np.eye(4)

    def set_image(self, array_kji: NDArray, ijk_to_ras: NDArray) -> None:
        """Take a volume. Raises InputError for one that cannot be used."""
        self._predictor.set_image(array_kji, ijk_to_ras)
        self._ijk_to_ras = ijk_to_ras

    def evaluate(
        self, nodule: LabelledNodule, clicks: int, simulator: ClickSimulator, first: ClickSimulator | None = None
    ) -> NoduleResult:
        """See :class:`Evaluated`."""
        voxel = None
        if first is not None:
            spacing = voxel_spacing(self._ijk_to_ras)[::-1]
            click = first.next_click(nodule.mask, np.zeros_like(nodule.mask), spacing)
            assert click is not None  # a nodule has voxels
            voxel = np.array(click[0]) + nodule.offset_kji
        return evaluate_nodule(
            self._predictor,
            nodule.mask,
            self._ijk_to_ras,
            clicks,
            simulator,
            offset_kji=nodule.offset_kji,
            first_voxel=voxel,
        )


class ClickedSlices:
    """A 2D model: a click or a box in every slice of the nodule.

    Args:
        prompt: what the first round gives.
        corrects_boxes: whether clicks follow a box.
    """

    def __init__(
        self, predictor: SlicewisePredictor, prompt: Prompt, corrects_boxes: bool, description: dict[str, Any]
    ) -> None:
        self.description = description
        self._predictor = predictor
        self._prompt = prompt
        self._corrects_boxes = corrects_boxes

    def set_image(self, array_kji: NDArray, ijk_to_ras: NDArray) -> None:
        """Take a volume."""
        self._predictor.set_image(array_kji, ijk_to_ras)

    def evaluate(
        self, nodule: LabelledNodule, clicks: int, simulator: ClickSimulator, first: ClickSimulator | None = None
    ) -> NoduleResult:
        """See :class:`Evaluated`."""
        return evaluate_slices(
            self._predictor,
            nodule.mask,
            nodule.offset_kji,
            clicks,
            simulator,
            prompt=self._prompt,
            first=first,
            corrects_boxes=self._corrects_boxes,
        )


class SeededTool:
    """A classic tool behind a predictor's interface: its result rests on the first click, later ones change nothing.

    Args:
        segment: from a CT [k, j, i], its matrix and a seed in RAS mm to a region.
    """

    def __init__(self, segment: Callable[[NDArray, NDArray, NDArray], Block]) -> None:
        self._segment = segment
        self._image: tuple[NDArray, NDArray] | None = None

    def set_image(self, array_kji: NDArray, ijk_to_ras: NDArray) -> None:
        """Take a volume."""
        self._image = array_kji, ijk_to_ras

    def predict(self, points_ras: NDArray, labels: NDArray, *, previous: Block | None = None) -> Block:
        """The region at the first click. Raises RuntimeError without an image."""
        if self._image is None:
            raise RuntimeError("no image is set: call set_image first")
        return self._segment(*self._image, np.asarray(points_ras)[0]) if previous is None else previous


_TOOLS = {
    "region_growing": ("Region growing (Kuhnigk-like)", region_growing),
    "threshold": ("Threshold -400 HU and morphology", threshold_morphology),
}


def load_evaluated(config: EvaluationConfig) -> Evaluated:
    """The model or tool that a configuration names.

    Raises:
        EvaluationError: a checkpoint of another network than asked for.
        InputError, CheckpointError, DeviceError, PeerError: it cannot be loaded.
    """
    if config.model in CLASSICS:
        title, tool = _TOOLS[config.model]
        return ClickedVolume(SeededTool(tool), {"title": title, "model": config.model})
    device = auto_device() if config.device == "auto" else config.device
    if config.model in PEERS_2D:
        return _peer(config, PEERS[config.model], device)
    known = model_names()
    if config.model_type is not None and config.model_type not in known:
        raise EvaluationError(f"-mt {config.model_type}: there are {', '.join(known)}")
    if config.checkpoint is None and config.model_type not in (None, *NODULE_NETS):
        raise EvaluationError(f"-mt {config.model_type} has no weights of its own: give its checkpoint with -cp")
    predictor = load_predictor(config.checkpoint, None, config.profile, device, config.precision)
    model: Any = predictor.model  # a Sam3D, of which the predictor asks less
    asked = None if config.model_type is None else ALIASES.get(config.model_type, config.model_type)
    if config.checkpoint is not None and asked is not None and model.name != asked:
        raise EvaluationError(
            f"{config.checkpoint} is of the network {model.name}, not {config.model_type}: leave -mt "
            "away, or choose another checkpoint"
        )
    return ClickedVolume(
        predictor,
        {
            "title": f"{model.name} ({Path(config.checkpoint).name if config.checkpoint else 'bundled'})",
            "model": model.name,
            "checkpoint": config.checkpoint or "bundled",
            "profile": model.profile.to_dict(),
            "device": str(model.device),
            "precision": model.precision,
        },
    )


def _peer(config: EvaluationConfig, kind: PeerKind, device: str) -> ClickedSlices:
    path = given_path(config.checkpoint or "")
    if not path.is_file():
        raise InputError(
            f"{path} is not there: download the weights of {kind.title} from {kind.download} and give "
            "their path with -cp"
        )
    network = load_sam2d(path, device, config.precision)
    layout = network.layout
    if config.model_type is not None and config.model_type != layout.name:
        raise CheckpointError(f"{path} is {layout.name}, not {config.model_type}: leave -mt away, or choose another")
    predictor = SlicewisePredictor(Peer2D(network, kind, config.window_hu))
    return ClickedSlices(
        predictor,
        config.prompt,
        kind.corrects_boxes,
        {
            "title": f"{kind.title} {layout.name}, {layout.image_size} px, slice by slice",
            "model": config.model,
            "checkpoint": str(path),
            "network": layout.name,
            "image_size": layout.image_size,
            "prompt": config.prompt,
            "window_hu": config.window_hu or kind.window_hu or "each slice's range",
            "device": str(network.device),
            "precision": network.precision,
            "rounds": "each round gives one click in every slice of the nodule that is not right yet",
        },
    )
