from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from inference.fakes import PROFILE, ThresholdModel, sphere_volume
from inference.volumes import ORIENTATIONS, grid, world_of
from SAMMed3DLib.finding import automatic_mask_generator
from SAMMed3DLib.finding.appearance import MIRRORS
from SAMMed3DLib.finding.automatic_mask_generator import _Progress
from SAMMed3DLib.finding.candidates import Candidate
from SAMMed3DLib.finding.lungs import LungMask
from SAMMed3DLib.finding.nodule_score import OBJECT, PLACE, NoduleScore, default_score, joined
from SAMMed3DLib.finding.regression import Regression
from SAMMed3DLib.inference import InputError, PredictionCancelled, SamAutomaticMaskGenerator3D, SamPredictor3D
from SAMMed3DLib.model import build_model
from SAMMed3DLib.model.nodule_classifier import GFLOP as CLASSIFIER_GFLOP

#: Center in RAS mm and radius.
SPHERES = (((-20.0, -20.0, 10.0), 5.0), ((18.0, 15.0, -8.0), 7.0), ((-15.0, 18.0, -10.0), 4.0))


class BatchModel(ThresholdModel):
    """The threshold model for several clicks at once; its predicted IoU is what the click's sphere deserves."""

    def decode(self, embedding, coords, labels, boxes, mask, multimask_output=False):
        logits, iou = super().decode(embedding, coords, labels, boxes, mask, multimask_output)
        batch = 1 if coords is None else len(coords)
        return logits.expand(batch, -1, -1, -1, -1).clone(), iou.expand(batch, -1).clone()


def scan(name="axial LPS", spheres=SPHERES):
    shape, spacing, directions = ORIENTATIONS[name]
    matrix = grid(shape, spacing, directions)
    world = world_of(shape, matrix)
    return np.max([sphere_volume(world, center, radius) for center, radius in spheres], axis=0), matrix


def candidates_of(spheres=SPHERES):
    return [Candidate(center, 2.0 * radius, 0.9, "solid") for center, radius in spheres]


def everywhere(array, matrix, progress=None):
    to_ras = np.diag([60.0, 60.0, 60.0, 1.0])
    to_ras[:3, 3] = -90.0
    return LungMask(np.ones((4, 4, 4), bool), to_ras, True, "")


def nowhere(array, matrix, progress=None):
    return LungMask(np.zeros((4, 4, 4), bool), np.eye(4), False, "no lungs were found")


def undecided(array, matrix, centers, diameters, progress=None, mirrored=False):
    """A classifier that says the same of everything."""
    return np.zeros(len(diameters))


def generator_for(array, matrix, model=None, spheres=SPHERES, **options):
    predictor = SamPredictor3D(model or BatchModel())
    predictor.set_image(array, matrix)
    options = {
        "lungs": "whole_volume",
        "candidate_finder": lambda *a, **k: candidates_of(spheres),
        "classifier": undecided,
        **options,
    }
    return SamAutomaticMaskGenerator3D(predictor, **options)


def dice(record, truth):
    found = record["prediction"].full_mask(truth.shape).astype(bool)
    return 2.0 * np.count_nonzero(found & truth) / (np.count_nonzero(found) + np.count_nonzero(truth))


def truth_of(array, matrix, sphere):
    return np.linalg.norm(world_of(array.shape, matrix) - np.array(sphere[0]), axis=-1) <= sphere[1]


# -- what is found ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["axial LPS", "sagittal", "oblique", "gantry tilt"])
def test_every_sphere_is_found_once_in_every_orientation(name):
    array, matrix = scan(name)
    records = generator_for(array, matrix).generate()
    assert len(records) == len(SPHERES)
    for sphere in SPHERES:
        assert max(dice(record, truth_of(array, matrix, sphere)) for record in records) > 0.9


def test_records_have_the_keys_of_sam_and_agree_with_themselves():
    array, matrix = scan()
    records = generator_for(array, matrix).generate()
    assert [record["score"] for record in records] == sorted((r["score"] for r in records), reverse=True)
    for record in records:
        i, j, k, ni, nj, nk = record["bbox"]
        assert record["segmentation"].dtype == np.uint8 and record["segmentation"].shape == (nk, nj, ni)
        assert record["offset_kji"] == (k, j, i)
        assert record["area"] == np.count_nonzero(record["segmentation"]) == record["prediction"].voxels
        assert record["predicted_iou"] == pytest.approx(0.8) and 0 < record["stability_score"] <= 1
        assert 0 < record["score"] < 1
        [point] = record["point_coords"]
        index = np.rint(np.linalg.inv(matrix) @ [*point, 1.0])[:3].astype(int)
        assert record["segmentation"][tuple((index - (i, j, k))[::-1])] == 1
        first, size = np.array(record["crop_box"][:3]), np.array(record["crop_box"][3:])
        assert np.all(first >= 0) and np.all(first + size <= array.shape[::-1])
        assert np.all(first <= (i, j, k)) and np.all(first + size >= np.array((i, j, k)) + (ni, nj, nk))
        assert record["measurements"].volume_mm3 > 0


def test_several_candidates_in_one_object_give_one_mask():
    array, matrix = scan(spheres=SPHERES[:1])
    center = np.array(SPHERES[0][0])
    many = [(tuple(center + shift), 5.0) for shift in ((0, 0, 0), (2, 0, 0), (0, -2, 1), (1, 1, -2))]
    assert len(generator_for(array, matrix, spheres=many).generate()) == 1


def test_sizes_outside_the_limits_are_dropped():
    array, matrix = scan()
    found = generator_for(array, matrix, min_diameter_mm=9.0, max_diameter_mm=12.0).generate()
    assert [round(record["measurements"].equivalent_diameter_mm) for record in found] == [10]


def test_thresholds_of_sam_drop_masks():
    array, matrix = scan()
    assert generator_for(array, matrix, pred_iou_thresh=0.81).generate() == []
    assert generator_for(array, matrix, stability_score_thresh=1.0).generate() == []
    assert len(generator_for(array, matrix, pred_iou_thresh=0.79, stability_score_thresh=0.0).generate()) == 3


def test_candidates_on_nothing_give_nothing():
    array, matrix = scan()
    assert generator_for(array, matrix, spheres=[((0.0, 0.0, 0.0), 4.0)]).generate() == []


def test_points_can_be_given_and_on_a_grid():
    array, matrix = scan()
    given = generator_for(array, matrix, point_candidates=np.array([center for center, _ in SPHERES]))
    assert len(given.generate()) == 3 and given.candidates == []
    middle = scan(spheres=[((0.0, 0.0, 0.0), 6.0)])
    for options in ({}, {"lungs": "auto", "lung_finder": everywhere}):
        on_grid = generator_for(*middle, points_per_side=3, **options)
        (record,) = on_grid.generate()
        assert dice(record, truth_of(*middle, ((0.0, 0.0, 0.0), 6.0))) > 0.9
        assert (on_grid.lungs_found is None) == (not options)


def test_a_place_beside_an_object_is_clicked_in_its_middle():
    array, matrix = scan(spheres=SPHERES[1:2])
    (center, radius) = SPHERES[1]
    beside = np.array([np.add(center, (radius + 1.5, 0.0, 0.0))])
    (record,) = generator_for(array, matrix, point_candidates=beside).generate()
    assert dice(record, truth_of(array, matrix, SPHERES[1])) > 0.9
    assert np.linalg.norm(np.subtract(record["point_coords"][0], center)) < 2.0


def test_two_runs_give_the_same():
    array, matrix = scan()
    generator = generator_for(array, matrix)
    first, second = generator.generate(), generator.generate()
    for a, b in zip(first, second, strict=True):
        assert a["score"] == b["score"] and a["bbox"] == b["bbox"]
        assert np.array_equal(a["segmentation"], b["segmentation"])


# -- embeddings -------------------------------------------------------------------------------------------------------


def test_clicking_a_found_nodule_costs_no_encoding_and_gives_its_mask():
    array, matrix = scan()
    model = BatchModel()
    generator = generator_for(array, matrix, model)
    records = generator.generate()
    encoded = model.encoded
    for record in records:
        again = generator.predictor.predict(record["point_coords"], [1])
        assert np.array_equal(again.mask, record["segmentation"]) and again.offset_kji == record["offset_kji"]
        point = np.array(record["point_coords"][0])
        further = np.stack([point, point + (1.0, 0.5, 0.0)])
        on = generator.predictor.predict(further, [1, 1], previous=record["prediction"])
        assert on.voxels > 0
    assert model.encoded == encoded


def test_places_in_an_object_that_is_known_are_not_clicked_again():
    array, matrix = scan(spheres=SPHERES[:1])
    center = np.array(SPHERES[0][0])
    many = [(tuple(center + shift), 5.0) for shift in ((0, 0, 0), (2, 0, 0), (0, -2, 1), (25, 25, -20))]
    generator = generator_for(array, matrix, spheres=many)
    assert len(generator.generate()) == 1 and generator.clicked == 2


# -- progress and cancelling ------------------------------------------------------------------------------------------


def test_progress_rises_to_its_total():
    array, matrix = scan()
    seen = []
    generator_for(array, matrix).generate(lambda done, total: seen.append((done, total)))
    done = [each for each, _ in seen]
    assert done == sorted(done) and len({total for _, total in seen}) == 1 and seen[-1][0] == seen[-1][1]
    assert len(set(done)) >= 4


def test_cancelling_before_anything_was_seen_returns_nothing():
    array, matrix = scan()
    generator = generator_for(array, matrix)
    assert generator.generate(lambda done, total: False) == [] and generator.cancelled


def test_cancelling_returns_what_was_found_so_far_without_further_encodings():
    array, matrix = scan()
    model = BatchModel()
    generator = generator_for(array, matrix, model)
    encoded = []

    def progress(done, total):
        encoded.append(model.encoded)
        return generator.clicked < 2

    records = generator.generate(progress)
    assert generator.cancelled and len(records) == 2 == generator.clicked
    assert model.encoded == encoded[-1] > 0
    assert all(max(dice(record, truth_of(array, matrix, sphere)) for sphere in SPHERES) > 0.9 for record in records)


def test_the_list_grows_while_the_search_goes_on():
    array, matrix = scan()
    generator = generator_for(array, matrix, points_per_batch=1)
    seen = []
    records = generator.generate(lambda done, total: seen.append(list(generator.found_so_far)))
    assert sorted({len(each) for each in seen}) == [0, 1, 2, 3]
    for fewer, more in zip(seen, [*seen[1:], records], strict=True):
        assert all(any(one is other for other in more) for one in fewer), "a record stays the same object"


def test_the_first_nodule_is_told_at_once_whatever_the_batch():
    array, matrix = scan()
    generator = generator_for(array, matrix, points_per_batch=50)
    seen = []
    records = generator.generate(lambda done, total: seen.append((generator.clicked, list(generator.found_so_far))))
    assert [len(told) for clicked, told in seen if clicked == 1] == [1], "before the second place is clicked"
    assert {len(told) for _, told in seen} == {0, 1} and len(records) == 3


def test_the_progress_is_the_share_of_the_time():
    """However long the clicks take: their pace is learned from those that are done."""
    array, matrix = scan()
    time = [0.0]

    class Slow(BatchModel):
        def encode(self, crop):
            time[0] += 10.0
            return super().encode(crop)

    def passing(*args, **options):
        time[0] += 20.0
        return candidates_of()

    generator = generator_for(array, matrix, Slow(), candidate_finder=passing, clock=lambda: time[0])
    seen = []
    generator.generate(lambda done, total: seen.append((time[0], done / total)))
    inside = [(now / time[0], share) for now, share in seen if 0.5 < now / time[0] < 1.0]
    assert len(inside) >= 1 and seen[-1][1] == 1.0
    # the last object costs one encoding and the others two, which nobody can know before
    assert [share for _, share in inside] == pytest.approx([passed for passed, _ in inside], abs=0.11)


@pytest.mark.parametrize("slowness", [1.0, 30.0])
def test_the_time_left_is_told_once_this_machine_has_shown_its_pace(slowness):
    """Whatever came before: however fast the lungs were found, nothing of it tells how fast the networks are."""
    time, told = [0.0], []
    progress = _Progress(lambda done, total: told.append((time[0], progress.seconds_left)), lambda: time[0])
    for phase, steps, seconds in (
        ("lungs", 5, 0.2),
        ("candidates", 5, 0.2),
        ("appearance", 20, slowness * 0.15),
        ("clicks", 50, slowness * 0.2),
    ):
        if phase == "appearance":
            assert {left for _now, left in told} == {None}
        for step in range(steps + 1):
            time[0] += seconds if step else 0.0
            progress.at(phase, step / steps)
    known = [(now, left) for now, left in told if left is not None]
    assert known and known[0][0] < 0.5 * time[0] and known[-1][1] == 0.0
    assert all(left == pytest.approx(time[0] - now, rel=0.2, abs=1e-6) for now, left in known)


def test_clicks_that_take_longer_than_usual_are_noticed_with_the_first():
    """In a small volume the detector is quick, and the clicks cost what they always do."""
    time = [0.0]
    progress = _Progress(None, lambda: time[0], True)
    for step in range(101):
        time[0] += 0.1
        progress.at("detector", step / 100)
    progress.at("clicks", 0.0)
    time[0] += 4.0
    progress.at("clicks", 1 / 30)
    assert progress.seconds_left == pytest.approx(4.0 * 29)


def test_a_slow_detector_tells_the_time_left_while_it_looks():
    time, told = [0.0], []
    progress = _Progress(lambda done, total: told.append((time[0], progress.seconds_left)), lambda: time[0], True)
    for step in range(100):
        time[0] += 3.0
        progress.at("detector", step / 100)
    assert all(left is None for now, left in told if now < 30.0)
    shares = {left: left / (330.0 - now) for now, left in told if left is not None}
    assert len(shares) > 80 and all(share == pytest.approx(1.0, rel=0.15) for share in shares.values())


def test_the_predictors_own_progress_can_cancel_too():
    array, matrix = scan()
    generator = generator_for(array, matrix)
    generator.predictor.progress = lambda text: False
    assert generator.generate() == [] and generator.cancelled
    generator.predictor.progress = None
    assert len(generator.generate()) == 3 and not generator.cancelled


def test_finders_that_are_cancelled_return_nothing():
    array, matrix = scan()

    def cancelled(*args, progress, **options):
        assert progress(1, 2) is None
        raise PredictionCancelled("stop")

    generator = generator_for(array, matrix, candidate_finder=cancelled)
    assert generator.generate() == [] and generator.cancelled


# -- ranking ----------------------------------------------------------------------------------------------------------


def test_without_an_iou_head_stability_ranks_and_the_user_is_told():
    array, matrix = scan()
    model = BatchModel(dataclasses.replace(PROFILE, iou_head=False))
    generator = generator_for(array, matrix, model)
    records = generator.generate()
    assert generator.ranking == "stability" and "stability" in generator.message
    assert len(records) == 3
    for record in records:
        assert record["predicted_iou"] is None and record["score"] == record["stability_score"]


def test_without_an_iou_head_even_masks_without_any_stability_can_be_asked_for():
    array, matrix = scan()
    timid = BatchModel(dataclasses.replace(PROFILE, iou_head=False), gain=0.5)  # no logit beyond -1 and 1
    assert generator_for(array, matrix, timid).generate() == []
    records = generator_for(array, matrix, timid, stability_score_thresh=0.0).generate()
    assert len(records) == 3
    assert all(record["score"] == 0.0 and record["shown_from"] == 1.0 for record in records)


def weighing(input_name, names):
    """A regression that hears one input only."""
    weights = (*(float(name == input_name) for name in names), 0.0)
    return Regression(names, (0.0,) * len(names), (1.0,) * len(names), weights, 0.0, multiplied=names[:1])


def test_with_an_iou_head_the_score_is_a_probability_of_the_given_rule():
    array, matrix = scan()
    size_only = dataclasses.replace(default_score(), clicked=weighing("diameter", OBJECT))
    generator = generator_for(array, matrix, score=size_only)
    records = generator.generate()
    sizes = [record["features"].diameter_mm for record in records]
    assert generator.ranking == "probability" and generator.message == ""
    assert sizes == sorted(sizes, reverse=True) and len(sizes) == 3
    # the threshold model sees the same wherever one clicks
    assert all(record["agreement"].least == 1.0 for record in records)


def test_clicks_elsewhere_in_an_object_tell_how_steady_its_mask_is():
    class Wandering(BatchModel):
        """Two clicks at once give nothing."""

        def decode(self, embedding, coords, *others, **options):
            logits, iou = super().decode(embedding, coords, *others, **options)
            return (logits - 100.0 if coords is not None and len(coords) == 2 else logits), iou

    array, matrix = scan()
    rule = dataclasses.replace(default_score(), clicked=weighing("agreement", OBJECT))
    steady, wandering = (
        generator_for(array, matrix, model, score=rule, points_per_batch=1).generate()
        for model in (BatchModel(), Wandering())
    )
    assert len(steady) == len(wandering) == 3
    assert {record["agreement"].mean for record in wandering} == {0.0}
    assert min(record["score"] for record in steady) > max(record["score"] for record in wandering)


def saying(probability, names):
    """A rule that says the same of everything."""
    rule, odds = weighing(names[0], names), float(np.log(probability / (1.0 - probability)))
    return dataclasses.replace(rule, weights=(0.0,) * len(rule.weights), intercept=odds)


def test_places_somewhat_below_the_lowest_score_are_clicked_but_hopeless_ones_are_not():
    """A click may lift what was doubted before."""
    array, matrix = scan()
    for doubt, count in ((0.2, 3), (0.04, 0)):
        score = dataclasses.replace(default_score(), place=saying(doubt, PLACE), clicked=saying(0.5, OBJECT))
        assert len(generator_for(array, matrix, score=score, min_score=0.4).generate()) == count


def test_a_place_larger_than_the_classifier_has_learned_is_clicked_whatever_it_says():
    array, matrix = scan()
    score = dataclasses.replace(default_score(), place=saying(0.001, PLACE), clicked=saying(0.5, OBJECT))
    (large, *small) = candidates_of()
    places = [dataclasses.replace(large, diameter_mm=36.0), *small]
    generator = generator_for(array, matrix, score=score, candidate_finder=lambda *a, **k: places)
    (record,) = generator.generate()
    assert generator.clicked == 1 and np.allclose(record["measurements"].centroid_ras, SPHERES[0][0], atol=1.0)


class Judging:
    """A classifier that knows what it is to say at each sphere, and remembers what it was asked."""

    def __init__(self, odds):
        self.odds, self.asked = odds, []

    def __call__(self, array, matrix, centers, diameters, progress=None, mirrored=False):
        self.asked.append((np.array(centers), np.array(diameters)))
        nearest = [np.argmin([np.linalg.norm(np.subtract(c, center)) for center, _ in SPHERES]) for c in centers]
        return np.array([self.odds[n] for n in nearest])


def by_appearance(names):
    return weighing("appearance", names)


def test_only_the_likeliest_candidates_are_clicked_and_a_bound_that_leaves_some_out_is_told():
    array, matrix = scan()
    model, judge = BatchModel(), Judging((-2.0, 3.0, 1.0))
    score = NoduleScore(by_appearance(PLACE), by_appearance(OBJECT))
    generator = generator_for(array, matrix, model, classifier=judge, score=score, max_candidates=2)
    records = generator.generate()
    assert [each.center_ras for each in generator.candidates] == [SPHERES[1][0], SPHERES[2][0]]
    assert [record["appearance"] for record in records] == [3.0, 1.0] and generator.clicked == 2
    assert records[0]["score"] == pytest.approx(1.0 / (1.0 + np.exp(-3.0)))
    assert "left out 1 places that may be nodules, 1 of them likely" in generator.message
    generator.max_candidates = None
    assert len(generator.generate()) == 3 and generator.message == ""


def many_spheres():
    """Balls in a large volume, more than a search clicks of what is doubtful."""
    matrix = np.diag([1.5, 1.5, 1.5, 1.0])
    world = world_of((40, 90, 90), matrix)
    spheres = [((15.0 + 20.0 * i, 15.0 + 20.0 * j, 30.0), 3.0) for i in range(6) for j in range(6)]
    near = [np.floor(np.array([c[2], c[1], c[0]]) / 1.5).astype(int) for c, _ in spheres]
    array = np.full(world.shape[:3], -900, np.int16)
    for (center, radius), middle in zip(spheres, near, strict=True):
        window = tuple(slice(max(m - 5, 0), m + 6) for m in middle)
        array[window] = np.maximum(array[window], sphere_volume(world[window], center, radius))
    return array, matrix, spheres


class Priced(BatchModel):
    """A network whose clicks cost a tenth of a TFLOP and more."""

    gflop = (50.0, 10.0)


def test_doubtful_places_are_clicked_within_the_budget_and_likely_ones_beyond_it():
    array, matrix, spheres = many_spheres()
    clicks = {}
    for name, belief, budget in (("likely", 0.9, 1.0), ("doubtful", 0.02, 1.0), ("more", 0.02, 4.8)):
        score = NoduleScore(saying(belief, PLACE), saying(0.5, OBJECT))
        generator = generator_for(array, matrix, Priced(), spheres, score=score, max_tflop=budget)
        records = generator.generate()
        clicks[name] = generator.clicked
        assert len(records) == generator.clicked
        if name == "more":
            assert generator.tflop == pytest.approx(4.8, rel=0.05)
    assert clicks["likely"] == len(spheres) == 36, "no bound cuts likely nodules"
    assert clicks["doubtful"] == 30 < clicks["more"] < 36


class Watching(Judging):
    """A classifier that sees how many nodules users see whenever it is to judge candidates."""

    def __call__(self, array, matrix, centers, *others, **options):
        if len(centers) > 1:
            self.shown.append([record["point_coords"] for record in self.generator.found_so_far])
        return super().__call__(array, matrix, centers, *others, **options)


def test_the_likeliest_are_on_screen_before_all_are_judged_and_the_result_is_that_of_judging_all_at_once(monkeypatch):
    """A place that stands out less than many others and is likelier than all comes first in the end."""
    array, matrix = scan()
    beside = [((25.0, 25.0, -20.0 + n), 4.0) for n in range(6)]
    order = [SPHERES[0], SPHERES[1], *beside, SPHERES[2]]
    score = NoduleScore(by_appearance(PLACE), by_appearance(OBJECT))
    results = []
    for first in (4, 600):
        monkeypatch.setattr(automatic_mask_generator, "_JUDGED_FIRST", first)
        judge = Watching((1.0, -4.0, 2.0))
        judge.generator = generator = generator_for(array, matrix, Priced(), order, classifier=judge, score=score)
        judge.shown = []
        results.append((generator.generate(), generator, judge.shown))
    (early, one, shown), (late, other, at_once) = results
    assert shown == [[], [early[1]["point_coords"]]] and at_once == [[]]
    assert one.clicked == other.clicked and one.candidates == other.candidates
    assert one.tflop == pytest.approx(other.tflop)
    assert [record["score"] for record in early] == [record["score"] for record in late]
    assert all(np.array_equal(a["segmentation"], b["segmentation"]) for a, b in zip(early, late, strict=True))
    assert np.linalg.norm(np.subtract(early[0]["point_coords"][0], SPHERES[2][0])) < 1.0


def test_a_search_that_is_cancelled_while_it_judges_keeps_what_was_clicked(monkeypatch):
    array, matrix = scan()
    monkeypatch.setattr(automatic_mask_generator, "_JUDGED_FIRST", 2)
    generator = generator_for(array, matrix, score=NoduleScore(saying(0.9, PLACE), saying(0.5, OBJECT)))
    records = generator.generate(lambda done, total: not generator.found_so_far)
    assert generator.cancelled and len(records) == 1 == len(generator.found_so_far)


def test_a_mass_that_is_clicked_at_its_rim_is_judged_by_a_click_in_its_middle():
    """A small nodule is judged by the click that was made."""
    for radius, is_moved in ((14.0, True), (7.0, False)):
        mass = ((0.0, 0.0, 0.0), radius)
        array, matrix = scan(spheres=[mass])
        rim = np.array([(0.8 * radius, 0.0, 0.0)])
        (record,) = generator_for(array, matrix, point_candidates=rim).generate()
        off = np.linalg.norm(record["point_coords"][0])
        assert (off < 2.5) == is_moved and (record["features"].off_center < 0.3) == is_moved
        assert dice(record, truth_of(array, matrix, mass)) > 0.9


def test_the_boxes_of_a_detector_of_record_become_places_and_count_for_the_score():
    array, matrix = scan()
    asked = []

    def detector(image, affine, lungs, **options):
        asked.append(sorted(options))
        center, radius = SPHERES[2]
        return [Candidate(tuple(np.add(center, 0.5)), 2.0 * radius, float("nan"), "solid", detection=0.9)]

    score = NoduleScore(saying(0.6, PLACE), saying(0.6, OBJECT))
    alone = generator_for(array, matrix, spheres=SPHERES[:2], score=score).generate()
    records = generator_for(array, matrix, spheres=SPHERES[:2], score=score, detector=detector).generate()
    assert len(alone) == 2 and all(record["score"] == pytest.approx(0.6) for record in alone)
    assert asked == [["limit", "max_diameter_mm", "min_diameter_mm", "progress"]]
    named, *others = records
    assert dice(named, truth_of(array, matrix, SPHERES[2])) > 0.9 and len(others) == 2
    assert named["score"] == pytest.approx(joined(0.6, 0.9))
    assert all(record["score"] == pytest.approx(joined(0.6, 0.02)) for record in others)


def test_what_a_search_spends_is_counted():
    array, matrix = scan()
    generator = generator_for(array, matrix, Priced())
    generator.generate()
    predictor, judged = generator.predictor, len(SPHERES) * (1 + MIRRORS)
    spent = 50.0 * predictor.encodings + 10.0 * predictor.decodings + CLASSIFIER_GFLOP * judged
    assert predictor.encodings >= 3 and predictor.decodings >= 9
    assert generator.tflop == pytest.approx(spent / 1000.0)
    assert generator_for(array, matrix).tflop is None, "of this network nobody knows"


def test_the_object_is_judged_at_its_own_place_and_size_not_at_those_of_the_candidate():
    array, matrix = scan()
    off = [Candidate(tuple(np.add(center, 1.5)), 3.0 * radius, 0.9, "solid") for center, radius in SPHERES]
    judge = Judging((0.0, 0.0, 0.0))
    generator_for(array, matrix, classifier=judge, candidate_finder=lambda *a, **k: off).generate()
    (places, sizes), *objects = judge.asked
    assert len(places) == 3 and sizes == pytest.approx([3.0 * radius for _, radius in SPHERES])
    assert len(objects) == 3
    for [center], [diameter] in objects:
        apart, radius = min((np.linalg.norm(np.subtract(center, c)), r) for c, r in SPHERES)
        assert apart < 1.0 and diameter == pytest.approx(2.0 * radius, rel=0.2)


def test_given_points_are_judged_as_objects_only():
    array, matrix = scan()
    judge = Judging((0.0, 0.0, 0.0))
    points = np.array([center for center, _ in SPHERES])
    records = generator_for(array, matrix, classifier=judge, point_candidates=points).generate()
    assert [len(centers) for centers, _ in judge.asked] == [1, 1, 1]
    assert all(r["appearance"] == 0.0 and 0 < r["score"] < 1 for r in records)


def test_where_stability_ranks_objects_are_not_judged():
    array, matrix = scan()
    judge = Judging((0.0, 0.0, 0.0))
    model = BatchModel(dataclasses.replace(PROFILE, iou_head=False))
    assert len(generator_for(array, matrix, model, classifier=judge).generate()) == 3 and len(judge.asked) == 1


def test_it_works_with_untrained_weights_of_the_public_architecture():
    torch.manual_seed(0)
    predictor = SamPredictor3D(build_model("vit_b_ori"))
    array, matrix = scan()
    predictor.set_image(array, matrix)
    points = np.array([SPHERES[0][0]])
    generator = SamAutomaticMaskGenerator3D(
        predictor,
        point_candidates=points,
        lungs="whole_volume",
        min_diameter_mm=0.5,
        max_diameter_mm=500.0,
        stability_score_thresh=0.0,
    )
    records = generator.generate()
    assert generator.ranking == "stability" and "sam_med3d" in generator.message
    for record in records:
        assert record["predicted_iou"] is None and 0 <= record["score"] <= 1


# -- input ------------------------------------------------------------------------------------------------------------


def test_no_lungs_searches_the_whole_volume_and_says_so():
    array, matrix = scan()
    generator = generator_for(array, matrix, lungs="auto", lung_finder=nowhere)
    assert len(generator.generate()) == 3
    assert generator.lungs_found is None and "whole volume" in generator.message


def test_lungs_can_be_given():
    array, matrix = scan()
    asked = []
    lungs = everywhere(array, matrix)
    generator = generator_for(
        array, matrix, lungs=lungs, candidate_finder=lambda a, m, given, **k: asked.append(given) or []
    )
    assert generator.generate() == [] and asked == [lungs]


VOLUMES = {
    "air": (np.full((40, 60, 60), -1000, np.int16), (0.7, 0.7, 1.25)),
    "constant": (np.full((40, 60, 60), 40.0, np.float32), (0.7, 0.7, 1.25)),
    "one slice": (np.random.default_rng(0).normal(-800, 50, (1, 64, 64)).astype(np.int16), (0.7, 0.7, 5.0)),
    "tiny": (np.random.default_rng(0).normal(-800, 50, (3, 4, 5)).astype(np.int16), (0.7, 0.7, 1.25)),
    "MR": (np.random.default_rng(0).gamma(2.0, 150.0, (30, 64, 64)).astype(np.float32), (1.0, 1.0, 4.0)),
    "thick": (np.random.default_rng(0).normal(-850, 40, (24, 90, 90)).astype(np.int16), (1.0, 1.0, 5.0)),
    "head": (
        np.where(np.hypot(*np.mgrid[-40:40, -40:40])[None] < 36, 40, -1000).repeat(30, axis=0).astype(np.int16),
        (2.0, 2.0, 3.0),
    ),
}


@pytest.mark.parametrize("name", VOLUMES)
def test_volumes_without_nodules_end_in_a_result_or_a_message(name):
    array, spacing = VOLUMES[name]
    predictor = SamPredictor3D(BatchModel())
    predictor.set_image(array, np.diag([*spacing, 1.0]))
    generator = SamAutomaticMaskGenerator3D(predictor, max_candidates=4)
    records = generator.generate()
    assert isinstance(records, list)
    assert generator.lungs_found is not None or "lungs" in generator.message or "everywhere" in generator.message


def test_input_that_cannot_be_used_is_refused():
    array, matrix = scan()
    predictor = SamPredictor3D(BatchModel())
    with pytest.raises(InputError, match="no image"):
        SamAutomaticMaskGenerator3D(predictor).generate()
    with pytest.raises(InputError, match="either"):
        SamAutomaticMaskGenerator3D(predictor, points_per_side=3, point_candidates=[[0, 0, 0]])
    with pytest.raises(InputError, match="mm"):
        SamAutomaticMaskGenerator3D(predictor, min_diameter_mm=9, max_diameter_mm=5)
    with pytest.raises(InputError, match="points_per_batch"):
        SamAutomaticMaskGenerator3D(predictor, points_per_batch=0)
    predictor.set_image(array, matrix)
    with pytest.raises(InputError, match="point_candidates"):
        SamAutomaticMaskGenerator3D(predictor, point_candidates=[[0, 0]]).generate()
    with pytest.raises(InputError, match="outside"):
        SamAutomaticMaskGenerator3D(predictor, point_candidates=[[5000, 0, 0]], lungs="whole_volume").generate()
