"""What runs on the worker thread: one network, one volume, and the answers to clicks.

Nothing here knows Slicer; torch is imported with the first request, never with this file.

PyTorch keeps all of its threads: with one less, a click takes almost twice as long on two cores, and the main thread's
turns are no shorter (Testing/benchmarks/session.py --threads).
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..torch_setup.loading import load_torch
from .click_trail import Click, ClickStep, ClickTrail, ClickTrails, clicks_in_order
from .requests import (
    AXES,
    SCALE,
    FindLungs,
    FoundLungs,
    FoundNodule,
    FunctionRequest,
    Generate,
    Generated,
    Identity,
    LoadModel,
    Measure,
    ModelInfo,
    Predict,
    Prefetch,
    Report,
    RequestCancelled,
    Segmented,
    SetVolume,
    StaleRequest,
    VolumeInfo,
)


class Engine:
    """Answers the requests of :mod:`SAMMed3DLib.worker.requests`; for one thread.

    Args:
        load: (path, device, precision) -> network; default: :func:`SAMMed3DLib.model.load_model`, on the CPU where the
            graphics memory does not suffice.
        generator: (predictor, **settings) -> an object with ``generate(progress=)``; default:
            :class:`SAMMed3DLib.inference.SamAutomaticMaskGenerator3D`.
        trails: the memory of clicks.
        load_detector: (path, device) -> a detector of record; default: MONAI's RetinaNet.
    """

    def __init__(
        self,
        load: Callable[[str, str, str], Any] | None = None,
        generator: Callable[..., Any] | None = None,
        trails: ClickTrails | None = None,
        load_detector: Callable[[str, str], Any] | None = None,
    ) -> None:
        self._load = load or _load_network
        self._make_generator = generator or _make_generator
        self._load_detector = load_detector or _load_detector
        self._trails = trails or ClickTrails()
        self._predictor: Any = None
        self._loaded: tuple[LoadModel, ModelInfo] | None = None
        self._detector: tuple[tuple[str, int, str], Any] | None = None
        self._identity: Identity = None
        self._array: NDArray | None = None
        self._ijk_to_ras = np.eye(4)
        self._handlers: dict[type, Callable[[Any, Report], Any]] = {
            LoadModel: self._load_model,
            SetVolume: self._set_volume,
            Predict: self._predict,
            Measure: self._measure_blocks,
            Generate: self._generate,
            Prefetch: self._prefetch,
            FindLungs: self._find_lungs,
        }

    def run(self, request: Any, report: Report) -> Any:
        """The answer to a request; what a function does needs neither model nor volume.

        Raises:
            RequestCancelled: ``report`` returned False; StaleRequest: there is no such volume, or no network yet.
            ValueError: what the user can cure; :meth:`explain` gives the words for it and for other errors.
        """
        if isinstance(request, FunctionRequest):
            return request.function(report)
        load_torch()
        return self._handlers[type(request)](request, report)

    def explain(self, error: Exception) -> str | None:
        """An error in a user's words, or None if it was not foreseen."""
        if isinstance(error, ModuleNotFoundError):
            return f"A Python package is missing ({error.name}). Install PyTorch in the Model section"
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            return "There is not enough memory for this volume: crop it (Crop Volume module) or close other programs"
        if isinstance(error, OSError):
            return f"A file cannot be read: {error}"
        if isinstance(error, _foreseen()):
            return str(error)
        return None

    # -- network and volume ------------------------------------------------------------------------------------------

    def _load_model(self, request: LoadModel, report: Report) -> ModelInfo:
        if self._loaded is not None and self._loaded[0] == request:
            return self._loaded[1]
        _go_on(report, "Loading the model")
        self._loaded = None
        wanted, note = _device_for(request.device)
        model = self._load(request.path, wanted, request.precision)
        if self._predictor is None:
            from ..inference import SamPredictor3D

            self._predictor = SamPredictor3D(model)
            if self._array is not None:
                self._show(self._array)
        else:
            self._predictor.set_model(model)
        self._trails.clear()
        device = str(model.device)
        if device == "cpu" and wanted.startswith("cuda"):
            note = "There is not enough graphics memory: the model runs on the CPU"
        info = ModelInfo(request.path, model.profile.name, device, getattr(model, "precision", "fp32"), note)
        self._loaded = (request, info)
        return info

    def _set_volume(self, request: SetVolume, report: Report) -> VolumeInfo:
        if request.identity == self._identity:
            return VolumeInfo(self._identity)
        _go_on(report, "Reading the volume")
        self._identity = self._array = None
        if self._predictor is not None:
            self._predictor.reset_image()
        # the view is the scene's memory: from here on the scene may change
        array = np.array(request.array_kji, order="C")
        from ..inference.geometry import as_affine
        from ..inference.validation import air_for_nonsense, check_image

        note = air_for_nonsense(array)
        self._ijk_to_ras, checked = as_affine(request.ijk_to_ras), check_image(array)
        self._array, self._identity = checked, request.identity
        if self._predictor is not None:
            self._show(checked)
        return VolumeInfo(self._identity, note)

    def _show(self, array: NDArray) -> None:
        self._predictor.set_image(array, self._ijk_to_ras, identity=self._identity)

    def _require(self, identity: Identity) -> None:
        if self._predictor is None or self._array is None or identity != self._identity:
            raise StaleRequest()

    @contextlib.contextmanager
    def _reporting(self, report: Report) -> Iterator[Any]:
        """The predictor, whose slow steps are reported; requests that slip in restore what they found."""
        from ..inference import PredictionCancelled

        before = self._predictor.progress
        self._predictor.progress = lambda text: report(0, 0, text)
        try:
            yield self._predictor
        except PredictionCancelled as stop:
            raise RequestCancelled() from stop
        finally:
            self._predictor.progress = before

    # -- clicks ------------------------------------------------------------------------------------------------------

    def _predict(self, request: Predict, report: Report) -> Segmented:
        self._require(request.identity)
        clicks = clicks_in_order(request.points, request.labels, first_positive=request.start is None)
        trail = self._trails.of((self._identity, request.nodule), request.start)
        with self._reporting(report) as predictor:
            if request.start is not None and trail.origin is None:
                trail.origin = _origin(request.start, predictor)
            step = self._draft(predictor, trail, clicks) if request.moving else None
            if step is None:
                for count in range(trail.keep(clicks) + 1, len(clicks) + 1):
                    _go_on(report, "")
                    trail.add(clicks[count - 1], self._step(predictor, trail, clicks[:count]))
                step = trail.steps[len(clicks) - 1] if clicks else trail.origin
        self._trails.trim()
        if step is None:
            raise StaleRequest()  # neither clicks nor a mask: nothing was asked
        drawn = step.mask is not step.prediction.mask
        record = self._measure(_Masked(step.mask, step.offset_kji) if drawn else step.prediction, request.ijk_to_world)
        score = None if drawn else step.prediction.score
        return Segmented(step.mask, step.offset_kji, score, record, len(clicks))

    def _step(self, predictor: Any, trail: ClickTrail, clicks: list[Click]) -> ClickStep:
        """The step after the last of the clicks."""
        points, labels = [point for point, _ in clicks], [label for _, label in clicks]
        before = trail.steps[-1] if trail.steps else trail.origin
        previous = None if before is None else before.prediction
        prediction = predictor.predict(points, labels, previous=previous)
        if trail.start is None or trail.start.origin is not None:
            return ClickStep(prediction, prediction.mask, prediction.offset_kji)
        from ..inference.geometry import voxel_index, world_to_ijk
        from .hand_edits import apply_click

        assert self._array is not None
        voxel = voxel_index(world_to_ijk(self._ijk_to_ras, points[-1]))[::-1]
        voxel = np.clip(voxel, 0, np.array(self._array.shape) - 1)
        return ClickStep(prediction, *apply_click(before, previous, prediction, voxel, bool(labels[-1])))

    def _draft(self, predictor: Any, trail: ClickTrail, clicks: list[Click]) -> ClickStep | None:
        """What one decoding in the crop at hand shows while a click is on the move; the trail stays as it is.

        None where there is no such crop, or where the mask was drawn by hand: each click then changes it on its own.
        """
        last, known = trail.steps[-1] if trail.steps else trail.origin, trail.known(clicks)
        drawn = trail.start is not None and trail.start.origin is None
        if last is None or drawn or known == len(clicks):
            return None
        before = trail.steps[known - 1] if known else trail.origin
        points, labels = [point for point, _ in clicks], [label for _, label in clicks]
        previous = None if before is None else before.prediction
        prediction = predictor.predict(points, labels, previous=previous, within=last.prediction.crop)
        return ClickStep(prediction, prediction.mask, prediction.offset_kji)

    def _prefetch(self, request: Prefetch, report: Report) -> Segmented:
        self._require(request.identity)
        with self._reporting(report) as predictor:
            prediction = predictor.predict([request.point], [1])
        return Segmented(prediction.mask, prediction.offset_kji, prediction.score, {}, 1)

    # -- measurements ------------------------------------------------------------------------------------------------

    def _measure_blocks(self, request: Measure, report: Report) -> dict[Any, dict[str, Any]]:
        self._require(request.identity)
        answers = {}
        for nodule, block in request.blocks.items():
            _go_on(report, "")
            answers[nodule] = self._measure(block, request.ijk_to_world)
        return answers

    def _measure(self, block: Any, ijk_to_world: NDArray | None) -> dict[str, Any]:
        """Measurements in world coordinates, whose axes decide which slices are axial; and where the axes end."""
        from ..inference.geometry import length_scale, transform_points
        from ..inference.measurements import measure_with_axes

        assert self._array is not None
        matrix, to_local = self._ijk_to_ras, np.eye(4)
        if ijk_to_world is not None and not np.allclose(ijk_to_world, matrix, rtol=0, atol=1e-9):
            to_world = np.asarray(ijk_to_world) @ np.linalg.inv(matrix)
            parts = getattr(block, "parts", ())
            if parts:
                block = dataclasses.replace(block, parts=tuple(_moved(part, to_world) for part in parts))
            matrix, to_local = np.asarray(ijk_to_world), np.linalg.inv(to_world)
        record, axes = measure_with_axes(block, self._array, matrix)
        values = record.to_dict() | {SCALE: length_scale(matrix if ijk_to_world is None else ijk_to_world)}
        if axes is not None:
            ends = transform_points(to_local, np.stack([axes.long_ras, axes.short_ras]))
            values[AXES] = np.round(ends, 3).tolist()
        return values

    # -- all nodules -------------------------------------------------------------------------------------------------

    def _generate(self, request: Generate, report: Report) -> Generated:
        self._require(request.identity)
        _go_on(report, "")
        stopped = False
        told: list[dict[str, Any]] = []
        known: dict[int, tuple[dict[str, Any], FoundNodule]] = {}

        def answer_of(records: list[dict[str, Any]]) -> Generated:
            for record in records:
                if id(record) not in known:
                    known[id(record)] = record, self._found(record, request.ijk_to_world)
            found = [known[id(record)][1] for record in records]
            return Generated(tuple(_new_ones(found, request.keep)), str(getattr(generator, "message", "") or ""))

        def progress(done: int, total: int) -> bool:
            nonlocal stopped, told
            so_far = getattr(generator, "found_so_far", told)
            news = [answer_of(so_far)] if so_far and so_far is not told else []
            told = so_far
            left = {"seconds_left": generator.seconds_left} if hasattr(generator, "seconds_left") else {}
            stopped = stopped or not report(done, total, "", *news, **left)
            return not stopped

        thorough = {} if request.detector is None else {"detector": self._detector_of(request.detector, report)}
        generator = self._make_generator(self._predictor, **request.settings, **thorough)
        answer = answer_of(generator.generate(progress=progress))
        if stopped:
            raise RequestCancelled(answer)
        return answer

    def _find_lungs(self, request: FindLungs, report: Report) -> FoundLungs:
        from ..finding.lungs import find_lungs
        from ..inference.errors import InputError, PredictionCancelled

        if self._array is None or request.identity != self._identity:
            raise StaleRequest()
        try:
            lungs = find_lungs(self._array, self._ijk_to_ras, lambda done, total: report(done, 2 * total, ""))
            if not lungs.found:
                raise InputError(lungs.message)
            mask, offset = lungs.voxels(
                self._array.shape, self._ijk_to_ras, lambda done, total: report(total + done, 2 * total, "")
            )
        except PredictionCancelled as stop:
            raise RequestCancelled() from stop
        return FoundLungs(mask, offset, "; ".join([lungs.message, *lungs.notes]))

    def _detector_of(self, path: str, report: Report) -> Any:
        """The detector of a file, read again only where the file or the device is another. Raises CheckpointError."""
        try:
            modified = Path(path).stat().st_mtime_ns
        except OSError:
            modified = 0  # reading it will say so
        key = (path, modified, self._loaded[1].device if self._loaded is not None else "cpu")
        if self._detector is None or self._detector[0] != key:
            _go_on(report, "Loading the detector")
            self._detector = None
            self._detector = key, self._load_detector(path, key[2])
        return self._detector[1]

    def _found(self, record: dict[str, Any], ijk_to_world: NDArray | None) -> FoundNodule:
        k, j, i = (int(start) for start in record["offset_kji"])
        mask, offset = record["segmentation"], (k, j, i)
        prediction = record.get("prediction")
        measurements = self._measure(prediction or _Masked(mask, offset), ijk_to_world)
        iou = record.get("predicted_iou")
        return FoundNodule(
            mask, offset, float(record["score"]), iou, measurements, prediction, record.get("shown_from")
        )


@dataclasses.dataclass(frozen=True, eq=False)
class _Masked:
    """A block without the network's answer."""

    mask: NDArray
    offset_kji: tuple[int, int, int]


def _go_on(report: Report, text: str) -> None:
    if not report(0, 0, text):
        raise RequestCancelled()


def _origin(start: Any, predictor: Any) -> ClickStep:
    """The step before the first click on an existing mask."""
    prediction = start.origin if start.origin is not None else predictor.predict(mask=start)
    return ClickStep(prediction, start.mask, start.offset_kji)


def _moved(part: Any, matrix: NDArray) -> Any:
    """A part of a prediction in other coordinates."""
    from ..inference.geometry import transform_points

    crop = dataclasses.replace(part.crop, crop_to_ras=matrix @ part.crop.crop_to_ras)
    return dataclasses.replace(part, crop=crop, anchor_ras=transform_points(matrix, part.anchor_ras))


def _new_ones(found: list[FoundNodule], keep: Any) -> list[FoundNodule]:
    """The found nodules that are not among those that stay, the best score first."""
    from ..finding.mask_nms import suppress

    for known in keep:
        kept = suppress([known, *found], [float("inf"), *(nodule.score for nodule in found)])
        found = [found[index - 1] for index in sorted(kept) if index > 0]
    return sorted(found, key=lambda nodule: -nodule.score)


def _device_for(wanted: str) -> tuple[str, str]:
    """Where to run what is asked for, and a remark where "auto" passes by a graphics card."""
    if wanted != "auto":
        return wanted, ""
    from ..torch_setup.device import auto_device, cuda_problem

    device, problem = auto_device(), cuda_problem()
    return device, f"The graphics card cannot be used, the model runs on the CPU: {problem}" if problem else ""


def _load_network(path: str, device: str, precision: str) -> Any:
    import torch

    from ..model import load_model

    try:
        return load_model(path, device=device, precision=precision)
    except torch.OutOfMemoryError:
        if device == "cpu":
            raise
        return load_model(path, device="cpu", precision="auto")


def _load_detector(path: str, device: str) -> Any:
    from ..finding.detectors import RetinaNetDetector
    from ..model.retina_net import load_retina_net

    return RetinaNetDetector(load_retina_net(path, device))


def _make_generator(predictor: Any, **settings: Any) -> Any:
    from ..finding.automatic_mask_generator import SamAutomaticMaskGenerator3D

    return SamAutomaticMaskGenerator3D(predictor, **settings)


def _foreseen() -> tuple[type[Exception], ...]:
    """The errors whose message names a cure."""
    from ..inference.errors import InputError
    from ..model import CheckpointError, DeviceError

    return InputError, CheckpointError, DeviceError
