"""Undo and Redo cover prompts and masks exactly, also in the middle of work and across edits by hand."""

from __future__ import annotations

import numpy as np
import pytest

from SAMMed3DLib.worker.requests import Segmented


def world(bench):
    """All that undo must bring back: segments with their names, states and voxels, points with their sides."""
    session = bench.session
    node = session.promptsNode
    points = (
        []
        if node is None
        else sorted(
            (tuple(np.round(node.GetNthControlPointPositionWorld(n), 6)), bool(node.GetNthControlPointSelected(n)))
            for n in range(node.GetNumberOfControlPoints())
        )
    )
    rows = [
        (row.segmentId, row.name, row.color, row.status, row.volumeMm3, row.predictedIou)
        for row in session.review.rows()
    ]
    return rows, [bench.full(row[0]).tobytes() for row in rows], points


def test_every_kind_of_step_goes_back_and_forth_exactly(bench):
    session = bench.session
    worlds = [world(bench)]

    def did():
        bench.settle()
        worlds.append(world(bench))

    first = bench.click(10, 12, 14)
    did()
    bench.click(10, 12, 18)
    did()
    bench.click(10, 12, 21, positive=False)
    did()
    session.select(None)
    second = bench.click(25, 12, 14)
    did()
    session.review.rename(second, "Suspicious")
    did()
    session.review.accept(first)
    did()
    session.review.flag(second)
    did()
    session.review.unreview(first)
    did()
    session.promptsNode.SetNthControlPointPositionWorld(1, *bench.ras(10, 12, 19))
    did()
    session.promptsNode.RemoveNthControlPoint(1)
    did()
    session.review.delete(first)
    did()
    session.segmentationNode.GetSegmentation().RemoveSegment(second)
    did()
    assert worlds[-1][0] == [] and worlds[-1][2] == []
    for expected in worlds[-2::-1]:
        session.undo()
        assert world(bench) == expected
    assert not session.history.canUndo and not session.isBusy
    for expected in worlds[1:]:
        session.redo()
        assert world(bench) == expected
    assert not session.history.canRedo and not session.isBusy


def test_the_words_and_the_signal_of_the_history(bench):
    session = bench.session
    bench.click(10, 12, 14)
    assert (session.history.undoText, session.history.redoText) == ("New nodule", "")
    bench.click(10, 12, 18)
    assert session.history.undoText == "Add point"
    bench.heard["historyChanged"].clear()
    session.undo()
    assert (session.history.undoText, session.history.redoText) == ("New nodule", "Add point")
    assert len(bench.heard["historyChanged"]) == 1


def test_the_selection_follows_the_history(bench):
    session = bench.session
    first = bench.click(10, 12, 14)
    session.select(None)
    second = bench.click(25, 12, 14)
    session.undo()
    assert session.selectedId is None
    session.undo()
    assert session.selectedId is None and session.review.rows() == []
    session.redo()
    assert session.selectedId is None and [row.segmentId for row in session.review.rows()] == [first]
    session.redo()
    assert [row.segmentId for row in session.review.rows()] == [first, second]


def test_undo_while_an_answer_is_on_its_way(bench):
    session = bench.session
    segmentId = bench.click(10, 12, 14)
    session.click(bench.ras(10, 12, 18))
    session.undo()
    bench.settle()
    np.testing.assert_array_equal(bench.full(segmentId), bench.cubes([(10, 12, 14)]))
    assert len(bench.engine.predictions) == 1
    session.redo()
    bench.settle()
    np.testing.assert_array_equal(bench.full(segmentId), bench.cubes([(10, 12, 14), (10, 12, 18)]))


def test_undo_of_the_first_click_while_it_runs(bench):
    session = bench.session
    session.click(bench.ras(10, 12, 14))
    while bench.worker.queued:
        bench.worker.runOne()
    session.undo()
    bench.settle()
    assert session.review.rows() == [] and bench.points() == []
    session.redo()
    bench.settle()
    np.testing.assert_array_equal(bench.full(session.review.rows()[0].segmentId), bench.cubes([(10, 12, 14)]))


def test_undo_to_a_click_that_was_never_answered_alone_asks_for_it(bench):
    session = bench.session
    segmentId = session.click(bench.ras(10, 12, 14))
    session.click(bench.ras(10, 12, 18))
    bench.settle()
    assert [len(one.labels) for one in bench.engine.predictions] == [2]
    session.undo()
    assert session.review.rows()[0].isPending
    bench.settle()
    np.testing.assert_array_equal(bench.full(segmentId), bench.cubes([(10, 12, 14)]))


def test_an_edit_by_hand_is_the_start_of_the_next_click_and_a_step(bench):
    session = bench.session
    segmentId = bench.click(10, 12, 14)
    drawn = bench.full(segmentId)
    drawn[20:24, 12:15, 14:16] = 1
    drawn[9, :, :] = 0
    bench.edit(segmentId, drawn)
    bench.settle()
    assert bench.row(segmentId).volumeMm3 == drawn.sum()
    bench.click(10, 12, 24)
    expected = drawn | bench.cubes([(10, 12, 24)])
    np.testing.assert_array_equal(bench.full(segmentId), expected)
    assert len(bench.engine.predictions[-1].labels) == 1
    # moving the newest point works on the same edit; the older one is part of it
    session.promptsNode.SetNthControlPointPositionWorld(1, *bench.ras(10, 12, 26))
    bench.settle()
    np.testing.assert_array_equal(bench.full(segmentId), drawn | bench.cubes([(10, 12, 26)]))
    for expected, text in (
        (drawn | bench.cubes([(10, 12, 24)]), "Add point"),
        (drawn, "Edit by hand"),
        (bench.cubes([(10, 12, 14)]), "New nodule"),
    ):
        session.undo()
        np.testing.assert_array_equal(bench.full(segmentId), expected)
        assert session.history.undoText == text
    for expected in (drawn, drawn | bench.cubes([(10, 12, 24)]), drawn | bench.cubes([(10, 12, 26)])):
        session.redo()
        np.testing.assert_array_equal(bench.full(segmentId), expected)
    # and after all that the next click still goes on from the drawing
    bench.click(30, 12, 26)
    np.testing.assert_array_equal(bench.full(segmentId), drawn | bench.cubes([(10, 12, 26), (30, 12, 26)]))


def test_undo_takes_back_an_edit_by_hand_before_the_click_it_was_made_on(bench):
    session = bench.session
    segmentId = bench.click(10, 12, 14)
    bench.click(10, 12, 18)
    drawn = bench.full(segmentId) * 0
    drawn[5, 5, 5] = 1
    bench.edit(segmentId, drawn)
    bench.settle()
    session.undo()
    np.testing.assert_array_equal(bench.full(segmentId), bench.cubes([(10, 12, 14), (10, 12, 18)]))
    session.undo()
    np.testing.assert_array_equal(bench.full(segmentId), bench.cubes([(10, 12, 14)]))
    session.redo()
    session.redo()
    np.testing.assert_array_equal(bench.full(segmentId), drawn)


def test_an_edit_by_hand_after_undo_cannot_be_lost_by_redo(bench):
    session = bench.session
    segmentId = bench.click(10, 12, 14)
    bench.click(10, 12, 18)
    session.undo()
    drawn = bench.cubes([(20, 20, 20)])
    bench.edit(segmentId, drawn)
    bench.settle()
    session.redo()
    np.testing.assert_array_equal(bench.full(segmentId), drawn)
    assert not session.history.canRedo and "edited by hand" in bench.heard["message"][-1][0]
    session.undo()
    np.testing.assert_array_equal(bench.full(segmentId), bench.cubes([(10, 12, 14)]))


def test_an_edit_while_an_answer_is_on_its_way_is_kept(bench):
    session = bench.session
    segmentId = bench.click(10, 12, 14)
    session.click(bench.ras(10, 12, 24))
    drawn = bench.cubes([(10, 12, 14), (30, 20, 20)])
    bench.edit(segmentId, drawn)
    bench.settle()
    np.testing.assert_array_equal(bench.full(segmentId), drawn | bench.cubes([(10, 12, 24)]))


def test_deleting_a_point_that_an_edit_covers_leaves_the_edit(bench):
    session = bench.session
    segmentId = bench.click(10, 12, 14)
    drawn = bench.cubes([(10, 12, 14), (30, 20, 20)])
    bench.edit(segmentId, drawn)
    bench.settle()
    session.promptsNode.RemoveNthControlPoint(0)
    bench.settle()
    np.testing.assert_array_equal(bench.full(segmentId), drawn)
    assert "edited by hand" in bench.heard["message"][-1][0]
    session.undo()
    assert len(bench.points()) == 1
    np.testing.assert_array_equal(bench.full(segmentId), drawn)


def test_a_segment_emptied_by_hand_starts_anew(bench):
    segmentId = bench.click(10, 12, 14)
    bench.edit(segmentId, bench.full(segmentId) * 0)
    bench.settle()
    assert bench.row(segmentId).volumeMm3 is None
    bench.click(20, 12, 14)
    np.testing.assert_array_equal(bench.full(segmentId), bench.cubes([(20, 12, 14)]))


def test_a_segment_of_somebody_else_can_be_refined(bench):
    bench.click(10, 12, 14)
    segmentation = bench.session.segmentationNode.GetSegmentation()
    other = segmentation.AddEmptySegment("", "Painted")
    bench.edit(other, bench.cubes([(25, 12, 14)]))
    assert [row.name for row in bench.session.review.rows()] == ["Nodule 1", "Painted"]
    bench.session.select(other)
    bench.click(25, 12, 17)
    np.testing.assert_array_equal(bench.full(other), bench.cubes([(25, 12, 14), (25, 12, 17)]))
    bench.session.undo()
    np.testing.assert_array_equal(bench.full(other), bench.cubes([(25, 12, 14)]))


# -- measurements belong to what is drawn -----------------------------------------------------------------------------


def drawing(bench, segmentId):
    drawn = bench.full(segmentId)
    drawn[20:24, 12:15, 14:16] = 1
    return drawn


@pytest.mark.parametrize("isMeasuredBefore", [True, False])
def test_undoing_an_edit_by_hand_brings_back_voxels_and_measurements(bench, isMeasuredBefore):
    session = bench.session
    segmentId = bench.click(10, 12, 14)
    drawn = drawing(bench, segmentId)
    bench.edit(segmentId, drawn)
    if isMeasuredBefore:
        bench.settle()
        assert bench.row(segmentId).volumeMm3 == drawn.sum()
    else:
        session.poll()  # asked for, and not answered yet
    session.undo()
    bench.assertMeasured()
    assert bench.row(segmentId).volumeMm3 == 125 and bench.row(segmentId).measurements["mean_hu"] == -20.0
    session.redo()
    bench.assertMeasured()
    assert bench.row(segmentId).volumeMm3 == drawn.sum()
    session.undo()
    session.undo()
    session.redo()
    bench.assertMeasured()


def test_accepting_right_after_an_edit_measures_it(bench):
    segmentId = bench.click(10, 12, 14)
    bench.edit(segmentId, drawing(bench, segmentId))
    bench.session.review.accept(segmentId)
    bench.assertMeasured()
    bench.session.undo()
    bench.session.undo()
    bench.assertMeasured()


def test_what_was_cut_is_not_shown_with_the_measurements_of_the_whole(bench):
    bench.session.options.doNotOverlap = True
    bench.click(10, 12, 14)
    bench.session.select(None)
    segmentId = bench.session.click(bench.ras(10, 12, 17))
    while not bench.session.volume.nodules[segmentId].block.mask.any():
        bench.session.poll()
    assert bench.row(segmentId).volumeMm3 is None
    bench.assertMeasured()
    assert 0 < bench.row(segmentId).volumeMm3 < 125


# -- a click that finds nothing ---------------------------------------------------------------------------------------


def answering(bench, monkeypatch, voxels):
    """The engine finds so many voxels from now on."""
    mask = np.zeros((1, 1, 3), np.uint8)
    mask[0, 0, :voxels] = 1
    answer = Segmented(mask, (10, 12, 14), 0.2, {"volume_mm3": float(voxels)} if voxels else {}, 1)
    monkeypatch.setattr(bench.engine, "_predict", lambda request: answer)


@pytest.mark.parametrize("voxels", [0, 1, 2])
def test_a_click_that_finds_nothing_says_so_and_leaves_nothing(bench, monkeypatch, voxels):
    answering(bench, monkeypatch, voxels)
    bench.click(10, 12, 14)
    assert bench.session.review.rows() == [] and bench.points() == [] and not bench.session.history.canUndo
    assert "no nodule here" in bench.errors[-1] and bench.session.selectedId is None


def test_three_voxels_are_kept(bench, monkeypatch):
    answering(bench, monkeypatch, 3)
    segmentId = bench.click(10, 12, 14)
    assert bench.full(segmentId).sum() == 3 and bench.errors == []


def test_a_click_that_leaves_nothing_of_a_nodule_is_taken_back(bench, monkeypatch):
    segmentId = bench.click(10, 12, 14)
    answering(bench, monkeypatch, 1)
    bench.click(10, 12, 14, positive=False)
    np.testing.assert_array_equal(bench.full(segmentId), bench.cubes([(10, 12, 14)]))
    assert len(bench.points()) == 1 and "Nothing would be left" in bench.errors[-1]
    bench.assertMeasured()
    assert bench.session.history.undoText == "New nodule"
