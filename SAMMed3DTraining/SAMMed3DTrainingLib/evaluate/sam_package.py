"""The networks of PyPI's ``segment-anything``, without torchvision.

``import segment_anything`` also imports its mask generator and its image transforms, and these need torchvision, which
is not among its requirements. The networks themselves (its subpackage ``modeling``) need torch and numpy only and
import nothing from their parent. So the subpackage is imported from the installed files under a name of its own, and
the parent's ``__init__`` never runs.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

_NAME = "_segment_anything_modeling"


class PeerError(ValueError):
    """A 2D model that cannot be used; the message says what to do."""


def sam_modeling() -> ModuleType:
    """``segment_anything.modeling``: ImageEncoderViT, PromptEncoder, MaskDecoder, TwoWayTransformer.

    Raises:
        PeerError: the package is not installed.
    """
    if _NAME in sys.modules:
        return sys.modules[_NAME]
    package = importlib.util.find_spec("segment_anything")
    folders = [Path(folder) / "modeling" for folder in (package and package.submodule_search_locations) or ()]
    start = next((folder / "__init__.py" for folder in folders if (folder / "__init__.py").is_file()), None)
    if start is None:
        raise PeerError("the 2D models need the package segment-anything: pip install segment-anything")
    spec = importlib.util.spec_from_file_location(_NAME, start, submodule_search_locations=[str(start.parent)])
    module = importlib.util.module_from_spec(spec)
    sys.modules[_NAME] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[_NAME]
        raise
    return module
