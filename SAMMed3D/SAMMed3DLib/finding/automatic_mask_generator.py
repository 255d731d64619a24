"""Finds and segments all nodules of a volume: SAM's automatic mask generator in three dimensions.

As in "Segment Anything" (Kirillov et al. 2023) points are prompted and masks are kept by quality. The points are not a
blind grid, though: a blob filter names places and sizes (:mod:`.candidates`), a small classifier judges them
(:mod:`.appearance`), and the likeliest are clicked as a person would click them, the likeliest first, so that the first
nodules are known while the search goes on. What remains is suppressed as masks, not boxes.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..inference.errors import InputError, PredictionCancelled
from ..inference.geometry import box_corners, transform_points, voxel_index, world_to_ijk
from ..inference.measurements import measure_nodule
from ..inference.prediction import Prediction
from ..inference.predictor import SamPredictor3D
from ..inference.validation import check_inside
from ..inference.zoom import deepest_point
from ..model.nodule_classifier import GFLOP as CLASSIFIER_GFLOP
from .appearance import MIRRORS, appearance_of
from .candidates import Candidate, find_candidates
from .detectors import LOWEST as LEAST_DETECTION
from .detectors import Detector
from .lungs import LungMask, extent_around, find_lungs
from .mask_nms import suppress
from .nodule_features import Agreement, ClickPlace, Look, Looker
from .nodule_score import LOWEST_SCORE, NoduleScore, default_score, joined, score_threshold, shown_from

#: Expected share of each phase in the whole time, for the progress until the phase has been timed.
_SHARES = {"lungs": 0.08, "candidates": 0.27, "appearance": 0.15, "clicks": 0.5}
#: Phases of the networks, whose pace tells that of the later ones once this share of one is done.
_TELLING, _TOLD_SHARE = ("detector", "appearance", "clicks"), 0.1
#: Time of a detector of record, where there is one, as a multiple of all the rest.
_DETECTOR_SHARE = 10.0
_STEPS = 1000
#: Number of places that the classifier judges.
JUDGED = 600
#: Number of these, those that stand out most, that are judged first, and number of the likeliest among them that are
#: clicked before the others are judged: users wait for the first nodules.
_JUDGED_FIRST, _CLICKED_FIRST = 120, 3
#: Number of places that are clicked whatever the cost, if they are not hopeless.
_FEWEST_CLICKS = 30
#: Places with at least this share of the lowest score are clicked too, since a click tells more than the place does.
_WORTH_A_CLICK = 0.25
#: The classifier has learned from nodules up to about this diameter in mm, and its crops hold no more: the two or three
#: larger places of a scan are clicked whatever it says.
_JUDGED_TO_MM = 30.0
#: An object of at least this diameter in mm whose middle is farther than this many radii from the click is clicked
#: there too, at most so often: of a mass, a click at its rim shows a piece.
_LARGE_MM, _OFF_CENTER, _MOST_MOVES = 20.0, 0.4, 2


class SamAutomaticMaskGenerator3D:
    """Finds and segments all nodules of the predictor's image.

    With a checkpoint whose IoU head was trained, records are ranked by a calibrated probability; without (the public
    SAM-Med3D weights), by the stability of the mask, which says nothing of nodules: see :attr:`ranking`.

    Args:
        predictor: its image is set. Its cache is shared: further clicks on a found nodule cost no encoding.
        points_per_side: click a regular grid of so many points along each side of the lungs' box instead of
            candidates, all of them.
        points_per_batch: number of clicks between two updates of :attr:`found_so_far`; the first nodule is
            told at once.
        pred_iou_thresh: masks with a lower predicted IoU are dropped, where it is known.
        stability_score_thresh: masks with a lower stability are dropped.
        stability_score_offset: of the logits, for the stability.
        box_nms_thresh: of two masks with a larger IoU (of the masks, not of their boxes) the better one stays.
        containment_thresh: the same for the share of the smaller mask that lies in the other one.
        min_diameter_mm, max_diameter_mm: of the sphere of a mask's volume; others are dropped.
        point_candidates: click these instead, all of them: (n, 3) points in RAS mm, or Candidates.
        lungs: "auto" searches in the lungs, and in the whole volume where there are none; "whole_volume" does not ask;
            a LungMask saves finding them again.
        min_score: records below this probability are not made. It bounds what the slider "more" can show. It says
            nothing where the score is no probability.
        max_candidates: clicked at most, the likeliest first; :attr:`message` tells what that leaves out. None: as many
            as are worth it.
        max_tflop: what the networks may spend, in 10^12 floating point operations, before only places that are rather
            nodules than not are clicked. Those are clicked all, and so are the 30 likeliest others.
        score: how a place and what a click shows there become probabilities; None = the one that comes with the module.
        lung_finder, candidate_finder: functions that find the lungs and the candidates.
        classifier: function that scores places, called as :func:`.appearance.appearance_of`.
        detector: a detector of record, whose boxes become places too: the thorough search. Scores are then those that
            it and ours give together (:func:`.nodule_score.joined`).
        clock: seconds, for the progress.

    Attributes:
        candidates: of the last run, those that were clicked or would have been next, the likeliest first.
        clicked: how many places of the last run were clicked.
        lungs_found: LungMask of the last run, None where the whole volume was searched.
        found_so_far: records of the run that is under way, the best first.
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
        min_diameter_mm: float = 3.0,
        max_diameter_mm: float = 60.0,
        point_candidates: ArrayLike | Sequence[Candidate] | None = None,
        lungs: Literal["auto", "whole_volume"] | LungMask = "auto",
        *,
        min_score: float = LOWEST_SCORE,
        max_candidates: int | None = None,
        max_tflop: float = 3.0,
        score: NoduleScore | None = None,
        lung_finder: Callable[..., LungMask] = find_lungs,
        candidate_finder: Detector = find_candidates,
        classifier: Callable[..., NDArray[np.float64]] = appearance_of,
        detector: Detector | None = None,
        clock: Callable[[], float] = time.perf_counter,
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
        self.min_diameter_mm = min_diameter_mm
        self.max_diameter_mm = max_diameter_mm
        self.point_candidates = point_candidates
        self.lungs = lungs
        self.min_score = min_score
        self.max_candidates = max_candidates
        self.max_tflop = max_tflop
        self.score = score or default_score()
        self._find_lungs = lung_finder
        self._find_candidates = candidate_finder
        self._classify = classifier
        self._detector = detector
        self._clock = clock
        self._reset()

    def _reset(self) -> None:
        self.candidates: list[Candidate] = []
        self.clicked = 0
        self.lungs_found: LungMask | None = None
        self.found_so_far: list[dict[str, Any]] = []
        self.cancelled = False
        self._messages: list[str] = []
        self._judgements = self._encodings = self._decodings = 0
        self._ahead: dict[ClickPlace, _Found | None] = {}
        self._spent_ahead = 0.0
        self._looker: Looker | None = None
        self._boxes: list[Candidate] = []
        self._progress = _Progress(None, self._clock, self._detector is not None)
        if self.ranking == "stability":
            self._messages.append(
                f"the checkpoint ({self.predictor.profile.name}) was not trained to predict its own quality: masks are "
                "ranked by their stability, and vessels are not told from nodules"
            )

    @property
    def ranking(self) -> Literal["probability", "stability"]:
        """Meaning of a record's score with this checkpoint."""
        return "probability" if self.predictor.profile.iou_head else "stability"

    @property
    def _lowest_score(self) -> float:
        """The lowest score of a record; where that is the stability, its own threshold alone decides."""
        return self.min_score if self.ranking == "probability" else self.stability_score_thresh

    @property
    def message(self) -> str:
        """Remarks on the last run for users; "" if there are none."""
        return "; ".join(self._messages)

    @property
    def seconds_left(self) -> float | None:
        """How long the run that is under way will take yet; None until a network has shown how fast this machine is."""
        return self._progress.seconds_left

    @property
    def tflop(self) -> float | None:
        """Operations that the networks of the last run took, in 10^12; None with a network of unknown cost."""
        cost = getattr(self.predictor.model, "gflop", None)
        if cost is None:
            return None
        encoding, decoding = cost
        spent = self._encodings * encoding + self._decodings * decoding + self._judgements * CLASSIFIER_GFLOP
        return float(spent) / 1000.0 + float(getattr(self._detector, "tflop", 0.0))

    def generate(self, progress: Callable[[int, int], bool | None] | None = None) -> list[dict[str, Any]]:
        """Finds and segments all objects of the image.

        Args:
            progress: called with (done, total), whose ratio is the share of the time as far as it is known; returning
                False cancels, and what was found so far is returned. :attr:`found_so_far` may be read meanwhile.

        Returns:
            one dict per nodule, the best first: ``segmentation`` (uint8 block [k, j, i]) and ``offset_kji``, its first
            voxel; ``bbox`` [i, j, k, ni, nj, nk] and ``area`` in voxels; ``predicted_iou`` (None where unknown);
            ``stability_score``; ``point_coords`` [[R, A, S]] mm, the click; ``crop_box`` as bbox, the crop that was
            seen; ``score`` (see :attr:`ranking`) and ``shown_from``, the place of a slider between "fewer" (0) and
            "more" (1) from which on it is to be shown (0.5: by default); ``prediction``, to go on from with clicks;
            ``features`` (LookFeatures) of the click; ``response`` of the blob filter (NaN without it); ``appearance``,
            log odds of the classifier for the object (NaN where it was not asked); ``agreement`` of clicks elsewhere
            in it (None where none were made); ``measurements`` (NoduleRecord).

        Raises:
            InputError: no image is set, or the given points lie outside of it.
        """
        self._reset()
        self._progress = _Progress(progress, self._clock, self._detector is not None)
        found: list[_Found] = []
        try:
            self._click_all(self._places(self.predictor.image_kji), found)
            self._progress.at("clicks", 1.0)
        except PredictionCancelled:
            self.cancelled = True
            found = self._known(found)
        self.found_so_far = self._records(found)
        return self.found_so_far

    # -- where to click ----------------------------------------------------------------------------------------------

    def _places(self, image: NDArray) -> list[ClickPlace]:
        """The places that may be clicked, the likeliest first."""
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
            places = [_on_voxel(place, shape, matrix) for place in places]
        elif self.points_per_side is not None:
            grid = self._grid(shape, matrix, self.points_per_side)
            places = [_on_voxel(ClickPlace((r, a, s)), shape, matrix) for r, a, s in grid]
        else:
            places = self._judged(image)
        self._progress.at("appearance", 1.0)
        return places

    def _judged(self, image: NDArray) -> list[ClickPlace]:
        """The candidates with their probabilities, the likeliest first, without the hopeless ones."""
        found: list[Candidate] = []
        for phase, finder in (("detector", self._detector), ("candidates", self._find_candidates)):
            if finder is not None:
                found += finder(
                    image,
                    self.predictor.ijk_to_ras,
                    self.lungs_found,
                    min_diameter_mm=self.min_diameter_mm,
                    max_diameter_mm=self.max_diameter_mm,
                    limit=JUDGED,
                    progress=self._progress.of(phase),
                )
        self._boxes = [each for each in found if not math.isnan(each.detection)]
        self._progress.at("candidates", 1.0)
        judged = self._judge(found[:_JUDGED_FIRST], 0, len(found))
        if len(found) > _JUDGED_FIRST:
            self._click_ahead(judged, _JUDGED_FIRST / len(found))
            judged += self._judge(found[_JUDGED_FIRST:], _JUDGED_FIRST, len(found))
        hopeless = _WORTH_A_CLICK * self.min_score
        order = [n for n in np.argsort([-place.probability for place in judged], kind="stable")]
        order = [n for n in order if judged[n].probability >= hopeless]
        if sum(map(self._is_likely, judged)) > len(found) // 2 and len(found) >= JUDGED:
            self._messages.append(f"more than {JUDGED} places stand out: there may be more nodules than are listed")
        if self.max_candidates is not None and len(order) > self.max_candidates:
            left = order[self.max_candidates :]
            likely = sum(self._is_likely(judged[n]) for n in left)
            self._messages.append(
                f"max_candidates={self.max_candidates} left out {len(left)} places that may be nodules, "
                f"{likely} of them likely ones"
            )
            order = order[: self.max_candidates]
        self.candidates = [found[n] for n in order]
        return [judged[n] for n in order]

    def _judge(self, found: Sequence[Candidate], before: int, total: int) -> list[ClickPlace]:
        """Candidates with their probabilities, after ``before`` of ``total`` were judged."""
        image, matrix = self.predictor.image_kji, self.predictor.ijk_to_ras
        centers, sizes = [each.center_ras for each in found], [each.diameter_mm for each in found]
        told = self._progress.of("appearance")
        odds = self._classify(image, matrix, centers, sizes, progress=lambda done, _: told(before + done, total))
        self._judgements += len(found)
        judged = []
        for each, value in zip(found, odds, strict=True):
            own = self.score.of_place(each.diameter_mm, each.response, float(value))
            chance = joined(own, self._detection(each.center_ras, each.diameter_mm))
            if each.diameter_mm >= _JUDGED_TO_MM:
                chance = max(chance, score_threshold(0.5))
            place = _on_voxel(_place_of(each), image.shape, matrix)
            judged.append(dataclasses.replace(place, probability=chance))
        return judged

    def _detection(self, center_ras: Sequence[float], diameter_mm: float) -> float:
        """Probability of the detector of record for an object: its best box there, its lowest where it named none; NaN
        where there is no detector."""
        if self._detector is None:
            return math.nan
        near = [
            box.detection
            for box in self._boxes
            if math.dist(box.center_ras, center_ras) < max(box.diameter_mm, diameter_mm) / 2.0
        ]
        return max(near, default=LEAST_DETECTION)

    def _is_likely(self, place: ClickPlace) -> bool:
        return place.probability >= score_threshold(0.5)

    def _grid(self, shape: tuple[int, ...], matrix: NDArray, per_side: int) -> NDArray[np.float64]:
        """A regular grid of points over the lungs' box (or the volume's), those in the lungs only."""
        lungs = self.lungs_found
        low, high = extent_around(shape, matrix, lungs)
        steps = (np.arange(per_side) + 0.5) / per_side
        grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
        points = low + grid * (high - low)
        ijk = world_to_ijk(matrix, points)
        inside = np.all((ijk >= -0.5) & (ijk <= np.array(shape[::-1]) - 0.5), axis=1)
        if lungs is not None:
            inside &= lungs.share_at(points) > 0.5
        return points[inside]

    # -- clicks ------------------------------------------------------------------------------------------------------

    def _click_ahead(self, judged: Sequence[ClickPlace], share: float) -> None:
        """Clicks the likeliest of the places that were judged first, so that the first nodules are on screen early.

        What they give is kept until their turn comes: the result is that of clicking all in the order of likelihood.
        """
        before = self.tflop or 0.0
        order = sorted(filter(self._is_likely, judged), key=lambda place: -place.probability)
        for place in order[: self.max_candidates]:
            if len(self._ahead) == _CLICKED_FIRST:
                break
            if not self._holds(self._known([]), place):
                self._ahead[place] = self._click(place)
                self.found_so_far = self._records(self._known([]))
                self._progress.at("appearance", share)
        self._spent_ahead = (self.tflop or 0.0) - before

    def _known(self, found: Sequence[_Found]) -> list[_Found]:
        """All objects that are known: those found in their turn, and those whose turn comes later."""
        return [*found, *(each for each in self._ahead.values() if each is not None and each not in found)]

    def _holds(self, found: Sequence[_Found], place: ClickPlace) -> bool:
        return any(each.holds(place.point_ras, self.predictor.ijk_to_ras) for each in found)

    def _click_all(self, places: Sequence[ClickPlace], found: list[_Found]) -> None:
        """Clicks the places that are worth it, except those inside an object that is known already."""
        before = (self.tflop or 0.0) - self._spent_ahead
        for number, place in enumerate(places):
            planned = self._planned(places, number, (self.tflop or 0.0) - before)
            if number >= planned:
                break
            self._progress.at("clicks", number / planned)
            if self._holds(found, place):
                continue
            one = self._ahead[place] if place in self._ahead else self._click(place)
            self.clicked += 1
            if one is not None:
                found.append(one)
            # the first good one is told at once: users wait for it
            if self.clicked % self.points_per_batch == 0 or (not self.found_so_far and one and self._is_good(one)):
                self.found_so_far = self._records(self._known(found))
                for record in reversed(self.found_so_far):
                    self.predictor.keep_ready(record["prediction"])

    def _planned(self, places: Sequence[ClickPlace], done: int, spent: float) -> int:
        """Returns how many of the places to click, after ``done`` of them have cost ``spent`` TFLOP.

        All that are rather nodules than not, and as many of the others as there is budget for.
        """
        likely = sum(map(self._is_likely, places))
        if not done or self.tflop is None:
            affordable = _FEWEST_CLICKS
        else:
            left = max(self.max_tflop - self.tflop, 0.0)
            affordable = max(_FEWEST_CLICKS, done + int(left / max(spent / done, 1e-9)))
        return min(len(places), max(likely, affordable))

    def _click(self, place: ClickPlace) -> _Found | None:
        """Click a place; None where the network sees nothing there."""
        predictor = self.predictor
        if self._looker is None:
            self._looker = Looker(predictor, self.lungs_found, self.stability_score_offset)
        looker, encodings, decodings = self._looker, predictor.encodings, predictor.decodings
        prediction = self._predict(place)
        if not _is_on_object(prediction, place):
            # the network sees the object beside the place, so the click goes to the object's middle
            place, prediction = self._moved(place, prediction)
        look, agreement, appearance = None, None, math.nan
        if _is_on_object(prediction, place):
            look = looker.describe(place, prediction.parts[-1], prediction.score)
        for _ in range(_MOST_MOVES):
            if look is None or look.features.diameter_mm < _LARGE_MM or look.features.off_center < _OFF_CENTER:
                break
            moved, clicked = self._moved(place, prediction)
            if moved == place or not _is_on_object(clicked, moved):
                break
            place, prediction = moved, clicked
            look = looker.describe(place, prediction.parts[-1], prediction.score)
        if look is not None and self.ranking == "probability":
            features = look.features
            [appearance] = self._classify(
                predictor.image_kji, predictor.ijk_to_ras, [features.center_ras], [features.diameter_mm], mirrored=True
            )
            self._judgements += MIRRORS
            agreement = looker.agreement(look)
        self._encodings += predictor.encodings - encodings
        self._decodings += predictor.decodings - decodings
        if look is None:
            return None
        score = look.features.stability
        if agreement is not None:
            own = self.score(look.features, agreement, place.response, float(appearance))
            score = joined(own, self._detection(look.features.center_ras, look.features.diameter_mm))
        return _Found(score, look, prediction, agreement, float(appearance))

    def _moved(self, place: ClickPlace, prediction: Prediction) -> tuple[ClickPlace, Prediction]:
        """The place moved to the middle of the object that a click there showed, and what a click there gives; both as
        they are where it showed none."""
        middle = deepest_point(prediction.parts[-1], np.array([place.point_ras]))
        if middle is None:
            return place, prediction
        moved = dataclasses.replace(place, point_ras=(float(middle[0]), float(middle[1]), float(middle[2])))
        moved = _on_voxel(moved, self.predictor.image_kji.shape, self.predictor.ijk_to_ras)
        return moved, self._predict(moved)

    def _predict(self, place: ClickPlace) -> Prediction:
        """The mask that a click gives. Unsure masks are not compared with a wider look, as they are for a person's
        click: the search knows roughly how large its candidates are, and most of the unsure ones are no nodules."""
        zoom = self.predictor.zoom
        self.predictor.zoom = dataclasses.replace(zoom, look_far=False)
        try:
            return self.predictor.predict([place.point_ras], [1])
        finally:
            self.predictor.zoom = zoom

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
            each.record = record = each.record or self._record(each)
            if self.min_diameter_mm <= record["measurements"].equivalent_diameter_mm <= self.max_diameter_mm:
                records.append(record)
        return records

    def _is_good(self, each: _Found) -> bool:
        iou = each.prediction.score
        return (
            each.score >= self._lowest_score
            and (iou is None or iou >= self.pred_iou_thresh)
            and each.look.features.stability >= self.stability_score_thresh
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
            "stability_score": each.look.features.stability,
            "point_coords": [list(each.look.place.point_ras)],
            "crop_box": _box_in_voxels(prediction.crop, shape, matrix),
            "score": each.score,
            "shown_from": shown_from(each.score, self.ranking),
            "prediction": prediction,
            "features": each.look.features,
            "response": each.look.place.response,
            "appearance": each.appearance,
            "agreement": each.agreement,
            "measurements": measure_nodule(prediction, self.predictor.image_kji, matrix),
        }


@dataclass(eq=False)
class _Found:
    """An object that was clicked: the look at it, its mask, and its record once that is asked for."""

    score: float
    look: Look
    prediction: Prediction
    agreement: Agreement | None
    appearance: float
    record: dict[str, Any] | None = None

    def holds(self, point_ras: ArrayLike, ijk_to_ras: NDArray) -> bool:
        """Whether a point lies in the mask."""
        index = voxel_index(world_to_ijk(ijk_to_ras, point_ras))[::-1] - np.array(self.prediction.offset_kji)
        inside = np.all(index >= 0) and np.all(index < np.array(self.prediction.mask.shape))
        return bool(inside and self.prediction.mask[tuple(index)])


class _Progress:
    """Reports the progress of all phases as one count; raises PredictionCancelled when the callback returns False.

    The count is the time spent as a share of what the whole will take: the rest of a phase as fast as what is done of
    it, later phases by their usual shares.

    Attributes:
        seconds_left: by the pace of this run alone; None until that says something.
    """

    def __init__(
        self, callback: Callable[[int, int], bool | None] | None, clock: Callable[[], float], detects: bool = False
    ) -> None:
        self._callback = callback
        rest = 1.0 / (1.0 + _DETECTOR_SHARE) if detects else 1.0
        shares = {name: rest * share for name, share in _SHARES.items()}
        self._shares = {"lungs": shares.pop("lungs"), "detector": 1.0 - rest, **shares}
        self._clock = clock
        self._begun = clock()
        self._phase, self._entered = "", self._begun
        self._last = 0
        self._network_pace: float | None = None
        self.seconds_left: float | None = None

    def at(self, phase: str, share: float) -> None:
        """Reports that ``share`` (0..1) of a phase is done."""
        now = self._clock()
        if phase != self._phase:
            self._phase, self._entered = phase, now
        names, shares = list(self._shares), self._shares
        before, after = (
            sum(shares[name] for name in part)
            for part in (names[: names.index(phase)], names[names.index(phase) + 1 :])
        )
        usual = before + share * shares[phase]
        elapsed, inside = now - self._begun, now - self._entered
        if elapsed > 0.0 and usual > 0.0:
            pace = elapsed / usual
            rest = inside * (1.0 - share) / share if share > 0.0 and inside > 0.0 else pace * shares[phase]
            usual = elapsed / (elapsed + rest + pace * after)
            if phase in _TELLING and share >= _TOLD_SHARE:
                self._network_pace = inside / (share * shares[phase])
            if self._network_pace is not None:
                # networks may be far slower here than what came before, or the machine just now
                slowest = max(pace, self._network_pace)
                usually = slowest * shares[phase] * (1.0 - share)
                own = rest if share >= _TOLD_SHARE else max(rest, usually)
                self.seconds_left = own + slowest * after
        if phase == names[-1] and share >= 1.0:
            usual = 1.0
        self._last = max(self._last, min(int(_STEPS * usual), _STEPS))
        if self._callback is not None and self._callback(self._last, _STEPS) is False:
            raise PredictionCancelled("finding nodules was cancelled")

    def of(self, phase: str) -> Callable[[int, int], None]:
        """A callback (done, total) for one phase."""
        return lambda done, total: self.at(phase, done / max(total, 1))


def _is_on_object(prediction: Prediction, place: ClickPlace) -> bool:
    """Tells whether the network sees an object at the point itself; if not, the mask is only the click's own voxels."""
    part = prediction.parts[-1]
    index = voxel_index(world_to_ijk(part.cells_to_ras, place.point_ras))
    inside = np.all(index >= 0) and np.all(index < np.array(part.logits.shape))
    return bool(inside and part.logits[tuple(index)] > 0.0)


def _place_of(given: Candidate | ArrayLike) -> ClickPlace:
    if isinstance(given, Candidate):
        r, a, s = given.center_ras
        return ClickPlace((r, a, s), given.response)
    point = np.asarray(given, dtype=np.float64)
    if point.shape != (3,) or not np.isfinite(point).all():
        raise InputError("point_candidates must be Candidates or points of shape (n, 3): R, A, S in mm")
    return ClickPlace((float(point[0]), float(point[1]), float(point[2])))


def _on_voxel(place: ClickPlace, shape_kji: tuple[int, ...], ijk_to_ras: NDArray) -> ClickPlace:
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
