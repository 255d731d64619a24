"""Names of cases: what every file system takes and nnU-Net's layout does not take for something else.

Windows' rules: https://learn.microsoft.com/windows/win32/fileio/naming-a-file (reserved characters and device names, no
dot or space at the end, upper and lower case are the same).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection

_RESERVED = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]|\s')
_DEVICES = re.compile(r"(?i)^(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9\u00b9\u00b2\u00b3])(?=\.|$)")
_ENDING = re.compile(r"(?i)(\.nii\.gz|\.nii|\.seg\.nrrd|\.nrrd|\.nhdr|\.mha|\.mhd)$")
#: Bytes: file systems take 255, and a path's other parts want room below Windows' 260.
_LONGEST = 100
_FALLBACK = "case"


def safe_case_name(text: str) -> str:
    """``text`` as name of a case: letters of all languages stay, blanks and reserved characters become ``_``.

    The same text gives the same name; never empty; a safe name is returned as it is.
    """
    name = _ENDING.sub("", unicodedata.normalize("NFC", str(text)).strip())
    name = "".join("_" if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Cn") else c for c in name)
    name = re.sub(r"_{2,}", "_", _RESERVED.sub("_", name))
    # Hidden files are not read; an option may not be taken for a name.
    name = name.strip(" ._").lstrip("-~")
    if len(name.encode()) > _LONGEST:
        name = name.encode()[:_LONGEST].decode(errors="ignore").rstrip(" ._")
    if _DEVICES.match(name):
        name = f"{_FALLBACK}_{name}"
    # "x_0000" is channel 0 of "x" to nnU-Net.
    return re.sub(r"_0000$", "-0000", name) or _FALLBACK


def same_name(first: str, second: str) -> bool:
    """Whether two names are one file on some system."""
    return _folded(first) == _folded(second)


def unique_case_name(wanted: str, taken: Collection[str]) -> str:
    """``wanted`` made safe, with ``-2``, ``-3`` ... where the name is taken."""
    used = {_folded(name) for name in taken}
    base = safe_case_name(wanted)
    name, number = base, 2
    while _folded(name) in used:
        name, number = f"{base}-{number}", number + 1
    return name


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
