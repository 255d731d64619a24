"""Findings made by hand, for tests of rules and documents."""

from __future__ import annotations

import math

from SAMMed3DLib.report.findings import (
    Caveat,
    Diameter,
    Findings,
    Interval,
    Nodule,
    NoduleType,
    Place,
    Scan,
    SolidCore,
    tracking_uid,
)


def nodule(
    mean_mm: float = 7.0,
    kind: NoduleType = "solid",
    solid_mm: float | None = None,
    *,
    label: int = 1,
    volume: float | None = None,
    share: float = 0.2,
    pleura: float | None = 12.0,
    name: str = "",
) -> Nodule:
    """A round nodule of a mean diameter; ``share`` is half the width of its volume's interval."""
    mm3 = math.pi / 6.0 * mean_mm**3 if volume is None else volume
    half = mean_mm / 2.0
    core = None
    if solid_mm is not None:
        core = SolidCore(math.pi / 6.0 * solid_mm**3, solid_mm, solid_mm, solid_mm)
    return Nodule(
        tracking_uid("test", str(label)),
        label,
        name or f"nodule {label}",
        kind,
        "made by hand",
        Diameter(mean_mm, (-half, 0.0, 10.0 * label), (half, 0.0, 10.0 * label)),
        Diameter(mean_mm, (0.0, -half, 10.0 * label), (0.0, half, 10.0 * label)),
        mean_mm,
        mm3,
        Interval(mm3 / (1.0 + share), mm3 * (1.0 + share)),
        -50.0,
        mm3 * 0.95,
        Place((0.0, 0.0, 10.0 * label), 4, "right", None, pleura),
        core,
    )


def findings(*nodules: Nodule, date: str | None = "2024-06-01", **scan: object) -> Findings:
    """The findings of a scan that only these nodules are known of."""
    facts = {
        "series_uid": "1.2.3",
        "patient_id": "P1",
        "patient_name": "Müller Änne",
        "modality": "CT",
        "caveats": (Caveat("slices of 3.0 mm", ("volume",)),),
        **scan,
    }
    return Findings(
        Scan("thorax", (0.7, 0.7, 1.0), (100, 100, 60), date=date, **facts),
        nodules,
        "2024-06-02T10:00:00+00:00",
        "SAMMed3D test",
        "nodule",
    )
