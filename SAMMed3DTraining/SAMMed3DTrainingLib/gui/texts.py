"""Numbers as people read them."""

from __future__ import annotations

import math

from SAMMed3DLib.commandline.terminal import duration as spelled
from SAMMed3DLib.translation import tr as _

DASH = "–"


def duration(seconds: float | None) -> str:
    """ "45 s", "12 min", "3 h 20 min"; a dash where nobody knows."""
    return spelled(seconds, DASH, (_("{n} s"), _("{n} min"), _("{h} h {m} min")))


def size(numberOfBytes: float | None) -> str:
    """ "3.2 MB"."""
    if numberOfBytes is None:
        return DASH
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if numberOfBytes >= factor:
            value = numberOfBytes / factor
            return f"{value:,.{0 if value >= 10 else 1}f} {unit}"
    return _("{n} kB").format(n=f"{max(numberOfBytes, 0) / 1e3:.0f}")


def nodulesOfCases(nodules: int, cases: int) -> str:
    """ "12 nodules of 3 cases"."""
    return _("{nodules} of {cases}").format(
        nodules=_("1 nodule") if nodules == 1 else _("{n} nodules").format(n=nodules),
        cases=_("1 case") if cases == 1 else _("{n} cases").format(n=cases),
    )


def score(value: float | None) -> str:
    """A Dice value."""
    return DASH if value is None or not math.isfinite(value) else f"{value:.3f}"


def difference(value: float | None) -> str:
    """A signed difference of Dice values."""
    return DASH if value is None or not math.isfinite(value) else f"{value:+.3f}"
