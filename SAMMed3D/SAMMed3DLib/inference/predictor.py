"""Segments objects from clicks: the predictor that the command line, the panels, training and tests share."""

from __future__ import annotations

import dataclasses
import itertools
import warnings
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ..model.profile import PreprocessingProfile
from .embedding_cache import EmbeddingCache
from .errors import InputError, PredictionCancelled
from .field import Part, corrected, prior_logits
from .geometry import Affine, as_affine, transform_points
from .judgement import MASS_MM, Answer, ClickChange, choose, confirms, warnings_about
from .mask_prompt import logits_of_mask, mask_block, mask_extent
from .postprocessing import Clicks, voxelize
from .prediction import Prediction
from .preprocessing import Crop, crop_at, prepare_crop
from .validation import check_box, check_image, check_points, hounsfield_doubt
from .zoom import ObjectView, ZoomPolicy, best_view, deepest_point, distance_outside, points_elsewhere, view_object

#: A click this close to a crop's face (1 = in the middle) is about what lies beyond, and needs a crop of its own
#: where zooming out has ended.
_OUTER_SHELL = 0.1
#: First answers of a lower predicted IoU are compared with looks from these times the spacing.
_CONFIDENT = 0.55
_OTHER_LOOKS = (2.0**-0.25, 2.0**0.5)
#: A positive click at least so many radii and mm outside the mask asks for a larger object, which an answer is if it
#: has at least this share of the diameter asked for.
_FAR_OUTSIDE, _FAR_OUTSIDE_MM, _AS_ASKED = 0.5, 3.5, 0.8
#: Difference of predicted IoU from which one look is clearly better than another one.
_CLEARLY = 0.02

_Result = TypeVar("_Result")
_tokens = itertools.count()


class PromptableModel(Protocol):
    """A network that the predictor can use (:class:`SAMMed3DLib.model.Sam3D` is one)."""

    profile: PreprocessingProfile

    @property
    def device(self) -> torch.device: ...

    def encode(self, crop: Tensor) -> Tensor: ...

    def decode(
        self,
        embedding: Tensor,
        coords: Tensor | None,
        labels: Tensor | None,
        boxes: Tensor | None,
        mask: Tensor | None,
        multimask_output: bool = False,
    ) -> tuple[Tensor, Tensor]: ...


@dataclasses.dataclass(frozen=True, eq=False)
class _State:
    """State of one object after a click: its parts, and the decoder's answers on the newest."""

    parts: tuple[Part, ...]
    answers: tuple[NDArray[np.float32], ...] = ()
    scores: tuple[float, ...] = ()


class SamPredictor3D:
    """Segments objects of one volume from clicks, boxes and masks.

    An image is set once; its crops are encoded when a click needs them and kept in a cache; each click costs one
    decoding and one interpolation into the volume's voxels. Nothing of the volume's size is ever allocated but masks
    that reach as far. A predictor and its cache belong to one thread at a time.

    Args:
        model: a network with a profile.
        cache_bytes: memory bound of the embeddings.
        cache: a cache to share with others, instead of one of its own.
        zoom: the zoom policy; default: :class:`ZoomPolicy` of the model's profile.
        progress: called with a short text before each slow step (an encoding) and when the graphics memory ran out;
            returning False cancels: :class:`PredictionCancelled` is raised.

    Attributes:
        encodings, decodings: how many crops were encoded and how many prompts decoded so far.
    """

    def __init__(
        self,
        model: PromptableModel,
        cache_bytes: int = 256 * 2**20,
        *,
        cache: EmbeddingCache | None = None,
        zoom: ZoomPolicy | None = None,
        progress: Callable[[str], bool | None] | None = None,
    ) -> None:
        self.cache = EmbeddingCache(cache_bytes) if cache is None else cache
        self.progress = progress
        self._array: NDArray | None = None
        self._ijk_to_ras: Affine = np.eye(4)
        self._image_key: Hashable = None
        self.encodings = self.decodings = 0
        self._views: WeakKeyDictionary[Part, tuple[bytes, ObjectView | None]] = WeakKeyDictionary()
        self.set_model(model, zoom)

    def set_model(self, model: PromptableModel, zoom: ZoomPolicy | None = None) -> None:
        """Changes the network; the image stays. Embeddings of different networks are never mixed."""
        self.model = model
        self.zoom = ZoomPolicy(model.profile) if zoom is None else zoom
        self._model_token = next(_tokens)

    @property
    def profile(self) -> PreprocessingProfile:
        """The checkpoint's profile."""
        return self.model.profile

    @property
    def image_kji(self) -> NDArray:
        """The volume [k, j, i] as it was given. Raises InputError without one."""
        if self._array is None:
            raise InputError("no image is set: call set_image first")
        return self._array

    @property
    def ijk_to_ras(self) -> Affine:
        """Its 4x4 matrix, voxel index (i, j, k) to RAS mm."""
        return self._ijk_to_ras

    def set_image(self, array_kji: Any, ijk_to_ras: ArrayLike, *, identity: Hashable | None = None) -> None:
        """Sets the volume to segment; it is checked but neither copied nor encoded.

        Args:
            array_kji: (K, J, I) in HU, any numeric type and memory order (memory maps too). Do not change it in place
                without calling this again.
            ijk_to_ras: (4, 4) voxel index (i, j, k) to RAS mm; oblique, sheared and left-handed are all right.
            identity: equal for equal contents (volume id and modification time, say): embeddings are then found again
                when the user comes back to a volume.

        Raises:
            InputError: not 3D, not numbers, NaN or infinite values, a label map, a singular matrix. Warns where the
                values cannot be Hounsfield units.
        """
        affine = as_affine(ijk_to_ras)
        array = check_image(array_kji)
        doubt = hounsfield_doubt(array)
        if doubt:
            warnings.warn(str(doubt), stacklevel=2)
        self._array, self._ijk_to_ras = array, affine
        self._views.clear()
        self._image_key = next(_tokens) if identity is None else (identity, array.shape, affine.tobytes())

    def reset_image(self) -> None:
        """Forget the volume (and its memory); the cache stays."""
        self._array, self._image_key = None, None

    def predict(
        self,
        points_ras: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        *,
        box_ras: ArrayLike | None = None,
        mask: Any = None,
        previous: Prediction | None = None,
        multimask_output: bool = False,
        within: Crop | None = None,
    ) -> Prediction:
        """Segments one object from its clicks, a box or a mask.

        Args:
            points_ras: (n, 3) mm, ALL clicks of the object so far, the newest last.
            labels: (n,) 1 inside, 0 outside; None = all inside.
            box_ras: R0, A0, S0, R1, A1, S1 in mm, two opposite corners in any order.
            mask: an existing mask to start from: (K, J, I) array, 0 outside, or a Prediction. Clicks are applied on it.
            previous: the Prediction before the newest click. None replays: the clicks are fed one after the other,
                the first positive one first, with the very result of having clicked them.
            multimask_output: let the network give several answers; the best by predicted IoU is returned and the
                others are its ``alternatives``.
            within: draft the mask, while a click is being dragged: one decoding of all clicks in this crop on what
                ``previous`` (before the click that moves) has shown, and nothing is looked at twice. Where the crop
                does not hold the positive clicks, one at their middle is taken. Only for checkpoints that are shown
                all clicks.

        Returns:
            the mask block; with a positive click it is never empty.

        Raises:
            InputError: no image, no usable prompt, a point outside the volume, a prompt that the checkpoint was not
                trained for.
            PredictionCancelled: the progress callback returned False.
        """
        if self._array is None:
            raise InputError("no image is set: call set_image first")
        shape = self._array.shape
        points, positive = check_points(points_ras, labels, shape, self._ijk_to_ras)
        box = None if box_ras is None else check_box(box_ras, shape, self._ijk_to_ras)
        self._check_prompts(positive, box, mask, previous, multimask_output)
        clicks = Clicks.of(points, positive, shape, self._ijk_to_ras)

        if within is not None and mask is None and len(clicks) and self.profile.prompt_rule == "all":
            state = self._draft(within, clicks, box, previous)
        elif previous is not None:
            state = self._advance(self._adopt(previous), clicks, box, multimask_output)
        else:
            if mask is None and box is None:
                clicks = _first_positive_first(clicks)
            state = self._start(mask, box, multimask_output and not len(clicks))
            for count in range(1, len(clicks) + 1):
                state = self._advance(state, clicks.first(count), box, multimask_output and count == len(clicks))
        return self._finish(state, clicks, largest_only=box is not None)

    def decode_clicks(
        self, crop: Crop, anchor_ras: ArrayLike, points_ras: ArrayLike
    ) -> tuple[list[Part], list[float | None]]:
        """Decodes one positive click on each of several objects in one crop, all at once.

        For a search that looks at many places and needs voxels of a few only; :meth:`predict` is for people who click.

        Args:
            crop: its embedding is taken from the cache, or encoded and kept there.
            anchor_ras: (3,) whose surroundings give the intensity statistics, where the profile asks for any.
            points_ras: (n, 3) mm, in the crop.

        Returns:
            for each click its logits on the crop and the predicted IoU in [0, 1] (None where that was never trained).

        Raises:
            PredictionCancelled: the progress callback returned False.
        """
        anchor = np.asarray(anchor_ras, dtype=np.float64)
        points = np.reshape(np.asarray(points_ras, dtype=np.float64), (-1, 1, 3))
        answers, iou = self._answers(crop, anchor, points, np.array([True]))
        scores = np.clip(iou, 0.0, 1.0)
        known = [float(score) if self.profile.iou_head else None for score in scores]
        return [Part(crop, np.ascontiguousarray(answer), anchor) for answer in answers], known

    def keep_ready(self, prediction: Prediction) -> None:
        """Marks the embeddings of a prediction as just used, so that the next click on it costs no encoding."""
        for part in prediction.parts:
            self.cache.get(self._key(part.crop, part.anchor_ras))

    def with_volume_range(self, prediction: Prediction) -> Prediction:
        """Adds to a prediction the range of volumes that clicks elsewhere in its object give.

        This takes four more decodings, together, in the crop at hand, and no encoding. It is not part of
        :meth:`predict`, so that the mask can be shown first. A prediction that has no click, no object at its clicks
        or several crops is returned as it is.

        Raises:
            InputError: no image; PredictionCancelled: the progress callback returned False.
        """
        clicks = Clicks.of(prediction.points_ras, prediction.labels, self.image_kji.shape, self._ijk_to_ras)
        inside = clicks.positive_ras
        if len(prediction.parts) != 1 or not len(inside) or self.profile.prompt_rule != "all":
            return prediction
        part = prediction.parts[0]
        elsewhere = points_elsewhere(part, inside)
        own = view_object(part, inside, self.image_kji.shape, self._ijk_to_ras)
        if own is None or elsewhere is None:
            return prediction
        corrections = [] if len(clicks) == 1 else list(clicks.ras)
        signs = np.array([True] if len(clicks) == 1 else [True, *clicks.positive])
        prior = None if len(clicks) == 1 else part.logits
        answers, _ = self._answers(
            part.crop, part.anchor_ras, np.array([[point, *corrections] for point in elsewhere]), signs, prior
        )
        volumes = [own.diameter_mm**3]
        for answer, point in zip(answers, elsewhere, strict=True):
            seen = view_object(
                dataclasses.replace(part, logits=answer), point[None], self.image_kji.shape, self._ijk_to_ras
            )
            volumes.append(0.0 if seen is None else seen.diameter_mm**3)
        ratios = np.array(volumes) / volumes[0]
        return dataclasses.replace(prediction, volume_range=(float(ratios.min()), float(ratios.max())))

    def _answers(
        self,
        crop: Crop,
        anchor_ras: NDArray,
        points_ras: NDArray,
        positive: NDArray[np.bool_],
        prior: NDArray[np.float32] | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Decodes sets of clicks (B, n, 3) of signs (n,) in one crop: logits (B, ...) and predicted IoU (B,)."""
        coords = torch.from_numpy(crop.index_of(points_ras).astype(np.float32))
        labels = torch.from_numpy(np.broadcast_to(positive, coords.shape[:2]).astype(np.int64))
        mask = None
        if prior is not None:
            mask = torch.from_numpy(np.array(prior, dtype=np.float32))[None, None].expand(len(coords), -1, -1, -1, -1)

        def run() -> tuple[Tensor, Tensor]:
            embedding, device = self._embedding(crop, anchor_ras), self.model.device
            logits = None if mask is None else mask.to(device)
            return self.model.decode(
                embedding, coords.to(device), labels.to(device), None, logits, multimask_output=False
            )

        logits, iou = self._with_memory(run)
        self.decodings += len(logits)
        answers = np.ascontiguousarray(logits[:, 0].float().cpu().numpy())
        answers.setflags(write=False)
        return answers, iou[:, 0].float().cpu().numpy()

    def _check_prompts(
        self,
        positive: NDArray[np.bool_],
        box: NDArray | None,
        mask: Any,
        previous: Prediction | None,
        multimask_output: bool,
    ) -> None:
        name = self.profile.name
        if box is not None and not self.profile.boxes:
            raise InputError(f"the checkpoint ({name}) was not trained for boxes: click instead, or take one that was")
        if multimask_output and not self.profile.multimask:
            raise InputError(f"the checkpoint ({name}) was not trained for multimask output: ask for a single mask")
        if mask is not None and previous is not None:
            raise InputError("give either mask (a new start) or previous (the last prediction), not both")
        if mask is None and box is None and previous is None and not positive.any():
            raise InputError("the first click must be positive: click inside the object (or give a box or a mask)")

    # -- one click ---------------------------------------------------------------------------------------------------

    def _start(self, mask: Any, box: NDArray | None, multimask: bool) -> _State:
        """The state before the first click, from a mask or a box alone."""
        if mask is not None:
            block, offset = mask_block(mask, self.image_kji.shape)
            diameter, extent, center = mask_extent(block, offset, self._ijk_to_ras)
            crop = self._crop(center, self.zoom.spacing_for(diameter, extent))
            logits = logits_of_mask(block, offset, self._ijk_to_ras, crop, self._cells)
            return self._decode(crop, center, None, box, logits, (), multimask)
        if box is not None:
            extent, center = box[1] - box[0], box.mean(axis=0)
            crop = self._crop(center, self.zoom.spacing_for(float(np.prod(extent)) ** (1.0 / 3.0), extent))
            return self._decode(crop, center, None, box, None, (), multimask)
        return _State(())

    def _advance(self, state: _State, clicks: Clicks, box: NDArray | None, multimask: bool) -> _State:
        """The state after the newest click."""
        if not len(clicks):
            part, others = state.parts[-1], state.parts[:-1]
            return self._decode(part.crop, part.anchor_ras, None, box, part.logits, others, multimask)
        if not state.parts:
            return self._look(clicks, box, multimask)
        if box is not None or self.profile.prompt_rule != "all":
            return self._carried_on(state, clicks, box, multimask)
        depth = max(part.interiority(clicks.ras[-1]) for part in state.parts)
        if confirms(state.parts, clicks) and (depth > _OUTER_SHELL or not clicks.positive[-1]):
            return state  # the click agrees with the mask as it is and asks for nothing
        grown = self._grown(state, clicks, multimask)
        if grown is not None:
            return grown
        after = self._carried_on(state, clicks, box, multimask)
        if after is state or not clicks.positive.any():
            return after
        return self._steadied(state, self._believed(state, after, clicks, multimask), clicks)

    def _look(self, clicks: Clicks, box: NDArray | None, multimask: bool) -> _State:
        """The state that the clicks alone give, without an earlier mask: the first look at an object."""
        inside = clicks.only(clicks.positive)
        low, high = inside.kji.min(axis=0), inside.kji.max(axis=0)
        # crops are centered on voxels, so that all clicks in one voxel share an embedding
        middle = transform_points(self._ijk_to_ras, ((low + high) / 2.0)[::-1])
        anchor = transform_points(self._ijk_to_ras, inside.kji[-1][::-1])
        spacing = self.profile.spacing_mm
        if spacing is not None:
            spacing = max(spacing, self.zoom.spacing_for_clicks(inside.ras))
        first = self._decode(self._crop(middle, spacing), anchor, clicks, box, None, (), multimask)
        near = self._zoomed(first, clicks, box, multimask)
        if box is not None or self.profile.prompt_rule != "all":
            return near
        answer = self._answer(near, clicks)
        if spacing is None or not self.zoom.look_far:
            return near
        if answer.view is not None and answer.score is not None and answer.score < _CONFIDENT:
            near = self._other_looks(near, clicks, multimask)
            answer = self._answer(near, clicks)
        if spacing >= self.zoom.coarsest_mm or (answer.is_sure and not answer.may_be_a_piece):
            return near
        # in a mass there is no border, or only a piece of one, to be seen from close by
        away = self.profile.spacing_range_mm[1] if answer.is_sure else self.zoom.coarsest_mm
        first = self._decode(self._crop(middle, away), anchor, clicks, None, None, (), multimask)
        far = self._zoomed(first, clicks, None, multimask)
        whole = self._answer(far, clicks)
        if answer.is_sure:
            return far if whole.is_mass else near
        return far if whole.rank > answer.rank else near

    def _other_looks(self, near: _State, clicks: Clicks, multimask: bool) -> _State:
        """The latest look, or one a step closer or two steps further away, if the network believes that clearly more.

        Clicks that an answer leaves out do not speak against it: people click beside small nodules, too.
        """
        part, best = near.parts[-1], near
        for factor in _OTHER_LOOKS:
            crop = self.zoom.crop_beside(part.crop, factor, clicks.positive_ras, self._ijk_to_ras)
            if crop.key == part.crop.key:
                continue
            look = self._looked_again(part, crop, clicks, multimask)
            view = self._view(look, clicks)
            if view is not None and not view.touches_border and self._believed_more(look, best):
                best = look
        return best

    def _draft(self, crop: Crop, clicks: Clicks, box: NDArray | None, previous: Prediction | None) -> _State:
        """The state that one decoding gives, without another look."""
        inside = clicks.positive_ras
        if not all(crop.contains(click) for click in inside):
            low, high = inside.min(axis=0), inside.max(axis=0)
            spacing = max(crop.spacing_mm, self.zoom.spacing_for_clicks(inside))
            crop = self._crop((low + high) / 2.0, None if self.profile.spacing_mm is None else spacing)
        parts = () if previous is None else self._adopt(previous).parts
        anchor = parts[-1].anchor_ras if parts else crop.center_ras
        prior = prior_logits(parts, crop, self._cells) if parts else None
        return self._decode(crop, anchor, clicks, box, prior, (), False)

    def _looked_again(self, seen: Part, crop: Crop, clicks: Clicks, multimask: bool) -> _State:
        """The state of a second look at an object that is known from clicks alone.

        A single click is replaced by one in the middle of the object's thickest part, or joined by it where the answer
        would leave the click out: so the answer depends little on where the user clicked.
        """
        middle = deepest_point(seen, clicks.positive_ras) if np.count_nonzero(clicks.positive) == 1 else None
        if middle is None:
            return self._decode(crop, seen.anchor_ras, clicks, None, None, (), multimask)
        ras = np.where(clicks.positive[:, None], middle, clicks.ras)
        moved = Clicks.of(ras, clicks.positive, self.image_kji.shape, self._ijk_to_ras)
        look = self._decode(crop, seen.anchor_ras, moved, None, None, (), multimask)
        if confirms(look.parts, clicks):
            return look
        ras, positive = np.vstack([middle, clicks.ras]), np.append(True, clicks.positive)
        both = Clicks.of(ras, positive, self.image_kji.shape, self._ijk_to_ras)
        return self._decode(crop, seen.anchor_ras, both, None, None, (), multimask)

    def _grown(self, state: _State, clicks: Clicks, multimask: bool) -> _State | None:
        """The state after a positive click far outside the mask, which was a piece of something larger.

        The click lies in the middle of what is missing, so that the object reaches about as far beyond it: all clicks
        are shown at the spacing of such an object, without the mask. None where the click does not ask for that, or
        where the answer is not of about that size or does not hold the mask and the clicks.
        """
        if not self._can_zoom_out(state.parts) or not clicks.positive[-1]:
            return None
        part, view = state.parts[0], self._view(state, clicks.first(len(clicks) - 1))
        if view is None or view.diameter_mm >= MASS_MM:
            return None
        missing = distance_outside(part, clicks.ras[-1])
        if missing <= max(_FAR_OUTSIDE * view.diameter_mm / 2.0, _FAR_OUTSIDE_MM):
            return None
        size = view.diameter_mm + 2.0 * missing
        crop = self.zoom.crop_of_all(view, part.crop, clicks.positive_ras, self._ijk_to_ras, size)
        if not all(crop.contains(click) for click in clicks.positive_ras):
            return None
        grown = self._decode(crop, part.anchor_ras, clicks, None, None, (), multimask)
        old, answer = self._answer(state, clicks), self._answer(grown, clicks)
        as_asked = answer.is_whole and answer.diameter_mm >= _AS_ASKED * size and not answer.ignored.any()
        return grown if as_asked and answer.is_sure and not answer.is_odd(old) else None

    def _carried_on(self, state: _State, clicks: Clicks, box: NDArray | None, multimask: bool) -> _State:
        """The state that the newest click gives on the mask so far."""
        newest = clicks.ras[-1]
        part = max(state.parts, key=lambda part: part.interiority(newest))
        depth = part.interiority(newest)
        if depth <= 0.0 and not clicks.positive[-1] and box is None:
            return state  # the mask does not reach there
        if depth <= (0.0 if self._can_zoom_out(state.parts) else _OUTER_SHELL):
            return self._beside(state, clicks, box, multimask)
        prior = prior_logits(state.parts, part.crop, self._cells)
        others = tuple(other for other in state.parts if other is not part)
        after = self._decode(part.crop, part.anchor_ras, clicks, box, prior, others, multimask)
        if others or box is not None:
            return after
        return self._zoomed(after, clicks, box, multimask, before=state)

    def _beside(self, state: _State, clicks: Clicks, box: NDArray | None, multimask: bool) -> _State:
        """The state after a click outside the crop: a coarser crop of all, or where none is coarse enough, one more."""
        part, inside = state.parts[-1], clicks.positive_ras
        if self._can_zoom_out(state.parts):
            view = self._view(state, clicks.first(len(clicks) - 1))
            crop = self.zoom.crop_of_all(view, part.crop, inside, self._ijk_to_ras)
            if all(crop.contains(click) for click in inside):
                prior = prior_logits(state.parts, crop, self._cells)
                after = self._decode(crop, part.anchor_ras, clicks, box, prior, (), multimask)
                return after if box is not None else self._zoomed(after, clicks, box, multimask, before=state)
        anchor = transform_points(self._ijk_to_ras, clicks.kji[-1][::-1])
        crop = self._crop(anchor, part.crop.spacing_mm)
        prior = prior_logits(state.parts, crop, self._cells)
        return self._decode(crop, anchor, clicks, box, prior, state.parts, multimask)

    def _believed(self, before: _State, after: _State, clicks: Clicks, multimask: bool) -> _State:
        """The state to go on with: the answer to the newest click, or another one where that cannot be believed.

        Where the answer ignores a click or changes what the click did not mean, the old mask may be what misleads it:
        then the clicks are shown without that mask, in the crop at hand and, if that does not do either, from the
        beginning. What none of the answers mends stays as it was; the click is then obeyed in its surroundings only.
        """
        if len(after.parts) > 1:
            return after  # the object is seen piece by piece
        old, carried = self._answer(before, clicks), self._answer(after, clicks)
        if not carried.is_doubtful(old):
            return after
        states, answers = [after], [carried]
        part = after.parts[-1]
        if all(part.crop.contains(click) for click in clicks.positive_ras):
            states.append(self._decode(part.crop, part.anchor_ras, clicks, None, None, (), multimask))
            answers.append(self._answer(states[-1], clicks))
        if all(answer.is_wrong(old) for answer in answers):
            states.append(self._look(clicks, None, multimask))
            answers.append(self._answer(states[-1], clicks))
        kept = choose(old, answers)
        return before if kept is None else states[kept]

    def _steadied(self, before: _State, after: _State, clicks: Clicks) -> _State:
        """The state after a correction, which counts less the further from its click; a new mask counts as it is."""
        if after is before or len(before.parts) != 1 or len(after.parts) != 1:
            return after
        part = after.parts[0]
        old = dataclasses.replace(part, logits=prior_logits(before.parts, part.crop, self._cells))
        if not ClickChange.between((old,), after.parts).is_small:
            return after
        part = corrected(part, old.logits, clicks.ras[-1])
        return dataclasses.replace(after, parts=(part,), answers=(part.logits, *after.answers[1:]))

    def _answer(self, state: _State, clicks: Clicks) -> Answer:
        score = state.scores[0] if self.profile.iou_head and state.scores else None
        return Answer(state.parts, clicks, self._view(state, clicks), score)

    def _zoomed(
        self, look: _State, clicks: Clicks, box: NDArray | None, multimask: bool, before: _State | None = None
    ) -> _State:
        """Look again at the spacing and place that the latest look asks for, and keep the best of the looks.

        ``before`` is the state before the newest click, None on the first one.
        """
        inside = clicks.positive_ras
        if not len(inside):
            return look
        looks, views = [look], [self._view(look, clicks)]
        if before is not None and _leaves_crop(views[0]) and _leaves_crop(self._view(before, clicks)):
            return look  # zooming out did not help before
        while True:
            part = looks[-1].parts[-1]
            tried = [look.parts[-1].crop.spacing_mm for look in looks]
            crop = self.zoom.next_crop(views[-1], part.crop, tried, inside, self._ijk_to_ras, first=before is None)
            if crop is None:
                break
            if before is None and box is None and self.profile.prompt_rule == "all":
                looks.append(self._looked_again(part, crop, clicks, multimask))
            else:
                prior = None if before is None else prior_logits(before.parts, crop, self._cells)
                looks.append(self._decode(crop, part.anchor_ras, clicks, box, prior, (), multimask))
            views.append(self._view(looks[-1], clicks))
        best = best_view(views)
        spacings = [look.parts[-1].crop.spacing_mm for look in looks]
        moved_only = before is None and best == 1 and spacings[0] == spacings[1]
        return looks[0] if moved_only and self._believed_more(looks[0], looks[1]) else looks[best]

    def _believed_more(self, look: _State, other: _State) -> bool:
        """Whether the network clearly believes one look more than another one."""
        return self.profile.iou_head and look.scores[0] > other.scores[0] + _CLEARLY

    def _view(self, state: _State, clicks: Clicks) -> ObjectView | None:
        return self._view_of(state.parts[-1], clicks)

    def _view_of(self, part: Part, clicks: Clicks) -> ObjectView | None:
        """The object at the positive clicks in a part; measured once, however many rules ask."""
        inside = clicks.positive_ras
        known = self._views.get(part)
        if known is None or known[0] != inside.tobytes():
            known = inside.tobytes(), view_object(part, inside, self.image_kji.shape, self._ijk_to_ras)
            self._views[part] = known
        return known[1]

    def _can_zoom_out(self, parts: Sequence[Part]) -> bool:
        """Whether an object that leaves the crop could still be seen whole in a coarser one."""
        coarsest = self.zoom.coarsest_mm - 1e-6
        return len(parts) == 1 and self.profile.spacing_mm is not None and parts[0].crop.spacing_mm < coarsest

    def _crop(self, center_ras: NDArray, spacing_mm: float | None) -> Crop:
        return crop_at(center_ras, spacing_mm, self.profile, self._ijk_to_ras)

    def _adopt(self, previous: Prediction) -> _State:
        """The state of an earlier prediction, resampled if it comes from a network with other crops."""
        parts = previous.parts or (Part(previous.crop, previous.logits, previous.crop.center_ras),)
        if all(part.crop.shape == self.profile.crop_size and part.logits.shape == self._cells for part in parts):
            return _State(parts, (parts[-1].logits,), () if previous.score is None else (previous.score,))
        edge = parts[-1].crop.spacing_mm * float(np.mean(parts[-1].crop.shape))
        low, high = self.profile.spacing_range_mm
        spacing = float(np.clip(edge / float(np.mean(self.profile.crop_size)), low, high))
        crop = self._crop(parts[-1].crop.center_ras, spacing)
        return _State((Part(crop, prior_logits(parts, crop, self._cells), parts[-1].anchor_ras),))

    # -- the network -------------------------------------------------------------------------------------------------

    @property
    def _cells(self) -> tuple[int, int, int]:
        return tuple(getattr(self.model, "low_res_size", (32, 32, 32)))

    def _decode(
        self,
        crop: Crop,
        anchor_ras: NDArray,
        clicks: Clicks | None,
        box: NDArray | None,
        prior: NDArray[np.float32] | None,
        others: Sequence[Part],
        multimask: bool,
    ) -> _State:
        """Prompt the network on a crop; its best answer becomes the newest part."""
        coords = point_labels = boxes = mask = None
        if clicks is not None:
            shown = self._shown(clicks, crop)
            coords = torch.from_numpy(crop.index_of(shown.ras).astype(np.float32))[None]
            point_labels = torch.from_numpy(shown.positive.astype(np.int64))[None]
        if box is not None:
            corners = crop.index_of(box)
            low, high = corners.min(axis=0), corners.max(axis=0)
            boxes = torch.from_numpy(np.concatenate([low, high]).astype(np.float32))[None]
        if prior is not None:
            mask = torch.from_numpy(np.array(prior, dtype=np.float32))[None, None]

        def run() -> tuple[Tensor, Tensor]:
            embedding = self._embedding(crop, anchor_ras)
            shown = [None if p is None else p.to(self.model.device) for p in (coords, point_labels, boxes, mask)]
            return self.model.decode(embedding, shown[0], shown[1], shown[2], shown[3], multimask_output=multimask)

        logits, iou = self._with_memory(run)
        self.decodings += 1
        answers = [np.ascontiguousarray(answer, dtype=np.float32) for answer in logits[0].float().cpu().numpy()]
        scores = [float(score) for score in iou[0].float().cpu().numpy()]
        order = sorted(range(len(answers)), key=lambda index: -scores[index])
        for answer in answers:
            answer.setflags(write=False)
        best = Part(crop, answers[order[0]], np.asarray(anchor_ras, dtype=np.float64))
        return _State((*others, best), tuple(answers[n] for n in order), tuple(scores[n] for n in order))

    def _shown(self, clicks: Clicks, crop: Crop) -> Clicks:
        """The clicks that the network sees: the newest, or all in the crop, as the checkpoint was trained."""
        newest = np.arange(len(clicks)) == len(clicks) - 1
        if self.profile.prompt_rule == "newest":
            return clicks.only(newest)
        return clicks.only(newest | np.array([crop.contains(point) for point in clicks.ras]))

    def _embedding(self, crop: Crop, anchor_ras: NDArray) -> Tensor:
        """The crop's embedding on the model's device, from the cache or the encoder."""
        key = self._key(crop, anchor_ras)
        embedding = self.cache.get(key)
        if embedding is None:
            self._report("Encoding")
            prepared = prepare_crop(self.image_kji, self._ijk_to_ras, crop, self.profile, anchor_ras)
            embedding = self.model.encode(torch.from_numpy(prepared)[None].to(self.model.device))
            self.encodings += 1
            self.cache.put(key, embedding)
        return embedding.to(self.model.device)

    def _key(self, crop: Crop, anchor_ras: NDArray) -> Hashable:
        """The cache key: everything that an embedding depends on."""
        by_click = self.profile.intensity == "zscore_positive"
        anchor = (np.round(anchor_ras, 6) + 0.0).tobytes() if by_click else b""
        return self._model_token, self._image_key, crop.key, anchor

    def _with_memory(self, run: Callable[[], _Result]) -> _Result:
        """Calls ``run()``; when the graphics memory is exhausted, once more on the CPU."""
        try:
            return run()
        except torch.OutOfMemoryError:
            if torch.device(self.model.device).type == "cpu":
                raise
        message = "out of graphics memory: going on on the CPU, more slowly"
        warnings.warn(message, RuntimeWarning, stacklevel=2)
        self._report(message)
        self.cache.clear()
        move = getattr(self.model, "to_device", None) or getattr(self.model, "to")  # noqa: B009  # a network of torch
        move("cpu")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return run()

    def _report(self, message: str) -> None:
        if self.progress is not None and self.progress(message) is False:
            raise PredictionCancelled("the prediction was cancelled")

    # -- the result --------------------------------------------------------------------------------------------------

    def _finish(self, state: _State, clicks: Clicks, *, largest_only: bool) -> Prediction:
        """Makes the Prediction: voxels for the newest part's answers, the best first."""
        newest, others = state.parts[-1], state.parts[:-1]
        answers = state.answers or (newest.logits,)
        known = self.profile.iou_head and state.scores
        scores: Sequence[float | None] = state.scores if known else [None] * len(answers)
        predictions = []
        for logits, score in zip(answers, scores, strict=True):
            part = newest if logits is newest.logits else Part(newest.crop, logits, newest.anchor_ras)
            parts = (*others, part)
            mask, offset = voxelize(parts, self.image_kji, self._ijk_to_ras, clicks, largest_only=largest_only)
            bounded = None if score is None else float(np.clip(score, 0.0, 1.0))
            view = self._view_of(part, clicks)
            told = warnings_about(Answer(parts, clicks, view, bounded), self.profile.spacing_range_mm[1])
            predictions.append(
                Prediction(
                    mask,
                    offset,
                    bounded,
                    logits,
                    newest.crop,
                    parts,
                    points_ras=clicks.ras,
                    labels=clicks.positive,
                    warnings=told,
                )
            )
        return dataclasses.replace(predictions[0], alternatives=tuple(predictions[1:]))


def _leaves_crop(view: ObjectView | None) -> bool:
    return view is not None and view.touches_border


def _first_positive_first(clicks: Clicks) -> Clicks:
    """Puts clicks into the order of a replay: as clicked, but the first positive one leads."""
    lead = int(np.argmax(clicks.positive))
    return clicks.only(np.array([lead, *(n for n in range(len(clicks)) if n != lead)], dtype=np.int64))
