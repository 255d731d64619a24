"""The self-test that users run inside Slicer, here in the simulation: the real engine, model, session and panel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gui.slicer_user import MODULE

if TYPE_CHECKING:
    from standin.host import Host


def test_the_modules_self_test_passes(host: Host) -> None:
    import slicer

    host.load(MODULE)
    for name in ("Red", "Green", "Yellow"):
        host.app.layoutManager().sliceWidget(name)
    slicer.selfTests["SAMMed3D"](msec=0)
    assert len(host.widget("SAMMed3D").session.review.rows()) >= 6
