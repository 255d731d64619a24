"""The checkpoints that can be downloaded: where they lie, what they may be used for, how they are verified."""

from __future__ import annotations

from dataclasses import dataclass

APACHE_2 = "Apache-2.0"


@dataclass(frozen=True)
class CatalogModel:
    """A public checkpoint.

    Attributes:
        name: what scripts and ``sammed3d weights`` call it; also the stem of its file.
        title: what people call it.
        url: the file itself.
        source: the page that describes it.
        license: of the weights.
        size_bytes: the exact size where ``sha256`` is None (it is then all that can be checked), else about.
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
