from __future__ import annotations

from SAMMed3DLib.signal import Signal


def test_slots_get_the_arguments_in_the_order_of_connection():
    signal, heard = Signal(), []
    signal.connect(lambda *args: heard.append(("first", args)))
    signal.connect(lambda *args: heard.append(("second", args)))
    signal(1, "a")
    signal.emit()
    assert heard == [("first", (1, "a")), ("second", (1, "a")), ("first", ()), ("second", ())]


def test_connecting_twice_calls_once_and_bound_methods_can_be_disconnected():
    class Listener:
        count = 0

        def hear(self):
            self.count += 1

    signal, listener = Signal(), Listener()
    signal.connect(listener.hear)
    signal.connect(listener.hear)
    signal()
    assert listener.count == 1
    signal.disconnect(listener.hear)
    signal.disconnect(listener.hear)
    signal()
    assert listener.count == 1


def test_a_slot_may_disconnect_another_while_being_called():
    signal, heard = Signal(), []

    def first():
        signal.disconnect(second)
        signal.connect(third)

    def second():
        heard.append("second")

    def third():
        heard.append("third")

    signal.connect(first)
    signal.connect(second)
    signal()
    assert heard == []
    signal()
    assert heard == ["third"]
