"""The engine with a small network that sees bright objects; one test with the bundled model."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from finding.simple_chest import chest
from inference.fakes import PROFILE, ThresholdModel, sphere_volume
from inference.volumes import ORIENTATIONS, grid, rotation, world_of
from SAMMed3DLib.finding.lungs import find_lungs
from SAMMed3DLib.inference import SamPredictor3D, measure_nodule
from SAMMed3DLib.inference.geometry import length_scale
from SAMMed3DLib.torch_setup import device as torch_device
from SAMMed3DLib.worker.engine import Engine
from SAMMed3DLib.worker.requests import (
    AXES,
    SCALE,
    FindLungs,
    FunctionRequest,
    Generate,
    LoadModel,
    Measure,
    Predict,
    Prefetch,
    RequestCancelled,
    SetVolume,
    StaleRequest,
    Start,
    VolumeInfo,
)

CENTER = (4.0, -3.0, 6.0)
SHAPE, SPACING, DIRECTIONS = ORIENTATIONS["axial LPS"]
MATRIX = grid(SHAPE, SPACING, DIRECTIONS)
ARRAY = sphere_volume(world_of(SHAPE, MATRIX), CENTER, 8.0)
CLICKS = [CENTER, (10.0, -3.0, 6.0), (4.0, 3.0, 6.0)]
LABELS = [1, 0, 1]


def go_on(_done, _total, _text):
    return True


class Stopwatch:
    """A report that says stop at its n-th call."""

    def __init__(self, calls: int) -> None:
        self.left = calls

    def __call__(self, _done, _total, _text):
        self.left -= 1
        return self.left >= 0


class FakeGenerator:
    """Finds what the test says, with two progress calls."""

    def __init__(self, records, message="") -> None:
        self.records, self.message, self.settings = records, message, None

    def __call__(self, predictor, **settings):
        self.predictor, self.settings = predictor, settings
        return self

    def generate(self, progress):
        half = len(self.records) // 2
        if not progress(1, 2):
            return self.records[:half]
        progress(2, 2)
        return self.records


def engine_for(model=None, array=ARRAY, matrix=MATRIX, identity="ct", **options):
    model = model or ThresholdModel(push=60.0)
    engine = Engine(load=lambda path, device, precision: model, **options)
    engine.run(LoadModel("a.pth", "cpu", "fp32"), go_on)
    engine.run(SetVolume(identity, array, matrix, matrix), go_on)
    return engine, model


def ask(engine, count=3, points=None, labels=None, nodule="n", start=None, identity="ct", world=None, report=go_on):
    points, labels = points or CLICKS[:count], labels or LABELS[:count]
    return engine.run(Predict(identity, nodule, points, labels, start, world), report)


def expected(count=3, points=None, labels=None, **options):
    predictor = SamPredictor3D(ThresholdModel(push=60.0))
    predictor.set_image(ARRAY, MATRIX)
    return predictor.predict(points or CLICKS[:count], labels or LABELS[:count], **options)


def same(answer, prediction):
    assert answer.offset_kji == prediction.offset_kji
    np.testing.assert_array_equal(answer.mask, prediction.mask)


# -- clicks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [(1, 2, 3), (3,), (1, 3), (2, 3)])
def test_however_clicks_are_bundled_the_result_is_that_of_one_by_one(steps):
    engine, _ = engine_for()
    for count in steps:
        answer = ask(engine, count)
        same(answer, expected(count))
        assert answer.clicks == count and answer.score == pytest.approx(0.8)


def test_only_new_clicks_are_decoded_and_earlier_states_cost_nothing():
    engine, model = engine_for()
    ask(engine, 3)
    encoded, decoded = model.encoded, len(model.prompts)
    same(ask(engine, 2), expected(2))
    same(ask(engine, 3), expected(3))
    assert (model.encoded, len(model.prompts)) == (encoded, decoded)
    ask(engine, points=[*CLICKS, (0.0, -3.0, 6.0)], labels=[*LABELS, 1])
    assert model.encoded == encoded and len(model.prompts) <= decoded + 2


def test_a_moved_click_goes_on_from_the_last_one_that_holds():
    engine, model = engine_for()
    ask(engine, 3)
    encoded = model.encoded
    moved = [*CLICKS[:2], (3.0, 4.0, 6.0)]
    same(ask(engine, points=moved, labels=LABELS), expected(points=moved, labels=LABELS))
    first = [(3.0, -3.0, 6.0), *CLICKS[1:]]
    same(ask(engine, points=first, labels=LABELS), expected(points=first, labels=LABELS))
    flipped = [1, 1, 1]
    same(ask(engine, labels=flipped), expected(labels=flipped))
    assert model.encoded >= encoded


@pytest.mark.parametrize("number", [0, 1, 2])
def test_while_a_click_moves_drafts_cost_one_decoding_and_are_not_remembered(number):
    engine, model = engine_for()
    ask(engine, 3)
    for step in range(1, 4):
        moved = list(CLICKS)
        moved[number] = (CLICKS[number][0], CLICKS[number][1] + 0.5 * step, CLICKS[number][2])
        encoded, decoded = model.encoded, len(model.prompts)
        draft = engine.run(Predict("ct", "n", moved, LABELS, moving=True), go_on)
        assert (model.encoded, len(model.prompts)) == (encoded, decoded + 1)
        assert draft.mask.any() and draft.clicks == 3
    same(ask(engine, points=moved, labels=LABELS), expected(points=moved, labels=LABELS))
    same(ask(engine, 3), expected(3))


def test_a_first_click_that_moves_before_there_was_an_answer_is_answered_in_full():
    engine, _ = engine_for()
    same(engine.run(Predict("ct", "n", CLICKS[:1], LABELS[:1], moving=True), go_on), expected(1))


def test_the_first_positive_click_leads():
    engine, _ = engine_for()
    points, labels = [CLICKS[1], CLICKS[0], CLICKS[2]], [0, 1, 1]
    same(ask(engine, points=points, labels=labels), expected(points=points, labels=labels))


def test_nodules_do_not_disturb_each_other():
    engine, _ = engine_for()
    ask(engine, 1, nodule="a")
    ask(engine, 2, nodule="b")
    same(ask(engine, 3, nodule="a"), expected(3))


def test_a_cancelled_request_keeps_the_clicks_that_were_done():
    engine, model = engine_for()
    with pytest.raises(RequestCancelled):
        ask(engine, 3, report=Stopwatch(3))
    decoded = len(model.prompts)
    assert decoded
    same(ask(engine, 3), expected(3))


def test_measurements_are_those_of_the_prediction():
    engine, _ = engine_for()
    prediction = expected(3)
    measured = dict(ask(engine, 3).measurements)
    ends = np.array(measured.pop(AXES))
    assert measured.pop(SCALE) == length_scale(MATRIX)
    assert measured == measure_nodule(prediction, ARRAY, MATRIX).to_dict()
    lengths = np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1)
    assert lengths == pytest.approx([measured["long_axis_mm"], measured["short_axis_mm"]], abs=0.01)


def test_measurements_are_in_the_world():
    engine, _ = engine_for()
    turn = np.eye(4)
    turn[:3, :3] = rotation(90.0, (1.0, 0.0, 0.0))
    turn[:3, 3] = (50.0, -20.0, 7.0)
    local, world = ask(engine, 3).measurements, ask(engine, 3, world=turn @ MATRIX).measurements
    assert world["volume_mm3"] == pytest.approx(local["volume_mm3"])
    np.testing.assert_allclose(world["centroid_ras"], (turn @ [*local["centroid_ras"], 1])[:3])
    ends = np.array(world[AXES])
    assert np.linalg.norm(ends[0, 1] - ends[0, 0]) == pytest.approx(world["long_axis_mm"], abs=0.01)
    assert np.abs(ends - local["centroid_ras"]).max() < world["long_axis_mm"], "the ends are in the volume's own RAS"
    stretched = ask(engine, 3, world=np.diag([2.0, 2.0, 2.0, 1.0]) @ MATRIX).measurements
    assert stretched["volume_mm3"] == pytest.approx(8 * local["volume_mm3"], rel=1e-3)
    assert stretched["long_axis_mm"] == pytest.approx(2 * local["long_axis_mm"], rel=1e-2)


# -- masks as a start -------------------------------------------------------------------------------------------------


def drawn_start():
    """The sphere with a stick that no network would draw, and a slice cut off."""
    prediction = expected(1)
    full = prediction.full_mask(SHAPE)
    full[36, 20, :20] = 1
    full[: prediction.offset_kji[0] + 4] = 0
    inside = np.argwhere(full)
    low, high = inside.min(axis=0), inside.max(axis=0) + 1
    mask = full[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    return full, Start(mask, tuple(int(x) for x in low))


def full_of(answer):
    volume = np.zeros(SHAPE, dtype=np.uint8)
    volume[tuple(slice(o, o + n) for o, n in zip(answer.offset_kji, answer.mask.shape, strict=True))] = answer.mask
    return volume


def test_what_a_person_drew_survives_clicks():
    full, start = drawn_start()
    engine, _ = engine_for()
    add = (4.0, 8.0, 6.0)
    answer = ask(engine, points=[add], labels=[1], start=start)
    after = full_of(answer)
    assert np.all(after >= full) and answer.score is None
    i, j, k = np.floor(np.linalg.inv(MATRIX) @ [*add, 1.0] + 0.5).astype(int)[:3]
    assert after[k, j, i] == 1
    cut = full_of(ask(engine, points=[add, CENTER], labels=[1, 0], start=start))
    assert np.all(cut <= after) and cut.sum() < after.sum() and cut[36, 20, 5] == 1


def test_a_start_with_its_origin_costs_no_encoding_and_gives_what_a_second_click_gives():
    engine, model = engine_for()
    ask(engine, 1, nodule="found")
    origin = engine._trails.of(("ct", "found"), None).steps[0].prediction
    encoded = model.encoded
    start = Start(origin.mask, origin.offset_kji, origin)
    answer = ask(engine, points=[CLICKS[1]], labels=[0], start=start)
    assert model.encoded == encoded
    same(answer, expected(points=[CLICKS[1]], labels=[0], previous=origin))


# -- volumes and models -----------------------------------------------------------------------------------------------


def test_requests_about_another_volume_or_before_the_model_are_stale():
    engine = Engine(load=lambda *_: ThresholdModel())
    for request in (Predict("ct", "n", [CENTER], [1]), Prefetch("ct", CENTER), Generate("ct"), Measure("ct", {})):
        with pytest.raises(StaleRequest):
            engine.run(request, go_on)
    engine.run(SetVolume("ct", ARRAY, MATRIX, MATRIX), go_on)
    with pytest.raises(StaleRequest):
        ask(engine)
    engine.run(LoadModel("a.pth"), go_on)
    assert ask(engine, 1).mask.any()
    with pytest.raises(StaleRequest):
        ask(engine, identity="another")


def test_the_volume_is_copied_and_checked():
    array = ARRAY.copy()
    engine, _ = engine_for(array=array)
    array[:] = 0
    same(ask(engine, 1), expected(1))
    broken = np.zeros((2, *ARRAY.shape), np.float32)
    with pytest.raises(ValueError, match="4D") as error:
        engine.run(SetVolume("broken", broken, MATRIX, MATRIX), go_on)
    assert engine.explain(error.value) == str(error.value)
    with pytest.raises(StaleRequest):
        ask(engine, 1)
    engine.run(SetVolume("ct", ARRAY, MATRIX, MATRIX), go_on)
    same(ask(engine, 1), expected(1))


def test_voxels_that_are_no_numbers_count_as_air_which_is_said():
    engine, _ = engine_for()
    holes = ARRAY.astype(np.float32)
    assert engine.run(SetVolume("whole", holes, MATRIX, MATRIX), go_on) == VolumeInfo("whole")
    holes[3], holes[5, 2, 1], holes[5, 2, 2] = np.nan, np.inf, -np.inf
    given = holes.copy()
    info = engine.run(SetVolume("holes", holes, MATRIX, MATRIX), go_on)
    assert info.identity == "holes" and info.note.startswith(f"{holes[3].size + 2} voxels are no numbers")
    np.testing.assert_array_equal(holes, given, "the scene's voxels are the scene's")
    filled = np.where(np.isfinite(holes), holes, -1024.0)
    np.testing.assert_array_equal(engine._array, filled)


def test_the_same_volume_is_not_copied_again_and_its_embeddings_are_found_again():
    engine, model = engine_for()
    ask(engine, 1)
    encoded = model.encoded
    engine.run(SetVolume("ct", np.zeros((2, 2, 2)), MATRIX, MATRIX), go_on)
    engine.run(SetVolume("other", ARRAY[::2].copy(), MATRIX, MATRIX), go_on)
    engine.run(SetVolume("ct", ARRAY, MATRIX, MATRIX), go_on)
    same(ask(engine, 1, nodule="again"), expected(1))
    assert model.encoded == encoded


def test_another_model_answers_anew():
    models = iter([ThresholdModel(push=60.0), ThresholdModel(gain=5.0)])
    engine = Engine(load=lambda *_: next(models))
    engine.run(LoadModel("a.pth"), go_on)
    engine.run(SetVolume("ct", ARRAY, MATRIX, MATRIX), go_on)
    ask(engine, 3)
    info = engine.run(LoadModel("b.pth", "cuda", "fp32"), go_on)
    assert (info.path, info.name, info.device) == ("b.pth", PROFILE.name, "cpu") and "graphics memory" in info.note
    predictor = SamPredictor3D(ThresholdModel(gain=5.0))
    predictor.set_image(ARRAY, MATRIX)
    same(ask(engine, 3), predictor.predict(CLICKS, LABELS))


@pytest.mark.parametrize(
    ("answer", "device", "note"),
    [(None, "cuda", "graphics memory"), (RuntimeError("no kernel image\nmore"), "cpu", "CPU: no kernel image")],
    ids=["a card that works", "a card that does not compute"],
)
def test_auto_takes_a_graphics_card_that_computes(monkeypatch, answer, device, note):
    def zeros(*_shape, device):
        if answer is not None:
            raise answer
        return torch.ones(1)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "zeros", zeros)
    asked = []
    engine = Engine(load=lambda path, device, precision: asked.append(device) or ThresholdModel(push=60.0))
    torch_device.cuda_problem.cache_clear()
    try:
        info = engine.run(LoadModel("a.pth"), go_on)
    finally:
        torch_device.cuda_problem.cache_clear()
    assert asked == [device] and note in info.note  # the model itself always lands on the CPU here


def test_the_same_file_is_loaded_once():
    paths = []
    engine = Engine(load=lambda path, *_: paths.append(path) or ThresholdModel(push=60.0))
    first = engine.run(LoadModel("a.pth", "cpu", "fp32", modified=1), go_on)
    engine.run(SetVolume("ct", ARRAY, MATRIX, MATRIX), go_on)
    ask(engine, 2)
    assert engine.run(LoadModel("a.pth", "cpu", "fp32", modified=1), go_on) == first and paths == ["a.pth"]
    engine.run(LoadModel("a.pth", "cpu", "fp32", modified=2), go_on)
    assert paths == ["a.pth"] * 2
    same(ask(engine, 3), expected(3))


def test_a_prefetched_click_costs_no_encoding():
    engine, model = engine_for()
    preview = engine.run(Prefetch("ct", CENTER), go_on)
    encoded = model.encoded
    assert encoded and preview.measurements == {}
    click = ask(engine, 1)
    assert model.encoded == encoded
    same(preview, click)
    assert (preview.score, preview.clicks) == (click.score, 1), "it is what the click gives"
    with pytest.raises(RequestCancelled):
        engine.run(Prefetch("ct", (-20.0, 10.0, 0.0)), Stopwatch(0))
    assert model.encoded == encoded


def test_errors_in_words():
    engine, _ = engine_for()
    with pytest.raises(ValueError, match="outside the volume") as error:
        ask(engine, points=[(999.0, 0.0, 0.0)], labels=[1])
    assert "outside the volume" in engine.explain(error.value)
    assert "not enough memory" in engine.explain(MemoryError())
    assert "not enough memory" in engine.explain(torch.OutOfMemoryError())
    assert "PyTorch" in engine.explain(ModuleNotFoundError("no torch", name="torch"))
    assert "cannot be read" in engine.explain(FileNotFoundError("a.pth"))
    assert engine.explain(ValueError("bug")) is None and engine.explain(KeyError("bug")) is None


# -- all nodules ------------------------------------------------------------------------------------------------------


def record(prediction, score):
    return {
        "segmentation": prediction.mask,
        "offset_kji": prediction.offset_kji,
        "score": score,
        "predicted_iou": prediction.score,
        "prediction": prediction,
    }


def cube_record(low, score, size=4):
    mask = np.ones((size,) * 3, dtype=np.uint8)
    return {"segmentation": mask, "offset_kji": low, "score": score, "predicted_iou": None}


def test_found_nodules_come_with_measurements_the_best_first():
    prediction = expected(1)
    generator = FakeGenerator([cube_record((2, 2, 2), 0.3), record(prediction, 0.9)], "a remark")
    engine, _ = engine_for(generator=generator)
    told = []
    answer = engine.run(Generate("ct", settings={"lungs": "whole_volume"}), lambda *args: told.append(args) or True)
    assert [nodule.score for nodule in answer.found] == [0.9, 0.3] and answer.note == "a remark"
    assert generator.settings == {"lungs": "whole_volume"} and (1, 2, "") in told
    best = answer.found[0]
    assert best.origin is prediction and best.predicted_iou == prediction.score
    known = measure_nodule(prediction, ARRAY, MATRIX).to_dict()
    assert {key: best.measurements[key] for key in known} == known


def test_what_was_found_so_far_is_told_once_and_stays_the_same_object():
    class Growing(FakeGenerator):
        def generate(self, progress):
            for count in (0, 1, 1, 2):
                self.found_so_far = self.records[:count] if count != len(self.found_so_far) else self.found_so_far
                progress(count, 3)
            return self.records

    generator = Growing([cube_record((2, 2, 2), 0.9), cube_record((20, 2, 2), 0.8), cube_record((40, 2, 2), 0.7)])
    generator.found_so_far = []
    engine, _ = engine_for(generator=generator)
    told = []
    keep = [Start(np.ones((4, 4, 4), np.uint8), (20, 2, 3))]
    answer = engine.run(Generate("ct", keep), lambda *args: told.append(args) or True)
    assert [args[:2] for args in told[-4:]] == [(0, 3), (1, 3), (1, 3), (2, 3)]
    news = [args[3] for args in told if len(args) > 3]
    assert [[nodule.offset_kji for nodule in part.found] for part in news] == [[(2, 2, 2)], [(2, 2, 2)]]
    assert news[0].found[0] is news[1].found[0] is answer.found[0] and len(answer.found) == 2


def test_what_is_known_is_not_found_again():
    generator = FakeGenerator([cube_record((2, 2, 2), 0.9), cube_record((20, 2, 2), 0.8), cube_record((40, 2, 2), 0.7)])
    engine, _ = engine_for(generator=generator)
    keep = [
        Start(np.ones((4, 4, 4), np.uint8), (20, 2, 3)),
        Start(np.ones((2, 2, 2), np.uint8), (2, 2, 2)),
        Start(np.ones((2, 2, 2), np.uint8), (50, 50, 50)),
    ]
    answer = engine.run(Generate("ct", keep), go_on)
    assert [nodule.offset_kji for nodule in answer.found] == [(40, 2, 2)]


def test_a_cancelled_search_tells_what_it_has():
    generator = FakeGenerator([cube_record((2, 2, 2), 0.9), cube_record((20, 2, 2), 0.8)])
    engine, _ = engine_for(generator=generator)
    with pytest.raises(RequestCancelled) as stop:
        engine.run(Generate("ct"), Stopwatch(1))
    assert [nodule.score for nodule in stop.value.value.found] == [0.9]


def test_a_thorough_search_asks_the_detector_of_the_file_which_is_read_once(tmp_path):
    file, read = tmp_path / "model.pt", []
    file.write_bytes(b"1")
    generator = FakeGenerator([])

    def load(path, device):
        read.append((path, device))
        return f"detector {len(read)}"

    engine, _ = engine_for(generator=generator, load_detector=load)
    engine.run(Generate("ct"), go_on)
    assert generator.settings == {} and not read
    for number, change in enumerate((None, b"1", b"22"), start=1):
        if change is not None:
            file.write_bytes(change)
            os.utime(file, ns=(10**9, 10**9 * (number if number > 2 else 1)))
        engine.run(Generate("ct", detector=str(file)), go_on)
    assert generator.settings == {"detector": "detector 3"} and read == [(str(file), "cpu")] * 3
    engine.run(Generate("ct", detector=str(file)), go_on)
    assert len(read) == 3


def test_a_file_that_is_no_detector_is_said(tmp_path):
    engine, _ = engine_for(generator=FakeGenerator([]))
    with pytest.raises(ValueError, match=r"models/model\.pt") as error:
        engine.run(Generate("ct", detector=str(tmp_path / "absent.pt")), go_on)
    assert engine.explain(error.value) == str(error.value)


def test_the_time_left_is_what_the_search_knows_of_it():
    class Knowing(FakeGenerator):
        seconds_left = None

        def generate(self, progress):
            progress(1, 4)
            self.seconds_left = 90.0
            progress(2, 4)
            return []

    engine, _ = engine_for(generator=Knowing([]))
    told = []
    engine.run(Generate("ct"), lambda *args, **known: told.append(known) or True)
    assert told[-2:] == [{"seconds_left": None}, {"seconds_left": 90.0}]


def test_masks_of_others_are_measured():
    engine, _ = engine_for()
    block = Start(np.ones((2, 3, 4), np.uint8), (5, 5, 5))
    answer = engine.run(Measure("ct", {"a": block}), go_on)
    assert answer["a"]["volume_mm3"] == pytest.approx(24 * 1.25)


def test_the_lungs_are_those_of_the_search(monkeypatch):
    array, matrix = chest()
    engine = Engine()
    engine.run(SetVolume("ct", array, matrix, matrix), go_on)
    told = []
    answer = engine.run(FindLungs("ct"), lambda *args: told.append(args[0] / args[1]) or True)
    mask, offset = find_lungs(array, matrix).voxels(array.shape, matrix)
    np.testing.assert_array_equal(answer.mask, mask)
    assert answer.offset_kji == offset and "liters" in answer.note
    assert told == sorted(told) and told[-1] == 1.0
    for report, error in ((Stopwatch(1), RequestCancelled), (Stopwatch(len(told) - 1), RequestCancelled)):
        with pytest.raises(error):
            engine.run(FindLungs("ct"), report)
    with pytest.raises(StaleRequest):
        engine.run(FindLungs("other"), go_on)
    engine.run(SetVolume("air", np.full_like(array, -1000), matrix, matrix), go_on)
    with pytest.raises(ValueError) as nothing:
        engine.run(FindLungs("air"), go_on)
    assert engine.explain(nothing.value) == str(nothing.value)


def test_functions_need_neither_torch_nor_a_volume(monkeypatch):
    monkeypatch.setattr("SAMMed3DLib.worker.engine.load_torch", lambda: 1 / 0)
    assert Engine().run(FunctionRequest(lambda report: report(1, 2, "")), go_on) is True
