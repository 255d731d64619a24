"""The timer that polls: only while something is under way, as often as it is asked to, and with a wait that adapts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from standin.host import Host


class Session:
    """Something to poll, and a clock; ``elsewhere`` seconds pass before every poll."""

    def __init__(self) -> None:
        from SAMMed3DLib.signal import Signal

        self.paced = Signal()
        self.waits: list[float] = []
        self.elsewhere = 0.0
        self.goesOn: Any = True
        self.during = lambda: None
        self._now = 0.0

    def clock(self) -> float:
        self._now += self.elsewhere
        return self._now

    def poll(self, wait: float) -> Any:
        self.waits.append(wait)
        self.during()
        return self.goesOn


@pytest.fixture
def session() -> Session:
    return Session()


@pytest.fixture
def poll(host: Host, session: Session) -> Any:
    import qt

    from SAMMed3DLib.gui.timers import Poll

    widget = qt.QWidget()
    poll = Poll(session.poll, session.paced, widget, session.clock)
    yield poll
    poll.close()


def test_it_polls_only_while_it_is_told_to(host: Host, session: Session, poll: Any) -> None:
    host.process(0.05)
    assert session.waits == [] and not poll.running
    session.paced.emit(True)
    host.wait(lambda: len(session.waits) >= 3)
    session.paced.emit(False)
    count = len(session.waits)
    host.process(0.05)
    assert len(session.waits) == count and not poll.running
    session.paced.emit(True)
    session.goesOn = 0.0
    host.wait(lambda: not poll.running)
    assert len(session.waits) == count + 1, "it stops by itself when there is no more to do"


def test_the_pace_in_seconds_is_the_timers(session: Session, poll: Any) -> None:
    from SAMMed3DLib.gui.timers import FAST_SECONDS

    for pace, milliseconds in ((True, round(1000 * FAST_SECONDS)), (0.2, 200), (0.005, 5)):
        session.paced.emit(pace)
        assert poll.running and poll._timer.interval == milliseconds


@pytest.mark.parametrize(("elsewhere", "wait"), [(0.0, 0.005), (0.004, 0.005), (0.015, 0.015), (5.0, 0.025)])
def test_the_worker_gets_a_share_of_the_time_that_drawing_takes(
    host: Host, session: Session, poll: Any, elsewhere: float, wait: float
) -> None:
    session.elsewhere = elsewhere
    session.paced.emit(True)
    host.wait(lambda: len(session.waits) >= 2)
    assert session.waits[0] == pytest.approx(wait) and session.waits[1] == pytest.approx(wait)


def test_a_dialog_of_a_results_handler_does_not_poll_again(host: Host, session: Session, poll: Any) -> None:
    depth: list[int] = []

    def dialog() -> None:
        depth.append(len(session.waits))
        host.process(0.05)
        assert len(session.waits) == depth[-1]

    session.during = dialog
    session.paced.emit(True)
    host.wait(lambda: len(depth) >= 2)


def test_after_closing_nothing_starts_it(host: Host, session: Session, poll: Any) -> None:
    session.paced.emit(True)
    poll.close()
    session.paced.emit(True)
    host.process(0.05)
    assert session.waits == [] and not poll.running
    poll.close = lambda: None
