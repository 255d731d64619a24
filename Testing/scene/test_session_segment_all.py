"""Segment all: what is kept, one step of history, the slider, cancelling, and clicks on what was found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import slicer.util

from SAMMed3DLib.scene.states import State
from SAMMed3DLib.worker.requests import Generate, Predict
from scene.session_bench import Bench
from scene.session_fakes import found

PLACES = {"large": (10, 8, 8), "small": (10, 20, 20), "doubtful": (25, 8, 20), "middle": (25, 20, 8)}


@pytest.fixture
def bench(slicer_scene):
    bench = Bench(slicer_scene)
    bench.engine.found = [
        found(PLACES["large"], 0.9, reach=4),
        found(PLACES["small"], 0.8, reach=1),
        found(PLACES["middle"], 0.6, reach=3),
        found(PLACES["doubtful"], 0.2, reach=2),
    ]
    yield bench
    bench.session.close()


def run(bench):
    bench.session.segmentAll()
    bench.settle()
    return bench.session.review.rows()


def sizes(bench):
    return [row.volumeMm3 for row in bench.session.review.rows()]


def request_of(bench):
    return [one for one in bench.engine.asked if isinstance(one, Generate)][-1]


def test_what_was_found_becomes_segments_the_likeliest_first(bench):
    bench.session.segmentAll()
    assert bench.session.state is State.GENERATING or bench.session.state is State.LOADING
    bench.settle()
    rows = bench.session.review.rows()
    assert [row.volumeMm3 for row in rows] == [9**3, 3**3, 7**3]
    assert [(row.status, row.score, row.predictedIou) for row in rows] == [
        ("AI", 0.9, 0.8),
        ("AI", 0.8, 0.8),
        ("AI", 0.6, 0.8),
    ]
    np.testing.assert_array_equal(bench.full(rows[1].segmentId), np.uint8(_cube(bench, "small", 1)))
    assert bench.session.selectedId == rows[0].segmentId, "the likeliest one is next"
    assert [row.name for row in rows] == ["Nodule 1", "Nodule 2", "Nodule 3"] and bench.session.state is State.READY
    assert bench.heard["progressed"][-1] == (1, 2, "Looking for nodules, about 3 s left")
    assert "4 nodules found, 3 shown" in bench.heard["message"][-1][0]


def _cube(bench, name, reach):
    volume = bench.cubes([])
    volume[tuple(slice(x - reach, x + reach + 1) for x in PLACES[name])] = 1
    return volume


def test_all_of_it_is_one_step_of_the_history(bench):
    before = run(bench)
    masks = {row.segmentId: bench.full(row.segmentId) for row in before}
    assert bench.session.history.undoText == "Segment all"
    bench.session.undo()
    assert bench.session.review.rows() == [] and not bench.session.history.canUndo
    assert not bench.session.finding.hasCandidates
    bench.session.finding.setSensitivity(0.9)
    bench.settle()
    assert bench.session.review.rows() == []
    bench.session.redo()
    bench.settle()
    assert bench.session.review.rows() == before and bench.session.finding.hasCandidates
    for segmentId, mask in masks.items():
        np.testing.assert_array_equal(bench.full(segmentId), mask)


def test_surfaces_come_and_go_with_the_nodules(bench):
    bench.session.review.show3d(True)
    run(bench)

    def surfaces():
        segmentation = bench.session.segmentationNode.GetSegmentation()
        found = [
            segmentation.GetSegment(row.segmentId).GetRepresentation("Closed surface")
            for row in bench.session.review.rows()
        ]
        return [surface.GetNumberOfPoints() > 0 for surface in found]

    assert surfaces() == [True] * 3
    steps = [
        (lambda: bench.session.finding.setSensitivity(1.0), 4),
        (lambda: bench.session.finding.setSensitivity(0.15), 1),
        (bench.session.undo, 0),
        (bench.session.redo, 1),
    ]
    for change, count in steps:
        change()
        bench.settle()
        assert surfaces() == [True] * count


def test_the_slider_shows_and_hides_without_asking_the_engine(bench):
    ids = [row.segmentId for row in run(bench)]
    count = len(bench.engine.asked)
    bench.session.finding.setSensitivity(0.9)
    bench.settle()
    assert sizes(bench) == [9**3, 3**3, 7**3, 5**3] and bench.session.finding.counts == (4, 4)
    bench.session.finding.setSensitivity(0.15)
    bench.settle()
    assert sizes(bench) == [9**3]
    bench.session.finding.setSensitivity(0.5)
    bench.settle()
    assert [row.segmentId for row in bench.session.review.rows()] == ids
    bench.session.finding.setSensitivity(0.0)
    bench.settle()
    assert sizes(bench) == [] and bench.session.history.undoText == "Segment all"
    bench.session.undo()
    bench.session.redo()
    bench.session.finding.setSensitivity(1.0)
    bench.settle()
    assert len(sizes(bench)) == 4
    assert len(bench.engine.asked) == count


def test_names_follow_the_list_whatever_the_slider_did(bench):
    bench.session.options.sensitivity = 0.15
    bench.click(30, 25, 25)
    run(bench)
    names = []
    for sensitivity in (1.0, 0.15, 0.5, 1.0):
        bench.session.finding.setSensitivity(sensitivity)
        bench.settle()
        names.append([row.name for row in bench.session.review.rows()])
    assert names[0] == names[3] == [f"Nodule {n}" for n in (1, 2, 3, 4, 5)]
    assert names[1:3] == [["Nodule 1", "Nodule 2"], ["Nodule 1", "Nodule 2", "Nodule 3", "Nodule 4"]]


def test_the_slider_hides_at_once_and_says_what_is_shown(bench):
    ids = [row.segmentId for row in run(bench)]
    display = bench.session.segmentationNode.GetDisplayNode()
    changes = []
    tag = display.AddObserver("ModifiedEvent", lambda *_event: changes.append(1))
    bench.session.finding.setSensitivity(0.15)
    assert [row.segmentId for row in bench.session.review.rows()] == ids[:1] and len(changes) == 1
    assert [bool(display.GetSegmentVisibility(one)) for one in ids] == [True, False, False]
    assert bench.session.segmentationNode.GetSegmentation().GetNumberOfSegments() == 3, "removed in small turns"
    bench.session.finding.setSensitivity(0.5)
    bench.settle()
    assert [bool(display.GetSegmentVisibility(one)) for one in ids] == [True] * 3
    bench.session.finding.setSensitivity(0.15)
    bench.settle()
    assert bench.session.segmentationNode.GetSegmentation().GetNumberOfSegments() == 1
    assert bench.heard["message"][-1] == ("1 of 4 found nodules are shown.", False)
    bench.session.finding.setSensitivity(0.5)
    bench.settle()
    assert [row.visible for row in bench.session.review.rows()] == [True] * 3
    display.RemoveObserver(tag)


def searchWithoutShowing(session) -> None:
    """Searches to the end; nothing of what is found has been shown then."""
    session.segmentAll()
    while session.finding.isRunning:
        session._pipeline.take(0.01)


def test_the_end_of_a_search_takes_turns(bench):
    session, heard = bench.session, bench.heard
    searchWithoutShowing(session)
    while session.segmentationNode is None or not session.volume.segmentation.ids:
        session._work(0.0001)
    turns = []
    while session._hasWork:
        before = {name: len(heard[name]) for name in ("nodulesChanged", "message", "selectionChanged")}
        stored = session.volume.segmentation.found()
        (session.finding.work if session.finding.hasWork else session._later.popleft())()
        told = {name for name, count in before.items() if len(heard[name]) > count}
        turns.append(told | ({"stored"} if session.volume.segmentation.found() != stored else set()))
    assert [turn for turn in turns if turn] == [{"stored"}, {"nodulesChanged"}, {"message"}, {"selectionChanged"}]
    assert session.selectedId == session.review.rows()[0].segmentId


@pytest.mark.parametrize("isFree", [True, False])
def test_the_selection_is_drawn_before_the_views_go_there(bench, isFree):
    session, went = bench.session, []
    session.preload()
    bench.settle()
    searchWithoutShowing(session)
    session.review.went.connect(went.append)
    session._work(60.0)
    first, second = (row.segmentId for row in session.review.rows()[:2])
    assert session.selectedId == first and went == [], "drawing takes the rest of the turn"
    if not isFree:
        session.select(second)
    session._work(60.0)
    assert went == ([first] if isFree else []), "the user has gone elsewhere"


@pytest.mark.parametrize("turns", range(5))
def test_another_volume_at_the_end_of_a_search_finds_it_stored(bench, turns):
    session = bench.session
    searchWithoutShowing(session)
    for _turn in range(3 + turns):  # three nodules are shown, then what comes afterwards
        if session.finding.hasWork:
            session.finding.work()
    assert len(session.review.rows()) == 3
    bench.session.setVolume(bench.addVolume("other"))
    bench.settle()
    assert session.selectedId is None
    session.setVolume(bench.volume)
    assert session.finding.counts == (3, 4), "it is stored with the scene"


@pytest.mark.parametrize("turns", range(4))
def test_undo_at_the_end_of_a_search_takes_it_back_as_a_whole(bench, turns):
    session = bench.session
    searchWithoutShowing(session)
    for _turn in range(3 + turns):
        if session.finding.hasWork:
            session.finding.work()
    session.undo()
    bench.settle()
    assert session.review.rows() == [] and session.selectedId is None and not session.finding.hasCandidates
    assert [text for text, _isError in bench.heard["message"] if "nodules found" in text] != []
    session.redo()
    bench.settle()
    assert len(session.review.rows()) == 3


def test_undo_while_the_slider_still_works(bench):
    ids = [row.segmentId for row in run(bench)]
    bench.session.review.rename(ids[0], "Hilar")
    bench.session.finding.setSensitivity(0.0)
    bench.session.undo()
    bench.settle()
    assert [row.segmentId for row in bench.session.review.rows()] == ids
    assert [row.visible for row in bench.session.review.rows()] == [True] * 3


def test_the_slider_lives_in_a_reopened_scene(bench, tmp_path):
    large, small, middle = (row.segmentId for row in run(bench))
    masks = {row.name: bench.full(row.segmentId) for row in bench.session.review.rows()}
    bench.session.review.delete(middle)
    bench.session.finding.setSensitivity(0.15)
    bench.settle()
    bench.scene.save(tmp_path / "scene.mrb")
    bench.session.close()
    bench.scene.load(tmp_path / "scene.mrb")
    again = Bench(bench.scene, volume=False)
    again.volume = again.scene.scene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")
    again.session.setVolume(again.volume)
    finding = again.session.finding
    assert finding.counts == (1, 4) and [row.segmentId for row in again.session.review.rows()] == [large]
    finding.setSensitivity(1.0)
    again.settle()
    rows = again.session.review.rows()
    assert [row.name for row in rows] == ["Nodule 1", "Nodule 2", "Nodule 4"], "what was deleted stays away"
    np.testing.assert_array_equal(again.full(rows[1].segmentId), masks["Nodule 2"])
    assert (rows[1].score, rows[1].predictedIou, rows[1].volumeMm3) == (0.8, 0.8, 27.0)
    finding.setSensitivity(0.0)
    again.settle()
    assert again.session.review.rows() == []
    again.session.close()


def test_candidates_of_other_voxels_are_forgotten(bench):
    from SAMMed3DLib.scene.finding import CandidateRun

    run(bench)
    text = bench.session.volume.segmentation.found()
    shape = bench.session.volume.geometry.shapeKji
    assert len(CandidateRun.fromText(text, shape).candidates) == 4
    for broken in (text[:-9], "", "{}", text.replace('"mask":"', '"mask":"AAAA')):
        assert CandidateRun.fromText(broken, shape).candidates == []
    assert CandidateRun.fromText(text, (1, 2, 3)).candidates == []


def test_a_nodule_selected_during_the_search_stays_selected(bench):
    first = bench.click(30, 25, 25)
    bench.session.select(None)
    bench.session.segmentAll()
    bench.session.select(first)
    bench.settle()
    assert bench.session.selectedId == first


def test_what_the_user_touched_no_longer_follows_the_slider(bench):
    large, small, middle = (row.segmentId for row in run(bench))
    bench.session.review.accept(large)
    bench.session.review.rename(middle, "Hilar")
    bench.session.select(small)
    bench.click(10, 20, 21)
    bench.session.finding.setSensitivity(0.0)
    bench.settle()
    assert [row.segmentId for row in bench.session.review.rows()] == [large, small, middle]
    for _ in range(3):
        bench.session.undo()
    bench.session.finding.setSensitivity(0.0)
    bench.settle()
    assert bench.session.review.rows() == []


def test_a_rejected_nodule_stays_away_until_undo(bench):
    large = run(bench)[0].segmentId
    bench.session.review.delete(large)
    bench.session.finding.setSensitivity(1.0)
    bench.settle()
    assert large not in [row.segmentId for row in bench.session.review.rows()] and len(bench.session.review.rows()) == 3
    bench.session.undo()
    assert bench.row(large).volumeMm3 == 9**3


def test_a_click_on_a_found_nodule_goes_on_from_what_the_engine_knows(bench):
    small = run(bench)[1].segmentId
    bench.session.select(small)
    bench.click(10, 20, 23)
    (request,) = bench.engine.predictions
    assert request.start.origin == f"origin of {PLACES['small']}" and len(request.labels) == 1
    expected = _cube(bench, "small", 1) | bench.cubes([(10, 20, 23)])
    np.testing.assert_array_equal(bench.full(small), expected)
    bench.session.promptsNode.RemoveNthControlPoint(0)
    bench.settle()
    np.testing.assert_array_equal(bench.full(small), _cube(bench, "small", 1))


def test_a_second_run_keeps_what_was_reviewed_or_clicked_and_replaces_the_rest(bench):
    large, small, middle = (row.segmentId for row in run(bench))
    bench.session.review.accept(large)
    bench.session.select(None)
    clicked = bench.click(30, 25, 25)
    bench.engine.found = [found(PLACES["middle"], 0.7, reach=2), found((30, 25, 25), 0.9)]
    rows = run(bench)
    # what the engine finds again of a kept nodule is not shown twice
    assert len(rows) == 3 and {large, clicked} < {row.segmentId for row in rows}
    assert {middle, small}.isdisjoint(row.segmentId for row in rows)
    assert len(request_of(bench).keep) == 2
    bench.session.undo()
    assert {row.segmentId for row in bench.session.review.rows()} == {large, middle, small, clicked}
    # the slider is about the first run again
    bench.session.finding.setSensitivity(1.0)
    bench.settle()
    assert len(bench.session.review.rows()) == 5
    bench.session.redo()
    assert len(bench.session.review.rows()) >= 3


def test_an_edit_by_hand_survives_a_second_run(bench):
    large = run(bench)[0].segmentId
    drawn = bench.full(large)
    drawn[30:33, 25:28, 25:28] = 1
    bench.edit(large, drawn)
    bench.engine.found = []
    assert [row.segmentId for row in run(bench)] == [large]
    np.testing.assert_array_equal(bench.full(large), drawn)


def test_cancel_keeps_what_was_found(bench):
    bench.session.preload()
    bench.settle()
    bench.session.segmentAll()
    bench.session.cancel()
    bench.settle()
    assert len(bench.session.review.rows()) == 3 and not bench.errors
    assert "4 nodules found until the search was canceled, 3 shown" in bench.heard["message"][-1][0]


def listed(bench, parts):
    """The session's sizes after each part of a search that goes on."""
    bench.engine.parts = parts
    bench.session.preload()
    bench.settle()
    bench.session.segmentAll()
    bench.worker.runOne()
    for _ in parts:
        bench.session.poll(0.0)
        while bench.session.finding.hasWork:
            bench.session.finding.work()
        yield sizes(bench)


def test_the_list_grows_while_the_search_goes_on_in_one_step_of_the_history(bench):
    large, small, middle, _doubtful = bench.engine.found
    wrong = found((30, 25, 25), 0.7, reach=2)
    grown = listed(bench, [[small], [small, wrong], [middle, small], [middle, small]])
    assert next(grown) == [3**3]
    (first,) = (row.segmentId for row in bench.session.review.rows())
    assert next(grown) == [3**3, 5**3]
    assert bench.session.state is State.GENERATING
    assert next(grown) == [3**3, 7**3], "what a better mask has replaced goes"
    assert next(grown) == [3**3, 7**3]
    bench.settle()
    assert sizes(bench) == [9**3, 3**3, 7**3] and bench.session.review.rows()[1].segmentId == first
    assert bench.session.finding.counts == (3, 4) and bench.session.state is State.READY
    assert [text for text, _ in bench.heard["message"] if "nodules found" in text] == [
        "4 nodules found, 3 shown: accept or reject them; the slider shows more or fewer."
    ]
    bench.session.undo()
    assert sizes(bench) == [] and not bench.session.history.canUndo
    bench.session.redo()
    bench.settle()
    assert sizes(bench) == [9**3, 3**3, 7**3]


def described(bench):
    return [(row.segmentId, row.name, row.volumeMm3, row.score) for row in bench.session.review.rows()]


def cut_short(bench, end):
    """A second search that has found one of the three again, and another one, when it ends."""
    before = [row for row in described(bench)] or [run(bench), described(bench)][1]
    new = [found(PLACES["small"], 0.85, reach=1), found((30, 25, 25), 0.7)]
    bench.engine.found, bench.engine.parts = new, [new[:1]]
    bench.session.segmentAll()
    end()
    bench.settle()
    return before


@pytest.mark.parametrize("touched", [False, True])
def test_at_the_end_of_a_search_names_follow_the_list_but_for_what_was_touched(bench, touched):
    bench.click(30, 5, 25)
    session = bench.session
    _large, small, middle, doubtful = bench.engine.found
    wrong = found((30, 25, 25), 0.7, reach=2)
    for _ in listed(bench, [[doubtful, middle], [doubtful, middle, wrong], [small, doubtful, middle]]):
        pass
    names = {round(row.volumeMm3): row.name for row in session.review.rows()}
    assert names == {5**3: "Nodule 1", 7**3: "Nodule 2", 3**3: "Nodule 5"}, "as they were found"
    if touched:
        session.review.accept(next(row.segmentId for row in session.review.rows() if row.volumeMm3 == 7**3))
    bench.settle()
    rows = [(row.name, round(row.volumeMm3)) for row in session.review.rows()]
    large, small, middle = ("Nodule 3", "Nodule 4", "Nodule 2") if touched else ("Nodule 2", "Nodule 3", "Nodule 4")
    assert rows == [("Nodule 1", 5**3), (large, 9**3), (small, 3**3), (middle, 7**3)]
    session.finding.setSensitivity(1.0)
    bench.settle()
    assert session.review.rows()[-1].name == "Nodule 5"
    session.undo()
    if touched:
        session.undo()
    session.redo()
    bench.settle()
    assert (middle, 7**3) in [(row.name, round(row.volumeMm3)) for row in session.review.rows()]


def test_cancel_keeps_what_an_earlier_search_found_and_undo_brings_back_the_list(bench):
    bench.session.options.sensitivity = 1.0
    before = [*cut_short(bench, bench.session.cancel)]
    after = described(bench)
    assert [size for _id, _name, size, _score in after] == [9**3, 3**3, 5**3, 7**3, 5**3]
    assert len({name for _id, name, *_ in after}) == 5, "no name twice"
    assert {before[0][0], before[2][0], before[3][0]} < {one[0] for one in after} and before[1][0] not in {
        one[0] for one in after
    }
    text = bench.heard["message"][-1][0]
    assert "2 nodules found until the search was canceled, 5 shown" in text and "3 of an earlier search" in text
    bench.session.finding.setSensitivity(0.12)
    bench.settle()
    assert sizes(bench) == [9**3], "the slider knows all of them"
    bench.session.finding.setSensitivity(1.0)
    bench.settle()
    assert sorted(sizes(bench)) == sorted(size for _id, _name, size, _score in after)
    bench.session.undo()
    assert described(bench) == before and bench.session.finding.counts == (4, 4)
    bench.session.redo()
    bench.settle()
    assert sorted(sizes(bench)) == sorted(size for _id, _name, size, _score in after)
    bench.assertMeasured()


def test_what_the_slider_hid_and_what_was_rejected_stay_so_after_a_canceled_search(bench):
    large, small, _middle = (row.segmentId for row in run(bench))
    bench.session.review.delete(large)
    bench.session.finding.setSensitivity(0.25)
    bench.settle()
    assert [one[0] for one in described(bench)] == [small]
    cut_short(bench, bench.session.cancel)
    assert sizes(bench) == [3**3]
    bench.session.finding.setSensitivity(1.0)
    bench.settle()
    assert sizes(bench) == [3**3, 5**3, 7**3, 5**3], "hidden ones are there, the deleted one is not"
    assert len({name for _id, name, *_ in described(bench)}) == 4


def test_canceling_before_anything_was_found_leaves_the_list_and_the_history(bench):
    run(bench)
    before = described(bench)
    bench.engine.found = []
    bench.session.segmentAll()
    bench.session.cancel()
    bench.settle()
    assert described(bench) == before and bench.session.finding.counts == (3, 4)
    assert bench.heard["message"][-1] == ("The search was canceled before it found a nodule.", False)
    bench.session.undo()
    assert described(bench) == [] and not bench.session.history.canUndo


def test_an_error_in_a_search_keeps_what_an_earlier_one_found(bench):
    run(bench)
    before = described(bench)
    growing = listed(bench, [[found(PLACES["small"], 0.85, reach=1)]])
    bench.engine.raises = "there is not enough memory"
    assert next(growing) == [3**3]
    bench.settle()
    assert bench.errors == ["there is not enough memory"] and sorted(sizes(bench)) == [3**3, 7**3, 9**3]
    bench.session.undo()
    assert described(bench) == before


def test_leaving_a_volume_during_a_search_keeps_what_an_earlier_one_found(bench):
    run(bench)
    other = bench.addVolume("other")
    growing = listed(bench, [[found(PLACES["small"], 0.85, reach=1)]])
    assert next(growing) == [3**3]
    bench.session.setVolume(other)
    bench.settle()
    bench.session.setVolume(bench.volume)
    assert sorted(sizes(bench)) == [3**3, 7**3, 9**3] and bench.session.finding.counts[1] == 4


def test_what_is_touched_while_the_list_grows_stays(bench):
    large, small, middle, _doubtful = bench.engine.found
    wrong = found((30, 25, 25), 0.7, reach=2)
    grown = listed(bench, [[small, wrong], [small]])
    next(grown)
    touched = bench.session.review.rows()[1].segmentId
    bench.session.review.accept(touched)
    assert next(grown) == [3**3, 5**3]
    bench.settle()
    assert touched in [row.segmentId for row in bench.session.review.rows()]
    assert sorted(sizes(bench)) == [3**3, 5**3, 7**3, 9**3]


def test_undoing_a_search_that_goes_on_ends_it(bench):
    _large, small, middle, _doubtful = bench.engine.found
    grown = listed(bench, [[small], [small, middle]])
    next(grown)
    bench.session.undo()
    assert next(grown) == []
    bench.settle()
    assert sizes(bench) == [] and bench.session.state is State.READY
    assert bench.heard["message"][-1] == ("The search was canceled.", False)


def test_clicks_during_the_search_are_kept(bench):
    bench.session.preload()
    bench.settle()
    bench.session.segmentAll()
    clicked = bench.session.click(bench.ras(*PLACES["large"]))
    bench.settle()
    rows = bench.session.review.rows()
    assert rows[0].segmentId == clicked and [row.volumeMm3 for row in rows] == [125.0, 3**3, 7**3]


def test_errors_and_a_changed_volume_leave_everything_as_it_was(bench):
    segmentId = bench.click(10, 12, 14)
    bench.engine.errors[Generate] = "there is not enough memory"
    assert [row.segmentId for row in run(bench)] == [segmentId]
    assert bench.errors == ["there is not enough memory"] and bench.session.state is State.READY
    bench.engine.errors.clear()
    bench.session.segmentAll()
    while bench.worker.queued:
        bench.worker.runOne()
    bench.volume.GetImageData().Modified()
    bench.settle()
    assert [row.segmentId for row in bench.session.review.rows()] == [segmentId] and "changed" in bench.errors[-1]


def test_a_thorough_search_asks_the_detector_and_is_refused_without_one(bench):
    bench.session.options.thorough = True
    assert run(bench) == [] and not [one for one in bench.engine.asked if isinstance(one, Generate)]
    assert "Model section" in bench.errors[-1], "it is not searched less thoroughly without a word"
    bench.models.detector = Path("/models/model.pt")
    assert len(run(bench)) == 3 and request_of(bench).detector == "/models/model.pt"
    assert any(text.startswith("Thorough search for nodules, about") for *_, text in bench.heard["progressed"])
    bench.session.options.thorough = False
    run(bench)
    assert request_of(bench).detector is None


def test_new_nodules_are_named_by_the_template_and_numbers_go_on(bench):
    bench.click(30, 25, 25)
    bench.session.options.nameTemplate = "{scan} {number:02}"
    run(bench)
    assert sorted(row.name for row in bench.session.review.rows()) == ["CT 02", "CT 03", "CT 04", "Nodule 1"]
    bench.session.select(None)
    bench.click(30, 5, 5)
    assert "CT 05" in [row.name for row in bench.session.review.rows()]


def test_nothing_found(bench):
    bench.engine.found = []
    assert run(bench) == []
    assert bench.heard["message"][-1] == ("No nodules were found.", False)


def test_canceled_before_anything_was_found(bench):
    bench.session.preload()
    bench.settle()
    bench.engine.found = []
    bench.session.segmentAll()
    bench.session.cancel()
    bench.settle()
    assert bench.heard["message"][-1] == ("The search was canceled before it found a nodule.", False)


def test_canceled_while_the_model_is_loading(bench):
    bench.session.segmentAll()
    bench.session.cancel()
    bench.settle()
    assert bench.session.state is State.READY and bench.session.review.rows() == []
    assert bench.heard["message"][-1] == ("The search was canceled.", False)
    assert len(run(bench)) == 3


def test_the_engines_remark_is_told_with_the_result(bench):
    bench.engine.note = "No lungs were found: the whole volume was searched."
    run(bench)
    text, isError = bench.heard["message"][-1]
    assert "4 nodules found" in text and bench.engine.note in text and not isError


def test_a_reopened_run_is_replaced_by_the_next(bench, tmp_path):
    run(bench)
    bench.session.review.accept(bench.session.review.rows()[0].segmentId)
    bench.scene.save(tmp_path / "scene.mrb")
    bench.session.close()
    bench.scene.load(tmp_path / "scene.mrb")
    again = Bench(bench.scene, volume=False)
    again.volume = again.scene.scene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")
    again.session.setVolume(again.volume)
    again.engine.found = [found(PLACES["doubtful"], 0.9)]
    rows = run(again)
    assert [(row.volumeMm3, row.status) for row in rows] == [(9**3, "reviewed"), (5**3, "AI")]
    again.session.select(rows[1].segmentId)
    again.click(25, 8, 23)
    assert isinstance(again.engine.predictions[-1], Predict)
    again.session.close()


def test_found_nodules_do_not_overlap_when_asked_to(bench):
    bench.session.options.doNotOverlap = True
    bench.engine.found.append(found((10, 8, 13), 0.7, reach=2))
    run(bench)
    # the larger one comes first; of the five columns of the other it takes two
    assert sorted(sizes(bench)) == [3**3, 3 * 25, 7**3, 9**3]


def test_all_volumes_are_searched_one_after_the_other(bench):
    bench.addVolume("second")
    broken = bench.scene.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty")
    assert broken.GetImageData() is None
    bench.session.segmentAllVolumes()
    bench.session.segmentAllVolumes()  # once is enough
    bench.settle()
    asked = [one.identity for one in bench.engine.asked if isinstance(one, Generate)]
    assert len(asked) == len(set(asked)) == 2
    assert bench.session.volumeNode is bench.volume and len(bench.session.review.rows()) == 3
    assert bench.heard["message"][-1] == ("6 nodules shown in 2 of 2 volumes.", False)
    assert any("2 of 2, second" in text for _done, _total, text in bench.heard["progressed"])
    assert not bench.session.isBusy and bench.session.queue is None
    other = next(node for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") if node.GetName() == "second")
    bench.session.setVolume(other)
    assert len(bench.session.review.rows()) == 3, "each has its own"


def test_cancel_ends_all_volumes(bench):
    bench.addVolume("second")
    bench.session.segmentAllVolumes()
    bench.session.poll(0.0)
    bench.session.cancel()
    bench.settle()
    assert bench.session.queue is None and bench.session.volumeNode is bench.volume
    assert "Canceled" in bench.heard["message"][-1][0], "what was cut short is not counted as done"
    assert "in 0 of 2 volumes" in bench.heard["message"][-1][0]
    assert len({one.identity for one in bench.engine.asked if isinstance(one, Generate)}) <= 1


def test_a_volume_that_cannot_be_searched_is_named_and_the_next_one_is_searched(bench):
    bench.addVolume("second")
    bench.engine.errors[Generate] = "Something is wrong"
    bench.session.segmentAllVolumes()
    bench.settle()
    assert bench.heard["message"][-1] == ("0 nodules shown in 0 of 2 volumes. Not searched: CT, second.", True)


def test_choosing_another_volume_ends_the_queue(bench):
    second, third = bench.addVolume("second"), bench.addVolume("third")
    bench.session.segmentAllVolumes()
    bench.session.poll(0.0)
    bench.session.setVolume(third)
    bench.settle()
    assert bench.session.queue is None and bench.session.volumeNode is third
    bench.session.setVolume(second)
    assert not bench.session.review.rows()
