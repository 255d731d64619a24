from __future__ import annotations

import pytest

from SAMMed3DLib.scene.states import SessionFacts, State, stateOf, textOf

ALL = {"hasTorch": True, "hasWeights": True, "hasVolume": True}


@pytest.mark.parametrize(
    ("facts", "state"),
    [
        (SessionFacts(), State.NO_TORCH),
        (SessionFacts(hasTorch=True, error="bad"), State.NO_WEIGHTS),
        (SessionFacts(hasTorch=True, hasWeights=True), State.NO_VOLUME),
        (SessionFacts(hasTorch=True, hasWeights=True, error="bad"), State.ERROR),
        (SessionFacts(**ALL), State.READY),
        (SessionFacts(**ALL, isPredicting=True), State.PREDICTING),
        (SessionFacts(**ALL, isPredicting=True, isLoading=True), State.LOADING),
        (SessionFacts(**ALL, isPredicting=True, isGenerating=True), State.GENERATING),
        (SessionFacts(**ALL, isPredicting=True, error="bad"), State.ERROR),
    ],
)
def test_the_first_thing_that_is_missing_decides(facts, state):
    assert stateOf(facts) is state


def test_every_state_has_words_and_errors_have_their_own():
    texts = {state: textOf(state, SessionFacts(error="the file is damaged")) for state in State}
    assert texts[State.ERROR] == "the file is damaged"
    assert all(texts.values()) and len(set(texts.values())) == len(State)
