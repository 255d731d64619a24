"""What the user can choose about clicks and masks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Options:
    """Choices that hold for all volumes.

    Attributes:
        polarity: the sign of points that come from the Markups toolbar or a script; True = inside.
        everyClickIsNew: each positive point makes a new nodule, even while one is selected.
        doNotOverlap: voxels of other segments are left out of what is written.
    """

    polarity: bool = True
    everyClickIsNew: bool = False
    doNotOverlap: bool = False
