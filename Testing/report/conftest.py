"""A made-up follow-up that many tests look at: a coarse chest, its nodules outlined without error."""

from __future__ import annotations

import pytest

from SAMMed3DLib.finding.lungs import find_lungs
from SAMMed3DLib.synthesis.phantom import chest_phantom

from .made_up_follow_ups import MadeUpFollowUp, made_up_follow_up


@pytest.fixture(scope="session")
def chest():
    """A chest without nodules."""
    return chest_phantom(5, (96, 130, 180), (2.4, 2.0, 2.0), nodules=())


@pytest.fixture(scope="session")
def made_up(chest) -> MadeUpFollowUp:
    return made_up_follow_up(chest.array_kji, chest.ijk_to_ras, 11, count=12, spacing_kji=(2.5, 2.0, 2.0))


@pytest.fixture(scope="session")
def made_lungs(made_up):
    """The lungs of the current and of the prior scan."""
    return tuple(find_lungs(scan.array_kji, scan.ijk_to_ras) for scan in (made_up.current, made_up.prior))
