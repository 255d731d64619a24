"""2D models on 3D volumes: each axial slice on its own, with clicks or a box in every slice of the nodule.

This is how the public scripts of SAM-Med3D compare 2D models, and it favors them: a round gives one click in every
slice where one in the whole nodule is what a 3D model gets. Reports therefore give the number of clicks too.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from SAMMed3DLib.inference.geometry import (
    as_affine,
    closest_ras_axes,
    transform_points,
    voxel_index,
    voxel_spacing,
    world_to_ijk,
)

from ..data.clicks import ClickSimulator, bounding_box
from .evaluation import NoduleResult, NoduleTrial

if TYPE_CHECKING:
    from .peer2d import Peer2D, SamSliceAnswer

Prompt = Literal["point", "box"]
#: Embeddings kept: 4 MB each at 1024 pixels.
_KEPT_SLICES = 96


class AxialSlices:
    """A volume as axial slices, the patient's right on the left and the front on top, whatever its storage order.

    Args:
        array_kji: (K, J, I) HU.
        ijk_to_ras: (4, 4); oblique volumes are cut along the index axis nearest to superior.
    """

    def __init__(self, array_kji: NDArray, ijk_to_ras: ArrayLike) -> None:
        self.ijk_to_ras = as_affine(ijk_to_ras)
        axes, signs = closest_ras_axes(self.ijk_to_ras)
        # Array axes of slices, rows (to the back) and columns (to the left).
        self._order = tuple(2 - axes[direction] for direction in (2, 1, 0))
        self._flips = tuple(axis for axis, direction in ((1, 1), (2, 0)) if signs[direction] > 0)
        self._volume = self.view(np.asarray(array_kji))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(slices, rows, columns)."""
        return self._volume.shape

    def view(self, array_kji: NDArray) -> NDArray:
        """An array of the volume's shape as (slices, rows, columns); a view."""
        return np.flip(array_kji.transpose(self._order), self._flips)

    def slice_hu(self, number: int) -> NDArray:
        """(rows, columns) HU."""
        return self._volume[number]

    def index_of(self, points_ras: ArrayLike) -> NDArray[np.int64]:
        """(n, 3) slice, row, column of the voxels that hold some points."""
        kji = voxel_index(world_to_ijk(self.ijk_to_ras, np.reshape(points_ras, (-1, 3))))[:, ::-1]
        return self._flipped(kji[:, self._order])

    def ras_of(self, index: ArrayLike) -> NDArray[np.float64]:
        """(n, 3) RAS mm of voxels (slice, row, column)."""
        ordered = self._flipped(np.reshape(index, (-1, 3)))
        kji = np.empty_like(ordered)
        kji[:, self._order] = ordered
        return transform_points(self.ijk_to_ras, kji[:, ::-1])

    def block(self, start: Sequence[int], mask: NDArray) -> tuple[NDArray[np.uint8], tuple[int, int, int]]:
        """A mask block (slices, rows, columns) that starts at an index, as [k, j, i] block and offset."""
        low = np.array(start)
        for axis in self._flips:
            low[axis] = self.shape[axis] - low[axis] - mask.shape[axis]
        back = np.argsort(self._order)
        block = np.ascontiguousarray(np.flip(mask, self._flips).transpose(back), dtype=np.uint8)
        k, j, i = (int(low[axis]) for axis in back)
        return block, (k, j, i)

    @property
    def pixel_mm(self) -> tuple[float, float]:
        """Height and width of a pixel."""
        spacing = voxel_spacing(self.ijk_to_ras)[::-1]
        return float(spacing[self._order[1]]), float(spacing[self._order[2]])

    def _flipped(self, index: NDArray) -> NDArray:
        flipped = index.copy()
        for axis in self._flips:
            flipped[:, axis] = self.shape[axis] - 1 - flipped[:, axis]
        return flipped


@dataclass(frozen=True, eq=False)
class SlicewisePrediction:
    """The slices' answers as one mask block.

    Attributes:
        mask: uint8 [k, j, i]; one voxel of 0 where nothing was found.
        offset_kji: its first voxel.
        answers: slice number -> its latest answer.
        seen: slice number -> clicks that answer rests on.
    """

    mask: NDArray[np.uint8]
    offset_kji: tuple[int, int, int]
    answers: Mapping[int, SamSliceAnswer] = field(default_factory=dict, repr=False)
    seen: Mapping[int, int] = field(default_factory=dict, repr=False)


class SlicewisePredictor:
    """A 2D model behind the interface of SamPredictor3D; slices without a click or a box stay empty."""

    def __init__(self, model: Peer2D) -> None:
        self.model = model
        self._slices: AxialSlices | None = None
        self._embeddings: OrderedDict[int, Any] = OrderedDict()

    @property
    def slices(self) -> AxialSlices:
        """The volume's slices. Raises RuntimeError without an image."""
        if self._slices is None:
            raise RuntimeError("no image is set: call set_image first")
        return self._slices

    def set_image(self, array_kji: NDArray, ijk_to_ras: ArrayLike) -> None:
        """Take a volume, (K, J, I) HU and its 4x4 matrix; slices are encoded when they are prompted."""
        self._slices = AxialSlices(array_kji, ijk_to_ras)
        self._embeddings.clear()

    def predict(
        self,
        points_ras: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        *,
        boxes: Mapping[int, NDArray] | None = None,
        previous: SlicewisePrediction | None = None,
    ) -> SlicewisePrediction:
        """The mask of one object.

        Args:
            points_ras: (n, 3) mm, all clicks so far, oldest first; each counts in its own slice.
            labels: (n,) 1 inside, 0 outside.
            boxes: slice number -> (4,) first and last column and row, as continuous pixel coordinates.
            previous: the prediction before the newest clicks; slices without new ones keep its answers.
        """
        slices = self.slices
        points = np.zeros((0, 3)) if points_ras is None else np.reshape(np.asarray(points_ras, float), (-1, 3))
        index = slices.index_of(points)
        positive = np.ones(len(points), bool) if labels is None else np.asarray(labels).reshape(-1) > 0
        boxes = dict(boxes or {})
        answers = {} if previous is None else dict(previous.answers)
        seen = {} if previous is None else dict(previous.seen)
        for number in sorted({*index[:, 0].tolist(), *boxes}):
            here = index[:, 0] == number
            pixels, signs = index[here][:, :0:-1].astype(float), positive[here]
            box, answer = boxes.get(number), answers.get(number)
            first = seen.get(number, -1 if box is not None else 0) + 1
            for count in range(first, len(pixels) + 1):
                if box is None and not signs[:count].any():
                    continue  # clicks beside an object that nobody pointed at
                answer = self.model.decode(
                    self._embedding(number),
                    slices.shape[1:],
                    pixels[:count],
                    signs[:count],
                    box,
                    None if answer is None else answer.logits,
                )
                answers[number], seen[number] = answer, count
        return SlicewisePrediction(*_assembled(slices, answers), answers, seen)

    def _embedding(self, number: int) -> Any:
        if number in self._embeddings:
            self._embeddings.move_to_end(number)
            return self._embeddings[number]
        embedding = self.model.encode(np.ascontiguousarray(self.slices.slice_hu(number)))
        self._embeddings[number] = embedding
        if len(self._embeddings) > _KEPT_SLICES:
            self._embeddings.popitem(last=False)
        return embedding


def _assembled(
    slices: AxialSlices, answers: Mapping[int, SamSliceAnswer]
) -> tuple[NDArray[np.uint8], tuple[int, int, int]]:
    """The answers as a block [k, j, i] and its offset."""
    found = {number: box for number, answer in answers.items() if (box := bounding_box(answer.mask)) is not None}
    if not found:
        return np.zeros((1, 1, 1), np.uint8), (0, 0, 0)
    low = [min(found), *(min(box[axis].start for box in found.values()) for axis in range(2))]
    high = [max(found) + 1, *(max(box[axis].stop for box in found.values()) for axis in range(2))]
    mask = np.zeros([b - a for a, b in zip(low, high, strict=True)], np.uint8)
    for number in found:
        mask[number - low[0]] = answers[number].mask[low[1] : high[1], low[2] : high[2]]
    return slices.block(low, mask)


def evaluate_slices(
    predictor: SlicewisePredictor,
    truth_kji: NDArray,
    offset_kji: Sequence[int],
    rounds: int,
    simulator: ClickSimulator,
    *,
    prompt: Prompt = "point",
    first: ClickSimulator | None = None,
    corrects_boxes: bool = True,
    clock: Callable[[], float] = time.perf_counter,
) -> NoduleResult:
    """Evaluates a 2D model on one nodule: each round gives every slice of it that is not right yet one more click.

    Args:
        predictor: its image has been set.
        truth_kji: the nodule's block, non-zero inside.
        offset_kji: its first voxel in the volume.
        rounds: most clicks per slice.
        simulator: where they go, in 2D.
        prompt: "box": the first round gives each slice the box of its part of the nodule instead.
        first: where the clicks of the first round go instead.
        corrects_boxes: whether clicks follow a box.
        clock: measures the seconds per round.

    Raises:
        ValueError: no voxel of the nodule, or no round is wanted.
    """
    truth = np.asarray(truth_kji) != 0
    if not truth.any() or rounds < 1:
        raise ValueError("evaluation needs a nodule with voxels and at least one click")
    slices, origin = predictor.slices, np.asarray(offset_kji, dtype=int)
    trial = NoduleTrial(truth, origin, slices.ijk_to_ras, clock)
    boxes = _boxes(slices, truth, origin) if prompt == "box" else None
    for number in range(rounds):
        if number > 0 or boxes is None:
            if boxes is not None and not corrects_boxes:
                break
            clicks = _round(slices, trial, first if number == 0 and first is not None else simulator)
            if not clicks:
                break
            trial.points += [slices.ras_of(index)[0] for index, _ in clicks]
            trial.labels += [int(positive) for _, positive in clicks]
        trial.ask(predictor.predict, boxes=boxes)
    return trial.result(rounds)


def _round(
    slices: AxialSlices, trial: NoduleTrial, simulator: ClickSimulator
) -> list[tuple[tuple[int, int, int], bool]]:
    """One click (slice, row, column; sign) for every slice that is not right yet."""
    frame_truth, predicted, start = trial.frame()
    low, cut_truth = _cut(slices, frame_truth, start)
    _, cut_predicted = _cut(slices, predicted, start)
    clicks = []
    for number in np.flatnonzero(cut_truth.any(axis=(1, 2))):
        click = simulator.next_click(cut_truth[number], cut_predicted[number], slices.pixel_mm)
        if click is not None:
            (row, column), positive = click
            clicks.append(((int(number + low[0]), int(row + low[1]), int(column + low[2])), positive))
    return clicks


def _boxes(slices: AxialSlices, truth: NDArray, origin: NDArray) -> dict[int, NDArray]:
    """The box of each slice's part of the nodule, pixel edges included (pixel centers are whole numbers)."""
    low, cut = _cut(slices, truth, origin)
    boxes = {}
    for number in np.flatnonzero(cut.any(axis=(1, 2))):
        box = bounding_box(cut[number])
        assert box is not None  # the slice has voxels
        rows, columns = box
        edges = (columns.start, rows.start, columns.stop, rows.stop)
        boxes[int(number + low[0])] = np.array(edges, float) + np.array([low[2], low[1]] * 2) - 0.5
    return boxes


def _cut(slices: AxialSlices, block: NDArray, origin: NDArray) -> tuple[NDArray[np.int64], NDArray]:
    """A block [k, j, i] as (slices, rows, columns), and its first index there."""
    corners = np.stack([origin, origin + np.array(block.shape) - 1])
    there = slices.index_of(transform_points(slices.ijk_to_ras, corners[:, ::-1]))
    return there.min(axis=0), slices.view(block)
