"""The translator ``_`` for files that also run without the application."""

from __future__ import annotations

try:
    from slicer.i18n import tr
except ImportError:  # Slicer's classes without the application: there is nothing to translate with

    def tr(text: str) -> str:
        """The text as it is."""
        return text


__all__ = ["tr"]
