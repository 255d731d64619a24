"""The history, over values that only it knows."""

from __future__ import annotations

from SAMMed3DLib.scene.undo_stack import NoduleChange, UndoStack


class Counter:
    """Something with one state; its history restores it."""

    def __init__(self, **bounds) -> None:
        self.value = 0
        self.stack = UndoStack(self.restore, **bounds)

    def set(self, value: int, nbytes: int = 0) -> NoduleChange:
        change = self.stack.push(NoduleChange(f"set {value}", {"it": self.value}, nbytes=nbytes))
        self.value = value
        return change

    def restore(self, change: NoduleChange) -> NoduleChange:
        reverse = NoduleChange(change.text, {"it": self.value})
        self.value = change.before["it"]
        return reverse


def test_steps_go_back_and_forth_in_order():
    counter = Counter()
    for value in (1, 2, 3):
        counter.set(value)
    assert counter.stack.undo() and counter.stack.undo()
    assert (counter.value, counter.stack.undoText, counter.stack.redoText) == (1, "set 1", "set 2")
    assert counter.stack.redo()
    assert (counter.value, counter.stack.undoText, counter.stack.redoText) == (2, "set 2", "set 3")
    assert counter.stack.undo() and counter.stack.undo() and not counter.stack.undo()
    assert (counter.value, counter.stack.canUndo, counter.stack.canRedo) == (0, False, True)
    assert [counter.stack.redo() for _ in range(4)] == [True, True, True, False]
    assert counter.value == 3


def test_a_new_step_forgets_what_was_taken_back():
    counter = Counter()
    counter.set(1)
    counter.set(2)
    counter.stack.undo()
    counter.set(5)
    assert not counter.stack.canRedo and counter.stack.redoText == ""
    counter.stack.undo()
    assert counter.value == 1


def test_a_state_that_changed_after_the_step_is_what_redo_brings_back():
    counter = Counter()
    counter.set(1)
    counter.value = 10  # an answer that came later
    counter.stack.undo()
    counter.stack.redo()
    assert counter.value == 10


def test_the_oldest_steps_go_first_by_number_and_by_memory():
    counter = Counter(limit=2)
    for value in (1, 2, 3):
        counter.set(value)
    while counter.stack.undo():
        pass
    assert counter.value == 1
    counter = Counter(maxBytes=10)
    counter.set(1, nbytes=6)
    counter.set(2, nbytes=6)
    assert counter.stack.undo() and not counter.stack.undo()
    counter = Counter(maxBytes=10)
    counter.set(1, nbytes=100)
    assert counter.stack.canUndo


def test_steps_can_be_forgotten_and_each_change_is_told():
    counter, told = Counter(), []
    counter.stack.changed.connect(lambda: told.append((counter.stack.undoText, counter.stack.redoText)))
    first = counter.set(1)
    counter.set(2)
    counter.stack.undo()
    counter.stack.discard(first)
    counter.stack.clear()
    assert told == [("set 1", ""), ("set 2", ""), ("set 1", "set 2"), ("", "set 2"), ("", "")]
    assert not counter.stack.undo() and not counter.stack.redo()
