"""Compares nodules at two dates: registration of the scans, one-to-one matching, change and doubling time.

The prior is registered to the current scan by the lungs' boxes, then by an affine on the scans at 3 mm (SimpleITK,
correlation within the lungs). Nodules are matched all at once: by the remaining distance, by volume and by type.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

from ..files.itk_io import flip_lps_ras, place_image
from ..inference.errors import InputError, PredictionCancelled
from ..inference.geometry import extent_ras, transform_points
from .findings import Caveat, Change, Findings, FollowUp, Interval, Nodule, Pair, PairStatus, Point, tracking_uid
from .measuring import repeat_limit
from .scan_facts import CHANGE, COUNT, DENSITY, MASS, days_between

if TYPE_CHECKING:
    from ..finding.coarse_grid import CoarseVolume
    from ..finding.lungs import LungMask

#: (done, total) -> False cancels.
Progress = Callable[[int, int], object]

_CELL_MM, _MOST_CELLS = 3.0, 4_000_000
#: Values are clipped to this range, beyond which they say nothing of where lungs and vessels are.
_RANGE_HU = (-1000.0, 200.0)
#: Width of the margin around the lungs that takes part: ribs and diaphragm steady the registration.
_MARGIN_MM = 9.0
#: Shrink factors and smoothing (in cells of 3 mm) of the levels, share of voxels sampled, most iterations.
_LEVELS = ((4, 1.5), (2, 1.0), (1, 0.5))
_SAMPLED, _ITERATIONS = 0.2, 60
#: A registration of less correlation, or with lungs that overlap less (Dice), has failed.
_LEAST_CORRELATION, _LEAST_OVERLAP = 0.6, 0.75
#: Scans of two patients reached 0.75 (12 of 20 pairs of five CTs came to 0.6 and more), made-up follow-ups of CTs 0.98.
_SURE_CORRELATION = 0.8
#: Least and largest factor by which breathing may stretch the lungs.
_STRETCH = (0.6, 1.67)

#: Nodules further apart than this after the registration are different ones.
FARTHEST_MM = 15.0
#: Costs of matching, each of which weighs as much as the others: mm of distance, a factor of volume, another type.
_DISTANCE_MM, _VOLUME_FACTOR, _TYPE_COST = 5.0, 2.5, 0.5
#: Pairs of a higher cost than this are not matched.
_HIGHEST_COST = 4.0
#: What is left after a failed registration.
_BY_HAND = "Nodules can be matched by hand"


@dataclass(frozen=True, eq=False)
class Registration:
    """The registration of the prior scan to the current one.

    Attributes:
        prior_to_current: (4, 4), RAS mm to RAS mm; None where it failed.
        correlation: of the two scans within the lungs, -1 to 1.
        overlap: Dice of the lungs.
        message: for users.
    """

    prior_to_current: NDArray[np.float64] | None
    correlation: float
    overlap: float
    message: str

    @property
    def doubt(self) -> str:
        """What speaks against a registration that has not failed; "" where nothing does."""
        if self.prior_to_current is None or self.correlation >= _SURE_CORRELATION:
            return ""
        return (
            f"the scans agree no better than those of two patients may (correlation {self.correlation:.2f}): make sure "
            "that both are of one patient"
        )


def register(
    current: tuple[NDArray, NDArray],
    prior: tuple[NDArray, NDArray],
    lungs: tuple[LungMask, LungMask],
    progress: Progress | None = None,
) -> Registration:
    """Registers the prior scan to the current one.

    Args:
        current, prior: array (K, J, I) in HU and its 4x4 IJK-to-RAS matrix.
        lungs: of the current and of the prior scan.
        progress: called with (done, total); returning False cancels.

    Raises:
        PredictionCancelled: ``progress`` returned False.
    """
    if not (lungs[0].found and lungs[1].found):
        which = "current" if not lungs[0].found else "prior"
        return Registration(None, 0.0, 0.0, f"registration failed: no lungs were found in the {which} scan. {_BY_HAND}")
    steps = _Steps(progress, 3 + len(_LEVELS) * _ITERATIONS)
    fixed, moving = (_coarse(scan, steps) for scan in (current, prior))
    masks = [_near_lungs(coarse, each) for coarse, each in zip((fixed, moving), lungs, strict=True)]
    images = [_image(coarse.values, coarse) for coarse in (fixed, moving)]
    mask_image = _image(masks[0].astype(np.uint8), fixed)

    def fit(matrix: NDArray) -> float:
        return _correlation(fixed, moving, masks[0], matrix)

    starts = list(_starts(lungs[0], lungs[1]))
    start = max(starts, key=fit)
    mirrored, swapped = max(_mirrored(starts, lungs[1]), key=lambda each: fit(each[0]))
    steps.tell()
    try:
        to_prior = _affine(images[0], images[1], mask_image, start, steps)
    except RuntimeError as error:
        steps.check()
        detail = str(error).strip().splitlines()[-1].strip()
        reason = f"the scans do not overlap, or one has too few slices [{detail}]"
        return Registration(None, 0.0, 0.0, f"registration failed: {reason}. {_BY_HAND}")
    correlation = fit(to_prior)
    if fit(mirrored) > fit(start) and fit(_affine(images[0], images[1], mask_image, mirrored, steps)) > correlation:
        return Registration(
            None,
            correlation,
            0.0,
            f"registration failed: the scans fit each other better with {swapped} swapped, so one of the files has "
            f"lost its orientation: export it again from the DICOM series. {_BY_HAND}",
        )
    overlap = _overlap(lungs[0], lungs[1], to_prior)
    stretch = np.linalg.svd(to_prior[:3, :3])[1]
    fits = correlation >= _LEAST_CORRELATION and overlap >= _LEAST_OVERLAP
    if not fits or stretch.min() < _STRETCH[0] or stretch.max() > _STRETCH[1]:
        return Registration(
            None,
            correlation,
            overlap,
            f"registration failed (correlation {correlation:.2f}, lungs overlap {100 * overlap:.0f} %): are both scans "
            f"of the same patient, and do both show the whole lungs? {_BY_HAND}",
        )
    to_current: NDArray = np.linalg.inv(to_prior)
    return Registration(
        to_current, correlation, overlap, f"affine, correlation {correlation:.2f}, lungs overlap {100 * overlap:.0f} %"
    )


class _Steps:
    """Reports progress in even steps, and raises PredictionCancelled when the callback asks to stop."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total, self._done, self.cancelled = progress, total, 0, False

    def tell(self) -> None:
        self._done = min(self._done + 1, self._total)
        if self._progress is not None and self._progress(self._done, self._total) is False:
            self.cancelled = True
        self.check()

    def check(self) -> None:
        if self.cancelled:
            raise PredictionCancelled("the registration was cancelled")


def _coarse(scan: tuple[NDArray, NDArray], steps: _Steps) -> CoarseVolume:
    from ..finding.coarse_grid import coarse_volume

    coarse = coarse_volume(scan[0], scan[1], _CELL_MM, _MOST_CELLS, *_RANGE_HU, lambda share: steps.check())
    steps.tell()
    return coarse


def _near_lungs(coarse: CoarseVolume, lungs: LungMask) -> NDArray[np.bool_]:
    """Cells in the lungs or near them."""
    grid = np.linalg.inv(lungs.grid_to_ras) @ coarse.grid_to_ras
    # both grids have axes R, A, S: one zoom and one shift an axis
    zoom, shift = np.diag(grid)[:3][::-1], grid[:3, 3][::-1]
    mask = ndimage.affine_transform(lungs.mask.astype(np.uint8), zoom, shift, coarse.values.shape, order=0)
    return ndimage.binary_dilation(mask, iterations=max(1, round(_MARGIN_MM / coarse.cell_mm))) & coarse.known


def _image(values: NDArray, grid: CoarseVolume) -> sitk.Image:
    image = sitk.GetImageFromArray(values)
    place_image(image, grid.grid_to_ras)
    return image


def _box(lungs: LungMask) -> tuple[NDArray, NDArray]:
    """Returns the lower and upper corner of the lungs, RAS mm; single cells that stick out do not count."""
    points = transform_points(lungs.grid_to_ras, np.argwhere(lungs.mask)[::7, ::-1])
    low, high = np.percentile(points, [0.5, 99.5], axis=0)
    return low, high


def _starts(current: LungMask, prior: LungMask) -> Iterator[NDArray[np.float64]]:
    """Yields initial matrices from the current to the prior scan: box onto box, and by middle, top or bottom alone.

    Where a scan shows a part of the lungs only, its box is no guide to the breath.
    """
    (low, high), (prior_low, prior_high) = _box(current), _box(prior)
    scale = np.clip((prior_high - prior_low) / np.maximum(high - low, 1.0), *_STRETCH)
    middle, prior_middle = (low + high) / 2.0, (prior_low + prior_high) / 2.0
    for factors in (scale, np.ones(3)):
        matrix = np.diag([*factors, 1.0])
        matrix[:3, 3] = prior_middle - factors * middle
        yield matrix
    for edge, prior_edge in ((high, prior_high), (low, prior_low)):
        matrix = np.eye(4)
        matrix[:3, 3] = prior_middle - middle
        matrix[2, 3] = prior_edge[2] - edge[2]
        yield matrix


def _mirrored(starts: Sequence[NDArray], prior: LungMask) -> Iterator[tuple[NDArray[np.float64], str]]:
    """Yields each start with the prior mirrored along one axis or several, and what that swaps."""
    low, high = _box(prior)
    words = ("left and right", "front and back", "head and feet")
    for signs in itertools.product((1.0, -1.0), repeat=3):
        if min(signs) < 0.0:
            mirror = np.diag([*signs, 1.0])
            mirror[:3, 3] = (low + high) / 2.0 * (1.0 - np.array(signs))
            swapped = ", ".join(word for word, sign in zip(words, signs, strict=True) if sign < 0.0)
            yield from ((mirror @ start, swapped) for start in starts)


def _correlation(fixed: CoarseVolume, moving: CoarseVolume, mask: NDArray, to_prior: NDArray) -> float:
    """Correlation of the two scans at the cells of the mask that both hold."""
    cells = np.argwhere(mask)
    cells = cells[:: 1 + len(cells) // 60_000]
    ras = transform_points(fixed.grid_to_ras, cells[:, ::-1])
    index = transform_points(np.linalg.inv(moving.grid_to_ras) @ to_prior, ras)[:, ::-1].T
    there = ndimage.map_coordinates(moving.values, index, order=1, cval=np.nan)
    known = np.isfinite(there)
    if np.count_nonzero(known) < 0.4 * len(cells):
        return 0.0
    here = fixed.values[tuple(cells[known].T)]
    if here.std() < 1.0 or there[known].std() < 1.0:
        return 0.0
    return float(np.corrcoef(here, there[known])[0, 1])


def _overlap(current: LungMask, prior: LungMask, to_prior: NDArray) -> float:
    """Dice of the lungs where both scans show them."""
    matrix = np.linalg.inv(prior.grid_to_ras) @ to_prior @ current.grid_to_ras
    flip = np.array([2, 1, 0])
    moved = ndimage.affine_transform(
        prior.mask.astype(np.float32),
        matrix[:3, :3][flip][:, flip],
        matrix[:3, 3][flip],
        current.mask.shape,
        order=1,
        cval=-1.0,
    )
    shown = moved >= 0.0
    there = moved > 0.5
    total = np.count_nonzero(there) + np.count_nonzero(current.mask & shown)
    return 2.0 * np.count_nonzero(there & current.mask) / total if total else 0.0


def _affine(
    fixed: sitk.Image, moving: sitk.Image, mask: sitk.Image, start: NDArray, steps: _Steps
) -> NDArray[np.float64]:
    """Optimizes the affine (RAS, current to prior) for correlation from ``start``, coarse to fine."""
    transform = sitk.AffineTransform(3)
    inside = np.argwhere(sitk.GetArrayViewFromImage(mask))[:, ::-1].mean(axis=0)
    center = np.array(fixed.TransformContinuousIndexToPhysicalPoint(inside.tolist()))
    lps = flip_lps_ras(start) @ np.diag([-1.0, -1.0, 1.0, 1.0])
    transform.SetCenter(center.tolist())
    transform.SetMatrix(lps[:3, :3].ravel().tolist())
    transform.SetTranslation((lps[:3, :3] @ center + lps[:3, 3] - center).tolist())

    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsCorrelation()
    method.SetMetricFixedMask(mask)
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(_SAMPLED)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=4.0,
        minStep=0.01,
        numberOfIterations=_ITERATIONS,
        relaxationFactor=0.6,
        gradientMagnitudeTolerance=1e-6,
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([level[0] for level in _LEVELS])
    method.SetSmoothingSigmasPerLevel([level[1] for level in _LEVELS])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOff()
    method.SetInitialTransform(transform, inPlace=True)

    def told() -> None:
        if steps.cancelled:  # a level's last iterations come even so
            return
        try:
            steps.tell()
        except PredictionCancelled:
            method.StopRegistration()

    method.AddCommand(sitk.sitkIterationEvent, told)
    method.Execute(fixed, moving)
    steps.check()
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(transform.GetMatrix(), (3, 3))
    matrix[:3, 3] = np.array(transform.TransformPoint((0.0, 0.0, 0.0)))
    return flip_lps_ras(matrix) @ np.diag([-1.0, -1.0, 1.0, 1.0])


def follow_up(
    current: Findings,
    prior: Findings,
    registration: Registration,
    by_hand: Sequence[tuple[str, str]] = (),
    extents_ras: tuple[tuple[NDArray, NDArray], tuple[NDArray, NDArray]] | None = None,
    apart: Collection[tuple[str, str]] = (),
) -> Findings:
    """Adds the follow-up of the prior's nodules to the current findings; matched ones take the prior's tracking UIDs.

    Args:
        current, prior: each scan's own findings.
        registration: of the two scans; where it failed, only pairs made by hand are matched.
        by_hand: (current, prior) tracking UIDs that a person paired; they come first. Then nodules that bear one
            tracking UID in both scans are the same: an earlier comparison said so.
        extents_ras: lowest and highest corner of the current and of the prior scan: what should lie outside is neither
            new nor gone.
        apart: (current, prior) tracking UIDs that a person parted: they are not matched.

    Raises:
        InputError: a pair made by hand names a nodule that is not there, or one twice.
    """
    matrix = registration.prior_to_current
    given = _given(current, prior, by_hand, apart)
    now, then = {pair[0] for pair in given}, {pair[1] for pair in given}
    free = [each for each in current.nodules if each.tracking_uid not in now]
    free_prior = [each for each in prior.nodules if each.tracking_uid not in then]
    found = [] if matrix is None else match(free, free_prior, matrix, apart=apart)
    days = days_between(prior.scan.date, current.scan.date)

    matched = [_matched(current.nodule(a), prior.nodule(b), days, matrix, (a, b) in by_hand) for a, b in given]
    matched += [_matched(free[a], free_prior[b], days, matrix, False) for a, b in found]
    matched_now = {pair.current_uid for pair in matched}
    matched_then = {pair.prior_uid for pair in matched}
    inside_now, inside_then = extents_ras or (None, None)
    back = None if matrix is None else np.linalg.inv(matrix)
    new = [
        _alone("new", nodule, _expected(nodule, back, inside_then))
        for nodule in current.nodules
        if nodule.tracking_uid not in matched_now
    ]
    gone = [
        _alone("gone", nodule, _expected(nodule, matrix, inside_now))
        for nodule in prior.nodules
        if nodule.tracking_uid not in matched_then
    ]
    order = {nodule.tracking_uid: number for number, nodule in enumerate(current.nodules)}
    matched.sort(key=lambda pair: order[str(pair.current_uid)])

    kept = {str(pair.current_uid): str(pair.prior_uid) for pair in matched}
    # a new nodule must not bear the name of one of the prior's that it is not
    kept |= {
        uid: tracking_uid(uid, "new", current.created)
        for uid in (nodule.tracking_uid for nodule in current.nodules)
        if uid not in kept and prior.nodule(uid) is not None
    }
    new = [dataclasses.replace(pair, current_uid=kept.get(str(pair.current_uid), pair.current_uid)) for pair in new]
    nodules = tuple(
        dataclasses.replace(nodule, tracking_uid=kept.get(nodule.tracking_uid, nodule.tracking_uid))
        for nodule in current.nodules
    )
    pairs = tuple([*(dataclasses.replace(pair, current_uid=pair.prior_uid) for pair in matched), *new, *gone])
    course = FollowUp(
        prior.scan,
        prior.nodules,
        days,
        pairs,
        None if matrix is None else tuple(float(each) for each in np.ravel(matrix)),
        registration.message,
        tuple(_differences(current, prior, registration)),
    )
    return dataclasses.replace(current, nodules=nodules, follow_up=course)


def _given(
    current: Findings, prior: Findings, by_hand: Sequence[tuple[str, str]], apart: Collection[tuple[str, str]]
) -> list[tuple[str, str]]:
    """Returns the pairs that need no matching: made by hand, or by an earlier comparison."""
    for which, findings, uids in (
        ("current", current, [pair[0] for pair in by_hand]),
        ("prior", prior, [pair[1] for pair in by_hand]),
    ):
        missing = next((uid for uid in uids if findings.nodule(uid) is None), None)
        if missing is not None:
            raise InputError(f"the {which} scan has no nodule {missing}")
        if len(set(uids)) != len(uids):
            raise InputError(f"a nodule of the {which} scan is in two pairs: give each one partner")
    now, then = {pair[0] for pair in by_hand}, {pair[1] for pair in by_hand}
    known = [
        (uid, uid)
        for uid in (nodule.tracking_uid for nodule in current.nodules)
        if uid not in now and uid not in then and (uid, uid) not in apart and prior.nodule(uid) is not None
    ]
    return [*by_hand, *known]


def match(
    current: Sequence[Nodule],
    prior: Sequence[Nodule],
    prior_to_current: NDArray,
    apart: Collection[tuple[str, str]] = (),
) -> list[tuple[int, int]]:
    """Matches nodules: returns pairs of indices (current, prior), each nodule at most once.

    The sum of all costs is the least there is, where staying alone costs as much as a bad match.
    """
    if not current or not prior:
        return []
    there = transform_points(prior_to_current, [nodule.place.centroid_ras for nodule in prior])
    here = np.array([nodule.place.centroid_ras for nodule in current])
    distance = np.linalg.norm(here[:, None] - there[None], axis=-1)
    # large nodules may grow to one side: a quarter of the larger diameter is no distance
    size = np.array([[max(a.mean_diameter_mm, b.mean_diameter_mm) for b in prior] for a in current])
    far = np.maximum(distance - 0.25 * size, 0.0)
    volumes = np.log([nodule.volume_mm3 for nodule in current])[:, None] - np.log([n.volume_mm3 for n in prior])[None]
    types = np.array([[a.type != b.type for b in prior] for a in current])
    cost = (far / _DISTANCE_MM) ** 2 + np.abs(volumes) / math.log(_VOLUME_FACTOR) * 0.5 + _TYPE_COST * types
    cost[far > FARTHEST_MM] = np.inf
    if apart:
        cost[[[(a.tracking_uid, b.tracking_uid) in apart for b in prior] for a in current]] = np.inf
    # every nodule may also stay unmatched: it has a column or row of its own for that
    n, m = cost.shape
    alone = np.full((n + m, n + m), 1e6)
    alone[:n, :m] = np.where(np.isfinite(cost), cost, 1e6)
    alone[range(n), range(m, m + n)] = _HIGHEST_COST
    alone[range(n, n + m), range(m)] = _HIGHEST_COST
    alone[n:, m:] = 0.0
    rows, columns = linear_sum_assignment(alone)
    return [(int(a), int(b)) for a, b in zip(rows, columns, strict=True) if a < n and b < m and np.isfinite(cost[a, b])]


def _matched(now: Nodule | None, then: Nodule | None, days: int | None, matrix: NDArray | None, by_hand: bool) -> Pair:
    assert now is not None and then is not None
    volume = change(then.volume_mm3, now.volume_mm3, then.volume_interval_mm3, now.volume_interval_mm3)
    # the mass's error is the volume's: the density of an outline that is too wide falls, so it is less if anything
    scale_then, scale_now = then.mass_mg / then.volume_mm3, now.mass_mg / now.volume_mm3
    mass = None
    if then.mass_mg > 0.0 and now.mass_mg > 0.0:
        mass = change(
            then.mass_mg,
            now.mass_mg,
            _scaled(then.volume_interval_mm3, scale_then),
            _scaled(now.volume_interval_mm3, scale_now),
        )
    diameter = Change(
        then.mean_diameter_mm,
        now.mean_diameter_mm,
        100.0 * (now.mean_diameter_mm / then.mean_diameter_mm - 1.0) if then.mean_diameter_mm else 0.0,
    )
    assert volume.percent_interval is not None
    limit = max(repeat_limit(each.type, then.volume_mm3) for each in (now, then))
    measurable = is_measurable(volume, limit)
    doubling, interval = doubling_time(volume, days, limit)
    distance = None
    if matrix is not None:
        expected = transform_points(matrix, then.place.centroid_ras)
        distance = float(np.linalg.norm(expected - now.place.centroid_ras))
    return Pair(
        "matched",
        now.tracking_uid,
        then.tracking_uid,
        by_hand,
        None,
        distance,
        volume,
        mass,
        diameter,
        measurable,
        doubling if measurable else None,
        interval,
    )


def _alone(status: Literal["new", "gone"], nodule: Nodule, expected: Point | None) -> Pair:
    """A nodule without a partner: new or gone, if the other scan shows the place where it should be."""
    told: PairStatus = status if expected is not None else "unmatched"
    uid = nodule.tracking_uid
    return Pair(told, uid if status == "new" else None, uid if status == "gone" else None, expected_ras=expected)


def _scaled(interval: Interval, factor: float) -> Interval:
    return Interval(interval.low * factor, interval.high * factor)


def change(prior: float, current: float, prior_interval: Interval, current_interval: Interval) -> Change:
    """Computes the change of a positive figure; on logarithms, the widths of the two intervals add as squares.

    An interval that begins at 0 leaves the change open to that side.
    """
    ratio = math.log(current / prior)
    up = math.hypot(_width(current, current_interval.high), _width(prior_interval.low, prior))
    down = math.hypot(_width(current_interval.low, current), _width(prior, prior_interval.high))
    return Change(
        prior,
        current,
        100.0 * math.expm1(ratio),
        Interval(100.0 * math.expm1(ratio - down), 100.0 * math.expm1(ratio + up)),
    )


def _width(low: float, high: float) -> float:
    return math.log(high / low) if low > 0.0 else math.inf


def is_measurable(volume: Change, limit: float = 0.0) -> bool:
    """Whether a change is larger than the error: its interval excludes no change, and repeated scans differ by less.

    Args:
        volume: the change, with its interval.
        limit: :func:`.measuring.repeat_limit`: real scans of one day differ by more than made-up ones.
    """
    interval = volume.percent_interval
    apart = interval is not None and not interval.low <= 0.0 <= interval.high
    return apart and abs(math.log1p(volume.percent / 100.0)) > math.log1p(limit)


def doubling_time(volume: Change, days: int | None, limit: float = 0.0) -> tuple[float | None, Interval | None]:
    """Computes the days in which the volume doubles (negative: halves) and their 95 % interval.

    Where the change is not measurable (see :func:`is_measurable`), the interval is that of growth: from its least
    doubling time on, without an upper end; there is no doubling time then. None without dates, or on one day.
    """
    if days is None or days <= 0 or volume.percent_interval is None:
        return None, None
    ratio = math.log1p(volume.percent / 100.0)
    scale = days * math.log(2.0)
    # an interval that ends at -100 % may be nothing: it halves at once
    low, high = (
        math.log1p(end / 100.0) if end > -100.0 else -math.inf
        for end in (volume.percent_interval.low, volume.percent_interval.high)
    )
    if is_measurable(volume, limit):
        return scale / ratio, Interval(*sorted((scale / high, scale / low)))
    return None, (Interval(scale / high, math.inf) if high > 0.0 else None)


def _expected(nodule: Nodule, matrix: NDArray | None, extent: tuple[NDArray, NDArray] | None) -> Point | None:
    if matrix is None:
        return None
    place = transform_points(matrix, nodule.place.centroid_ras)
    if extent is not None and (np.any(place < extent[0]) or np.any(place > extent[1])):
        return None
    return float(place[0]), float(place[1]), float(place[2])


def _differences(current: Findings, prior: Findings, registration: Registration) -> Iterator[Caveat]:
    """Yields the differences between the two scans, each with the changes that it spoils."""
    now, then = current.scan, prior.scan
    if registration.doubt:
        yield Caveat(registration.doubt, (CHANGE, COUNT))
    if now.kernel and then.kernel and now.kernel != then.kernel:
        yield Caveat(f"other kernel: {then.kernel}, now {now.kernel}", (CHANGE, DENSITY))
    thick = [scan.slice_thickness_mm or max(scan.spacing_mm) for scan in (then, now)]
    if abs(thick[0] - thick[1]) > 0.25 * min(thick):
        yield Caveat(f"other slice thickness: {thick[0]:.3g} mm, now {thick[1]:.3g} mm", (CHANGE,))
    if now.contrast is not None and then.contrast is not None and now.contrast != then.contrast:
        yield Caveat("contrast agent in one of the scans only", (DENSITY, MASS, CHANGE))


def scan_extent(array_kji: NDArray, ijk_to_ras: NDArray) -> tuple[NDArray, NDArray]:
    """Returns the lowest and highest R, A, S of a scan."""
    return extent_ras((array_kji.shape[0], array_kji.shape[1], array_kji.shape[2]), ijk_to_ras)
