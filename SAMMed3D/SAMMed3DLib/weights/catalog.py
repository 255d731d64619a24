"""The models to choose from: what can be downloaded, and one line of the list that panels and scripts show."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path

APACHE_2 = "Apache-2.0"


class WeightsError(ValueError):
    """A checkpoint that is not there or cannot be used or changed; the message names the cure."""


@dataclass(frozen=True)
class CatalogModel:
    """A public checkpoint.

    Attributes:
        name: what scripts and ``sammed3d weights`` call it; also the stem of its file.
        title: what people call it.
        url: the file itself.
        source: the page that describes it.
        license: of the weights.
        size_bytes: the exact size where ``sha256`` is None (it is then all that can be checked), else about; of a
            detector, whose weights are read and compared with its network, always about.
        sha256: of the file, lower-case hexadecimal; None where its authors and its host publish none.
        note: what to know before choosing it.
    """

    name: str
    title: str
    url: str
    source: str
    license: str
    size_bytes: int
    sha256: str | None
    note: str


#: Size, license and SHA-256 as the Hugging Face page of the file states them (revision 07f6f69 of 2024-09-07).
CATALOG = (
    CatalogModel(
        name="sam_med3d_turbo",
        title="SAM-Med3D turbo",
        url="https://huggingface.co/blueyo0/SAM-Med3D/resolve/main/sam_med3d_turbo.pth",
        source="https://huggingface.co/blueyo0/SAM-Med3D",
        license=APACHE_2,
        size_bytes=402_000_000,
        sha256="899a46d04d3b70f723282ceb489149373558bf0aaba389a346f5ab57da5cdd3c",
        note="The general model of the SAM-Med3D authors, for structures of every kind; slower than the nodule model.",
    ),
)

#: Finds nodules and segments none: for the thorough search, not among the models to choose from. Size and license are
#: those of the model zoo; it publishes no SHA-256.
DETECTOR = CatalogModel(
    name="lung_nodule_ct_detection",
    title="MONAI's lung nodule detector",
    url="https://huggingface.co/MONAI/lung_nodule_ct_detection/resolve/main/models/model.pt",
    source="https://huggingface.co/MONAI/lung_nodule_ct_detection",
    license=APACHE_2,
    size_bytes=83_700_000,
    sha256=None,
    note="For the thorough search for all nodules; no model to choose. LIDC scans were in its training.",
)


class ModelKind(enum.Enum):
    """Origins of models, in the order of the list."""

    BUNDLED = "bundled"
    CATALOG = "download"
    FINETUNED = "fine-tuned"
    FILE = "file"


@dataclass(frozen=True)
class ModelEntry:
    """One line of the list of models.

    Attributes:
        name: unique and stable; what scripts, settings and ``sammed3d weights`` call it.
        title: what people call it.
        kind: where it comes from.
        path: the checkpoint, also of a file that is gone; None for a download that is not there.
        size_bytes: on the disk, or of the download to come.
        license: of the weights, or who to ask.
        source: a web page, or the place of the file.
        removable: whether :meth:`WeightsStore.remove` does something.
        installed: whether ``path`` can be loaded.
        sha256: what the file was verified against or is known by; None where none is known.
        note: what else to know, such as how it is verified and what came of an unfinished download.
    """

    name: str
    title: str
    kind: ModelKind
    path: Path | None
    size_bytes: int
    license: str
    source: str
    note: str
    removable: bool = True
    installed: bool = True
    sha256: str | None = None
