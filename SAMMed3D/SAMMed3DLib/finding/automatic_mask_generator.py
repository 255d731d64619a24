"""All nodules of a volume at once: SAM's automatic mask generator in three dimensions.

As in "Segment Anything" (Kirillov et al. 2023) points are prompted in batches and masks are kept by quality. The
points are not a blind grid, though: a blob filter names places and sizes (:mod:`.candidates`), a small classifier
judges them (:mod:`.appearance`), the best are looked at in crops of their proper zoom, and the best of those are
clicked as a person would click them. What remains is suppressed as masks, not boxes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..inference.errors import InputError, PredictionCancelled
from ..inference.geometry import box_corners, extent_ras, transform_points, voxel_index, world_to_ijk
from ..inference.measurements import measure_nodule
from ..inference.postprocessing import Clicks, voxelize
from ..inference.prediction import Prediction
from ..inference.predictor import SamPredictor3D
from ..inference.validation import check_inside
from .appearance import appearance_of
from .candidates import Candidate, find_candidates
from .looks import Look, Looker, Place
from .lungs import LungMask, find_lungs
from .mask_nms import suppress
from .nodule_features import Agreement
from .nodule_score import LOWEST_SCORE, NoduleScore, default_score, shown_from

#: Shares of the whole work, for the progress.
_SHARES = {"lungs": 0.08, "candidates": 0.22, "appearance": 0.1, "looks": 0.35, "clicks": 0.25}
_STEPS = 1000
#: So many candidates are judged for each that may be looked at.
_JUDGED_PER_LOOK = 6
#: Objects this much smaller or larger than allowed in a coarse look are not clicked.
_SIZE_TOLERANCE = 1.5
#: A click tells more than a look: looks with this share of the lowest score are clicked too.
_WORTH_A_CLICK = 0.25
#: Of many thousand looks (a fine grid of points) so many for each mask that may be clicked are kept, the best.
_LOOKS_PER_MASK = 20


class SamAutomaticMaskGenerator3D:
    """Finds and segments all nodules of the predictor's image.

    With a checkpoint whose IoU head was trained, records are ranked by a calibrated probability; without (the public
    SAM-Med3D weights), by the stability of the mask, which says nothing of nodules: see :attr:`ranking`.

    Args:
        predictor: its image is set. Its cache is shared: clicking a found nodule's ``point_coords`` costs no encoding
            (as long as the cache is large enough for two crops per nodule).
        points_per_side: look at a regular grid of so many points along each side of the lungs' box instead of at
            candidates.
        points_per_batch: clicks decoded at once. On a CPU a few are as good as many.
        pred_iou_thresh: masks with a lower predicted IoU are dropped, where it is known.
        stability_score_thresh: masks with a lower stability are dropped.
        stability_score_offset: of the logits, for the stability.
        box_nms_thresh: of two masks with a larger IoU (of the masks, not of their boxes) the better one stays.
        containment_thresh: the same for the share of the smaller mask that lies in the other one.
        crop_overlap_ratio: points share a crop when they lie in its middle, 1 - crop_overlap_ratio of its edge.
        min_diameter_mm, max_diameter_mm: of the sphere of a mask's volume; others are dropped.
        point_candidates: look at these instead: (n, 3) points in RAS mm, or Candidates.
        lungs: "auto" searches in the lungs, and in the whole volume where there are none; "whole_volume" does not ask;
            a LungMask saves finding them again.
        min_score: records below this probability are not made. It bounds what the slider "more" can show. It says
            nothing where the score is no probability.
        max_candidates: looked at most, the likeliest first.
        max_masks: clicked at most, the best first: the bound of the time.
        score: how the looks at an object become a probability; None = the one that comes with the module.
        lung_finder, candidate_finder: what finds them.
        classifier: what tells how much a place looks like a nodule, as :func:`.appearance.appearance_of`.

    Attributes:
        candidates: of the last run.
        lungs_found: LungMask of the last run, None where the whole volume was searched.
        ranking: "probability" or "stability", what ``score`` of the records means.
        message: what users should know of the last run; "" if nothing.
        cancelled: whether the last run was.
    """

    def __init__(
        self,
        predictor: SamPredictor3D,
        points_per_side: int | None = None,
        points_per_batch: int = 4,
        pred_iou_thresh: float = 0.1,
        stability_score_thresh: float = 0.3,
        stability_score_offset: float = 1.0,
        box_nms_thresh: float = 0.3,
        containment_thresh: float = 0.6,
        crop_overlap_ratio: float = 0.7,
        min_diameter_mm: float = 3.0,
        max_diameter_mm: float = 40.0,
        point_candidates: ArrayLike | Sequence[Candidate] | None = None,
        lungs: Literal["auto", "whole_volume"] | LungMask = "auto",
        *,
        min_score: float = LOWEST_SCORE,
        max_candidates: int = 150,
        max_masks: int = 40,
        score: NoduleScore | None = None,
        lung_finder: Callable[..., LungMask] = find_lungs,
        candidate_finder: Callable[..., list[Candidate]] = find_candidates,
        classifier: Callable[..., NDArray[np.float64]] = appearance_of,
    ) -> None:
        if points_per_side is not None and point_candidates is not None:
            raise InputError("give either points_per_side or point_candidates, not both")
        if not 0 < min_diameter_mm < max_diameter_mm:
            raise InputError(f"sizes must be positive and ordered, not {min_diameter_mm} to {max_diameter_mm} mm")
        if points_per_batch < 1 or (points_per_side is not None and points_per_side < 1):
            raise InputError("points_per_batch and points_per_side must be 1 or more")
        self.predictor = predictor
        self.points_per_side = points_per_side
        self.points_per_batch = points_per_batch
        self.pred_iou_thresh = pred_iou_thresh
        self.stability_score_thresh = stability_score_thresh
        self.stability_score_offset = stability_score_offset
        self.box_nms_thresh = box_nms_thresh
        self.containment_thresh = containment_thresh
        self.crop_overlap_ratio = crop_overlap_ratio
        self.min_diameter_mm = min_diameter_mm
        self.max_diameter_mm = max_diameter_mm
        self.point_candidates = point_candidates
        self.lungs = lungs
        self.min_score = min_score
        self.max_candidates = max_candidates
        self.max_masks = max_masks
        self.score = score or default_score()
        self._find_lungs = lung_finder
        self._find_candidates = candidate_finder
        self._classify = classifier
        self._reset()

    def _reset(self) -> None:
        self.candidates: list[Candidate] = []
        self.lungs_found: LungMask | None = None
        self.cancelled = False
        self._messages: list[str] = []
        self._progress = _Progress(None)
        if self.ranking == "stability":
            self._messages.append(
                f"the checkpoint ({self.predictor.profile.name}) was not trained to predict its own quality: masks are "
                "ranked by their stability, and vessels are not told from nodules"
            )

    @property
    def ranking(self) -> Literal["probability", "stability"]:
        """What the score of a record means with this checkpoint."""
        return "probability" if self.predictor.profile.iou_head else "stability"

    @property
    def _lowest_score(self) -> float:
        """The lowest score of a record; where that is the stability, its own threshold alone decides."""
        return self.min_score if self.ranking == "probability" else self.stability_score_thresh

    @property
    def message(self) -> str:
        """What users should know of the last run."""
        return "; ".join(self._messages)

    def generate(self, progress: Callable[[int, int], bool | None] | None = None) -> list[dict[str, Any]]:
        """Find and segment.

        Args:
            progress: called with (done, total); returning False cancels, and what was found so far is returned.

        Returns:
            one dict per nodule, the best first: ``segmentation`` (uint8 block [k, j, i]) and ``offset_kji``, its first
            voxel; ``bbox`` [i, j, k, ni, nj, nk] and ``area`` in voxels; ``predicted_iou`` (None where unknown);
            ``stability_score``; ``point_coords`` [[R, A, S]] mm, the click; ``crop_box`` as bbox, the crop that was
            seen; ``score`` (see :attr:`ranking`) and ``shown_from``, the place of a slider between "fewer" (0) and
            "more" (1) from which on it is to be shown (0.5: by default); ``prediction``, to go on from with clicks;
            ``features`` and ``coarse_features`` (LookFeatures) of the last and the first look; ``response`` of the
            blob filter (NaN without it); ``appearance`` and ``coarse_appearance`` of the object and of the place that
            was looked at, log odds of the classifier (NaN where it was not asked); ``agreement`` of clicks elsewhere
            in it (None where none were made); ``measurements`` (NoduleRecord).

        Raises:
            InputError: no image is set, or the given points lie outside of it.
        """
        self._reset()
        self._progress = _Progress(progress)
        image = self.predictor.image_kji
        looks: list[tuple[float, Look]] = []
        found: list[_Found] = []
        try:
            places = self._places(image)
            looker = Looker(self.predictor, self.lungs_found, self.stability_score_offset)
            self._look_at(places, looker, looks)
            self._click(looks, looker, found)
            self._progress.at("clicks", 1.0)
        except PredictionCancelled:
            self.cancelled = True
            clicked = {id(each.look) for each in found}
            rest = [pair for pair in self._worth_clicking(looks) if id(pair[1]) not in clicked]
            found += [self._unclicked(score, look) for score, look in rest]
        return self._records(found)

    # -- where to look -----------------------------------------------------------------------------------------------

    def _places(self, image: NDArray) -> list[Place]:
        shape, matrix = image.shape, self.predictor.ijk_to_ras
        if isinstance(self.lungs, LungMask):
            self.lungs_found = self.lungs if self.lungs.found else None
        elif self.lungs == "auto":
            lungs = self._find_lungs(image, matrix, progress=self._progress.of("lungs"))
            self.lungs_found = lungs if lungs.found else None
            if not lungs.found:
                reason = lungs.message.partition(";")[0]
                self._messages.append(f"{reason}; the whole volume was searched")
            self._messages += lungs.notes
        if self.point_candidates is not None:
            given = list(cast("Sequence[Candidate | ArrayLike]", self.point_candidates))
            self.candidates = [each for each in given if isinstance(each, Candidate)]
            places = [_place_of(each) for each in given]
            check_inside(np.array([place.point_ras for place in places]).reshape(-1, 3), shape, matrix)
            places = self._judged(places)
        elif self.points_per_side is not None:
            places = [Place((r, a, s)) for r, a, s in self._grid(shape, matrix, self.points_per_side)]
        else:
            found = self._find_candidates(
                image,
                matrix,
                self.lungs_found,
                min_diameter_mm=self.min_diameter_mm,
                max_diameter_mm=self.max_diameter_mm,
                limit=_JUDGED_PER_LOOK * self.max_candidates,
                progress=self._progress.of("candidates"),
            )
            judged = self._judged([_place_of(each) for each in found])
            odds = [self.score.of_place(place.expected_mm, place.response, place.appearance) for place in judged]
            likeliest = sorted(range(len(found)), key=lambda n: -odds[n])[: self.max_candidates]
            self.candidates = [found[n] for n in likeliest]
            places = [judged[n] for n in likeliest]
        self._progress.at("appearance", 1.0)
        return [_on_voxel(place, shape, matrix) for place in places]

    def _judged(self, places: Sequence[Place]) -> list[Place]:
        """The places with what the classifier says of those whose size is expected."""
        self._progress.at("candidates", 1.0)
        sized = [n for n, place in enumerate(places) if np.isfinite(place.expected_mm)]
        odds = self._classify(
            self.predictor.image_kji,
            self.predictor.ijk_to_ras,
            [places[n].point_ras for n in sized],
            [places[n].expected_mm for n in sized],
            progress=self._progress.of("appearance"),
        )
        judged = list(places)
        for n, value in zip(sized, odds, strict=True):
            judged[n] = dataclasses.replace(places[n], appearance=float(value))
        return judged

    def _grid(self, shape: tuple[int, ...], matrix: NDArray, per_side: int) -> NDArray[np.float64]:
        """A regular grid of points over the lungs' box (or the volume's), those in the lungs only."""
        low, high = extent_ras(shape, matrix)
        lungs = self.lungs_found
        if lungs is not None:
            cells = np.argwhere(lungs.mask)[:, ::-1]
            corners = transform_points(lungs.grid_to_ras, np.stack([cells.min(axis=0), cells.max(axis=0)]))
            low, high = np.maximum(low, corners.min(axis=0)), np.minimum(high, corners.max(axis=0))
        steps = (np.arange(per_side) + 0.5) / per_side
        grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
        points = low + grid * (high - low)
        ijk = world_to_ijk(matrix, points)
        inside = np.all((ijk >= -0.5) & (ijk <= np.array(shape[::-1]) - 0.5), axis=1)
        if lungs is not None:
            inside &= lungs.share_at(points) > 0.5
        return points[inside]

    # -- looks and clicks --------------------------------------------------------------------------------------------

    def _look_at(self, places: Sequence[Place], looker: Looker, looks: list[tuple[float, Look]]) -> None:
        def done(batch: Sequence[Look], seen: int) -> None:
            looks.extend((self._score(look), look) for look in batch)
            most = _LOOKS_PER_MASK * self.max_masks
            if len(looks) > 2 * most:
                looks[:] = [(score, look.alone()) for score, look in sorted(looks, key=_falling)[:most]]
            self._progress.at("looks", seen / len(places))

        looker.look_at_all(places, self.points_per_batch, self.crop_overlap_ratio, done)

    def _worth_clicking(self, looks: Sequence[tuple[float, Look]]) -> list[tuple[float, Look]]:
        """The best looks of different objects of an allowed size, best first."""
        low, high = self.min_diameter_mm / _SIZE_TOLERANCE, self.max_diameter_mm * _SIZE_TOLERANCE
        kept: list[tuple[float, Look]] = []
        for score, look in sorted(looks, key=_falling):
            if len(kept) == self.max_masks or score < _WORTH_A_CLICK * self._lowest_score:
                break
            if not low <= look.features.diameter_mm <= high:
                continue
            if any(better.contains(look.features.center_ras) for _, better in kept):
                continue
            kept.append((score, look))
        return kept

    def _click(self, looks: Sequence[tuple[float, Look]], looker: Looker, found: list[_Found]) -> None:
        """Click the objects that are worth it, the best last, so that their embeddings are the newest in the cache."""
        chosen = self._worth_clicking(looks)
        zoom = self.predictor.zoom
        # the search knows about how large its candidates are: most of those that are not sure are no nodules
        self.predictor.zoom = dataclasses.replace(zoom, look_far=False)
        try:
            self._click_each(chosen, looker, found)
        finally:
            self.predictor.zoom = zoom

    def _click_each(self, chosen: Sequence[tuple[float, Look]], looker: Looker, found: list[_Found]) -> None:
        for number, (_, look) in enumerate(reversed(chosen)):
            self._progress.at("clicks", number / len(chosen))
            place = dataclasses.replace(look.place, point_ras=tuple(look.deepest_point()))
            place = _on_voxel(place, self.predictor.image_kji.shape, self.predictor.ijk_to_ras)
            prediction = self.predictor.predict([place.point_ras], [1])
            final = looker.describe(place, prediction.parts[-1], prediction.score)
            if final is not None:
                agreement = None
                if self.ranking == "probability":
                    final = dataclasses.replace(final, place=self._judged_as_object(final))
                    agreement = looker.agreement(final)
                found.append(_Found(self._score(final, agreement), look, final, prediction, agreement))

    def _judged_as_object(self, look: Look) -> Place:
        """The place of a look with what the classifier says of the object that was seen there, not of its place."""
        image, matrix, features = self.predictor.image_kji, self.predictor.ijk_to_ras, look.features
        [odds] = self._classify(image, matrix, [features.center_ras], [features.diameter_mm], mirrored=True)
        return dataclasses.replace(look.place, appearance=float(odds))

    def _unclicked(self, score: float, look: Look) -> _Found:
        """The mask of a coarse look: without a further encoding, for what a cancelled run has found."""
        shape, matrix = self.predictor.image_kji.shape, self.predictor.ijk_to_ras
        clicks = Clicks.of(np.array([look.place.point_ras]), np.array([True]), shape, matrix)
        mask, offset = voxelize((look.part,), self.predictor.image_kji, matrix, clicks)
        iou = look.features.predicted_iou if self.predictor.profile.iou_head else None
        prediction = Prediction(mask, offset, iou, look.part.logits, look.part.crop, (look.part,))
        return _Found(score, look, look, prediction)

    def _score(self, look: Look, agreement: Agreement | None = None) -> float:
        """Of what a look shows; with ``agreement``, of the object that was clicked."""
        if self.ranking == "stability":
            return look.features.stability
        if agreement is None:
            return self.score.of_look(look.features, look.place.response, look.place.appearance)
        return self.score(look.features, agreement, look.place.response, look.place.appearance)

    # -- the result --------------------------------------------------------------------------------------------------

    def _records(self, found: Sequence[_Found]) -> list[dict[str, Any]]:
        good = [each for each in found if self._is_good(each)]
        kept = suppress(
            [each.prediction for each in good],
            [each.score for each in good],
            self.box_nms_thresh,
            self.containment_thresh,
        )
        records = []
        for each in (good[index] for index in kept):
            record = self._record(each)
            if self.min_diameter_mm <= record["measurements"].equivalent_diameter_mm <= self.max_diameter_mm:
                records.append(record)
        return records

    def _is_good(self, each: _Found) -> bool:
        iou = each.prediction.score
        return (
            each.score >= self._lowest_score
            and (iou is None or iou >= self.pred_iou_thresh)
            and each.final.features.stability >= self.stability_score_thresh
        )

    def _record(self, each: _Found) -> dict[str, Any]:
        prediction, matrix = each.prediction, self.predictor.ijk_to_ras
        shape = self.predictor.image_kji.shape
        return {
            "segmentation": prediction.mask,
            "offset_kji": prediction.offset_kji,
            "bbox": [*prediction.offset_kji[::-1], *prediction.mask.shape[::-1]],
            "area": prediction.voxels,
            "predicted_iou": prediction.score,
            "stability_score": each.final.features.stability,
            "point_coords": [list(each.final.place.point_ras)],
            "crop_box": _box_in_voxels(prediction.crop, shape, matrix),
            "score": each.score,
            "shown_from": shown_from(each.score, self.ranking),
            "prediction": prediction,
            "features": each.final.features,
            "coarse_features": each.look.features,
            "response": each.look.place.response,
            "appearance": each.final.place.appearance,
            "coarse_appearance": each.look.place.appearance,
            "agreement": each.agreement,
            "measurements": measure_nodule(prediction, self.predictor.image_kji, matrix),
        }


class _Found:
    """An object that was clicked: its coarse look, the look after the click, and the mask."""

    def __init__(
        self, score: float, look: Look, final: Look, prediction: Prediction, agreement: Agreement | None = None
    ) -> None:
        self.score = score
        self.look = look
        self.final = final
        self.prediction = prediction
        self.agreement = agreement


class _Progress:
    """One count for all phases; raises PredictionCancelled when the callback says False."""

    def __init__(self, callback: Callable[[int, int], bool | None] | None) -> None:
        self._callback = callback
        self._last = -1

    def at(self, phase: str, share: float) -> None:
        """``share`` (0..1) of a phase is done."""
        before = sum(part for name, part in _SHARES.items() if list(_SHARES).index(name) < list(_SHARES).index(phase))
        done = round(_STEPS * (before + share * _SHARES[phase]))
        self._last = max(self._last, done)
        if self._callback is not None and self._callback(self._last, _STEPS) is False:
            raise PredictionCancelled("finding nodules was cancelled")

    def of(self, phase: str) -> Callable[[int, int], None]:
        """A callback (done, total) for one phase."""
        return lambda done, total: self.at(phase, done / max(total, 1))


def _falling(scored: tuple[float, Look]) -> float:
    """The key that sorts looks by falling score."""
    return -scored[0]


def _place_of(given: Candidate | ArrayLike) -> Place:
    if isinstance(given, Candidate):
        r, a, s = given.center_ras
        return Place((r, a, s), given.diameter_mm, given.response)
    point = np.asarray(given, dtype=np.float64)
    if point.shape != (3,) or not np.isfinite(point).all():
        raise InputError("point_candidates must be Candidates or points of shape (n, 3): R, A, S in mm")
    return Place((float(point[0]), float(point[1]), float(point[2])))


def _on_voxel(place: Place, shape_kji: tuple[int, ...], ijk_to_ras: NDArray) -> Place:
    """The place moved to the center of the voxel that holds it, within the volume."""
    index = np.clip(voxel_index(world_to_ijk(ijk_to_ras, place.point_ras)), 0, np.array(shape_kji[::-1]) - 1)
    point = transform_points(ijk_to_ras, index)
    return dataclasses.replace(place, point_ras=(float(point[0]), float(point[1]), float(point[2])))


def _box_in_voxels(crop: Any, shape_kji: tuple[int, ...], ijk_to_ras: NDArray) -> list[int]:
    """[i, j, k, ni, nj, nk] of the voxels that a crop covers within the volume."""
    corners = transform_points(crop.crop_to_ras, box_corners([-0.5] * 3, np.array(crop.shape) - 0.5))
    ijk = world_to_ijk(ijk_to_ras, corners)
    low = np.clip(np.floor(ijk.min(axis=0) + 0.5), 0, shape_kji[::-1]).astype(int)
    high = np.clip(np.ceil(ijk.max(axis=0) - 0.5) + 1, 0, shape_kji[::-1]).astype(int)
    return [*low.tolist(), *(high - low).tolist()]
