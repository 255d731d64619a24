from __future__ import annotations

import os

import pytest

from SAMMed3DLib.torch_setup.loading import wait_shortly, waiting_shortly

NAMES = ("GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_WAIT_POLICY")


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment without any decision, put back afterwards."""
    kept = {name: value for name, value in os.environ.items() if name not in NAMES}
    monkeypatch.setattr(os, "environ", kept)
    return kept


def test_a_program_and_its_children_wait_shortly(environment):
    wait_shortly()
    assert environment["GOMP_SPINCOUNT"] == "1000"
    assert environment["KMP_BLOCKTIME"] == "1"


def test_an_application_does_so_for_the_import_only(environment):
    with pytest.raises(ImportError), waiting_shortly():
        assert "GOMP_SPINCOUNT" in environment
        raise ImportError
    assert not set(NAMES) & set(environment)


@pytest.mark.parametrize("name", NAMES)
def test_a_decision_that_is_there_stays(environment, name):
    environment[name] = "its own"
    wait_shortly()
    with waiting_shortly():
        assert {each: environment[each] for each in NAMES if each in environment} == {name: "its own"}
    assert environment[name] == "its own"
