"""Names of cases that every file system takes and that nnU-Net's layout does not misread.

Upper and lower case are the same to Windows.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection

from SAMMed3DLib.files.output_files import safe_name


class StoreError(ValueError):
    """A case or a folder cannot be used; the message names the cure. The data set is as it was before."""


class ExportCancelled(Exception):  # noqa: N818 - an answer to the user, not an error
    """The user asked to stop; the data set is as it was before."""


_ENDING = re.compile(r"(?i)(\.nii\.gz|\.nii|\.seg\.nrrd|\.nrrd|\.nhdr|\.mha|\.mhd)$")
_FALLBACK = "case"
_CHANNEL = re.compile(r"_(\d{4})$")
#: The channel that is the CT.
CT_CHANNEL = "0000"


def safe_case_name(text: str) -> str:
    """Turns a text, without an image's ending, into the name of a case, by :func:`safe_name`."""
    name = safe_name(_ENDING.sub("", unicodedata.normalize("NFC", str(text)).strip()), _FALLBACK)
    # "x_0000" is channel 0 of "x" to nnU-Net.
    return re.sub(r"_0000$", "-0000", name)


def numbered_names(images: Collection[str], labels: Collection[str]) -> frozenset[str]:
    """Finds names whose last four digits number cases (``lung_0001``, ``lung_0002``) rather than nnU-Net's channels.

    They do where a label map has the very name of such an image, or where nothing says that there is a case without
    the digits: no label map and no channel 0000.

    Args:
        images, labels: names of all files of a data set without their endings.
    """
    numbers: dict[str, set[str]] = {}
    for stem in images:
        channel = _CHANNEL.search(stem)
        if channel:
            numbers.setdefault(stem[: channel.start()], set()).add(channel.group(1))

    def counts_cases(name: str, found: set[str]) -> bool:
        if any(f"{name}_{n}" in labels and f"{name}_{n}_{CT_CHANNEL}" not in images for n in found if n != CT_CHANNEL):
            return True
        return CT_CHANNEL not in found and name not in labels and f"{name}_{CT_CHANNEL}" not in labels

    return frozenset(name for name, found in numbers.items() if counts_cases(name, found))


def case_and_channel(stem: str, numbered: Collection[str]) -> tuple[str, str]:
    """Returns the case and the channel ("0000" where it names none) of a file, by its name without the ending.

    Args:
        stem: of an image.
        numbered: from :func:`numbered_names`.
    """
    channel = _CHANNEL.search(stem)
    if channel is None or stem[: channel.start()] in numbered:
        return stem, CT_CHANNEL
    return stem[: channel.start()], channel.group(1)


def case_of_label(stem: str, numbered: Collection[str]) -> str:
    """Returns the case of a label map, by its name without the ending; it may be named like its image, with 0000."""
    name, channel = case_and_channel(stem, numbered)
    return name if channel == CT_CHANNEL else stem


def same_name(first: str, second: str) -> bool:
    """Whether two names are one file on some system."""
    return _folded(first) == _folded(second)


def unique_case_name(wanted: str, taken: Collection[str]) -> str:
    """Makes ``wanted`` safe, with ``-2``, ``-3`` ... where the name is taken."""
    used = {_folded(name) for name in taken}
    base = safe_case_name(wanted)
    name, number = base, 2
    while _folded(name) in used:
        name, number = f"{base}-{number}", number + 1
    return name


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
