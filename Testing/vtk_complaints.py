"""What VTK reports as warning or error: in the application it makes the button of the error log red."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

#: Said of this machine, or of parts of Slicer that the wheel leaves out.
_NOT_OURS = ("bad X server", "FileGenericColors")


@contextmanager
def no_vtk_complaints() -> Iterator[None]:
    """Raises AssertionError at the end with what VTK had to complain about."""
    import vtk

    complaints: list[str] = []

    @vtk.calldata_type(vtk.VTK_STRING)
    def hear(_caller: Any, _event: str, text: str) -> None:
        if not any(part in text for part in _NOT_OURS):
            complaints.append(text.strip())

    window = vtk.vtkOutputWindow.GetInstance()
    tags = [window.AddObserver(event, hear) for event in ("ErrorEvent", "WarningEvent")]
    try:
        yield
    finally:
        for tag in tags:
            window.RemoveObserver(tag)
    assert not complaints, "\n".join(complaints)
