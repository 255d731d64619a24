"""How a download ends early."""

from __future__ import annotations


class DownloadError(RuntimeError):
    """The file could not be fetched; the message names the cure. What has come so far is kept for the next try."""


class DownloadCancelled(RuntimeError):
    """The progress callback asked to stop; what has come so far is kept for the next try."""
