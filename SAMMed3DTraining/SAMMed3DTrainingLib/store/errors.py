"""What can go wrong while a data set is written, in words that a user can act on."""

from __future__ import annotations


class StoreError(ValueError):
    """A case or a folder cannot be used; the message names the cure. The data set is as it was before."""


class ExportCancelled(Exception):  # noqa: N818 - an answer to the user, not an error
    """The user asked to stop; the data set is as it was before."""
