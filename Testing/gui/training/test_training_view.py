"""One function from facts to the panel's look: every state has a reason for everything that cannot be used."""

from __future__ import annotations

import itertools

import pytest


def facts(**values):
    from SAMMed3DTrainingLib.gui.state_view import TrainingPanelState
    from SAMMed3DTrainingLib.session.states import TrainingState

    usual = {"state": TrainingState.READY, "folder": "/data", "sets": 1, "toWrite": 1, "volumes": 1}
    return TrainingPanelState(**usual | values)


def test_in_every_state_what_is_disabled_says_why() -> None:
    from SAMMed3DTrainingLib.gui.state_view import panelView
    from SAMMed3DTrainingLib.session.states import JobKind, TrainingState

    switches = ("run", "packagesText", "anyRunActive", "problem", "folderProblem")
    for state, job in itertools.product(TrainingState, (None, *JobKind)):
        for name in (None, *switches):
            view = panelView(facts(state=state, job=job, **({name: "because"} if name else {})))
            for widget, control in view.items():
                assert control.enabled or control.toolTip, (state, job, name, widget)


@pytest.mark.parametrize(
    ("values", "usable"),
    [
        ({}, True),
        ({"job": "EXPORT"}, False),
        ({"state": "TRAINING"}, False),
        ({"state": "NO_DATA"}, False),
        ({"packagesText": "torch is missing", "state": "NO_PACKAGES"}, False),
        ({"anyRunActive": "theirs"}, False),
    ],
)
def test_when_a_run_can_start(values: dict, usable: bool) -> None:
    from SAMMed3DTrainingLib.gui.state_view import panelView
    from SAMMed3DTrainingLib.session.states import JobKind, TrainingState

    kinds = {"job": JobKind, "state": TrainingState}
    made = {key: kinds[key][value] if key in kinds else value for key, value in values.items()}
    assert panelView(facts(**made))["startButton"].enabled is usable


def test_the_steps_are_ticked_one_by_one() -> None:
    from SAMMed3DTrainingLib.gui.state_view import panelView

    ticks = []
    for values in (
        {"sets": 0},
        {},
        {"run": "a", "runHasWeights": True, "runActive": True},  # the start weights of a run that has just begun
        {"run": "a", "runHasWeights": True},
        {"run": "a", "runHasWeights": True, "adopted": "a"},
    ):
        text = panelView(facts(**values))["stepsLabel"].text
        ticks.append(text.count("✓"))
        assert text.count("<b>") == 1
    assert ticks == [0, 1, 1, 2, 3]


def test_states_of_a_run_come_before_what_is_missing() -> None:
    from SAMMed3DTrainingLib.session.states import TrainingState, stateOf

    assert stateOf(packagesMissing=True, runState="running") is TrainingState.TRAINING
    assert stateOf(packagesMissing=True, runState="finished") is TrainingState.NO_PACKAGES
    assert stateOf(runState="killed") is TrainingState.NO_DATA
    assert stateOf(hasData=True) is TrainingState.READY


def test_an_offer_of_a_smaller_batch_belongs_to_its_message() -> None:
    from SAMMed3DTrainingLib.gui.state_view import panelView

    view = panelView(facts(problem="The GPU's memory is exhausted.", offersSmaller=(2, 4)))
    assert view["messageButton"].visible and "2" in view["messageButton"].text
    assert not panelView(facts(problem="The disk is full."))["messageButton"].visible


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "–"), (float("inf"), "–"), (45, "45 s"), (600, "10 min"), (12000, "3 h 20 min")]
)
def test_durations(seconds: float | None, text: str) -> None:
    from SAMMed3DTrainingLib.gui.texts import duration

    assert duration(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(None, "–"), (500, "0 kB"), (3_200_000, "3.2 MB"), (2.5e10, "25 GB")])
def test_sizes(count: float | None, text: str) -> None:
    from SAMMed3DTrainingLib.gui.texts import size

    assert size(count) == text


def test_one_case_is_no_cases() -> None:
    from SAMMed3DTrainingLib.gui.texts import nodulesOfCases

    assert nodulesOfCases(1, 1) == "1 nodule of 1 case" and nodulesOfCases(12, 3) == "12 nodules of 3 cases"


@pytest.mark.parametrize(("text", "gpus"), [("", ()), ("0", ()), ("0, 1", (0, 1)), ("2 0;2", (2, 0)), ("all", ())])
def test_numbers_of_gpus(text: str, gpus: tuple[int, ...]) -> None:
    from SAMMed3DTrainingLib.session.train_part import gpuNumbers

    assert gpuNumbers(text) == gpus


def test_long_runs_are_drawn_as_averages() -> None:
    import numpy as np

    from SAMMed3DTrainingLib.scene.run_plots import MOST_POINTS, _thinned, _withoutGaps

    count = 3 * MOST_POINTS
    steps, (values,) = _thinned(list(range(count)), [1.0, None, 4.0] * MOST_POINTS)
    assert len(steps) == len(values) == MOST_POINTS
    np.testing.assert_allclose(values, 2.5)
    np.testing.assert_allclose(steps[:2], [1.0, 4.0])
    filled = _withoutGaps(np.arange(4.0), np.array([1.0, np.nan, 3.0, np.nan]))
    np.testing.assert_allclose(filled, [1.0, 2.0, 3.0, 3.0])


class Steps:
    """Work in three parts on the thread; remembers what ran."""

    def __init__(self) -> None:
        self.ran: list[int] = []

    def parts(self):
        for number in range(3):
            yield lambda report, number=number: self.ran.append(number)
        return "done"


def test_a_job_goes_through_its_steps_and_ends_once() -> None:
    from SAMMed3DTrainingLib.session.job_slot import JobSlot
    from SAMMed3DTrainingLib.session.states import JobKind

    slot, work, outcomes = JobSlot(), Steps(), []
    slot.runSteps(JobKind.RANK, work.parts(), outcomes.append, parts=3)
    with pytest.raises(RuntimeError, match="under way"):
        slot.runSteps(JobKind.ADOPT, work.parts(), outcomes.append)
    for _ in range(500):
        if not slot.poll(0.01):
            break
    assert work.ran == [0, 1, 2] and [o.value for o in outcomes] == ["done"] and not slot.isBusy
    slot.close(1.0)


def test_a_job_tells_the_time_left() -> None:
    from SAMMed3DTrainingLib.session.job_slot import JobSlot
    from SAMMed3DTrainingLib.session.states import JobKind

    times, seen = iter(range(0, 10_000, 10)), []
    slot = JobSlot(clock=lambda: next(times))
    slot.changed.connect(lambda: seen.append(slot.progress.leftSeconds))
    slot.runSteps(JobKind.RANK, Steps().parts(), lambda outcome: None, parts=3)
    for _ in range(500):
        if not slot.poll(0.01):
            break
    assert seen[1:3] == [pytest.approx(20.0), pytest.approx(10.0)]
    slot.close(1.0)


def test_a_job_that_is_canceled_ends_without_a_result() -> None:
    from SAMMed3DTrainingLib.session.job_slot import JobSlot
    from SAMMed3DTrainingLib.session.states import JobKind

    slot, work, outcomes = JobSlot(), Steps(), []
    slot.runSteps(JobKind.RANK, work.parts(), outcomes.append, parts=3)
    slot.cancel()
    for _ in range(500):
        if not slot.poll(0.01):
            break
    assert len(work.ran) < 3 and outcomes[0].cancelled and outcomes[0].error == ""
    slot.close(1.0)


def test_an_error_on_the_thread_is_told_in_words() -> None:
    from SAMMed3DTrainingLib.session.job_slot import JobSlot
    from SAMMed3DTrainingLib.session.states import JobKind

    def steps():
        yield lambda report: (_ for _ in ()).throw(OSError(28, "No space left on device"))

    slot, outcomes = JobSlot(), []
    slot.runSteps(JobKind.LOAD, steps(), outcomes.append)
    for _ in range(500):
        if not slot.poll(0.01):
            break
    assert "No space left" in outcomes[0].error

    slot.close(1.0)
