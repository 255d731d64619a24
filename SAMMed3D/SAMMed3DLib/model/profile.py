"""What a checkpoint expects of its input: one frozen value that travels with the weights.

Sources: uni-medical/SAM-Med3D (``utils/infer_utils.py``: 1.5 mm, z-score over voxels > 0, 128^3) and the LIDC fork
utkarsh-qure/sammed3d (window -1024..300 HU to [0, 1]); facts only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

IntensityRule = Literal["zscore_positive", "windows"]
PromptRule = Literal["newest", "all"]
PaddingRule = Literal["constant", "border"]


#: No crop is larger along an axis, no number in mm or HU reaches this, no network has more windows.
_LARGEST_CROP, _LARGEST_NUMBER, _MOST_WINDOWS = 512, 1e6, 16


@dataclass(frozen=True)
class PreprocessingProfile:
    """How a crop is cut from a CT, how it is normalized and how clicks are fed.

    Attributes:
        name: name by which :func:`profile_by_name` and ``--profile`` find it.
        crop_size: voxels of the crop along R, A, S.
        spacing_mm: isotropic spacing of the first crop in mm; None takes the volume's own voxels (no resampling
            but a permutation and flip of the axes to the closest R, A, S), and then there is no zoom.
        spacing_range_mm: smallest and largest spacing that the zoom may choose.
        target_voxels: equivalent diameter, in crop voxels, that the zoom gives an object.
        intensity: "zscore_positive": z-score with the mean and unbiased standard deviation of the voxels > 0 HU in
            the cube of ``statistics_mm`` at the click; "windows": each of ``windows_hu`` clipped and scaled to [0, 1],
            one channel a window.
        windows_hu: (low, high) in HU, one pair per channel, for ``intensity="windows"``.
        statistics_mm: edge of the cube for the z-score, sampled at 1.5 mm whatever the zoom.
        padding: what lies outside the volume: "constant" is ``padding_hu``; "border" goes on with the outermost voxels,
            so that a tightly cropped lung does not end in open air.
        padding_hu: in HU, for ``padding="constant"``.
        spacing_channel: True appends a constant channel log2(spacing / 1 mm), so that the net knows the zoom.
        prompt_rule: "newest": only the newest click and the previous logits; "all": all clicks and those logits.
        boxes, multimask, iou_head: whether the checkpoint was trained for box prompts, for multimask output, and
            to predict the IoU.
    """

    name: str
    crop_size: tuple[int, int, int] = (128, 128, 128)
    spacing_mm: float | None = 1.5
    spacing_range_mm: tuple[float, float] = (0.3, 3.0)
    target_voxels: float = 32.0
    intensity: IntensityRule = "zscore_positive"
    windows_hu: tuple[tuple[float, float], ...] = ()
    statistics_mm: float = 192.0
    padding_hu: float = 0.0
    padding: PaddingRule = "constant"
    spacing_channel: bool = False
    prompt_rule: PromptRule = "newest"
    boxes: bool = False
    multimask: bool = False
    iou_head: bool = False

    def __post_init__(self) -> None:
        sizes = self.crop_size
        if len(sizes) != 3 or any(type(size) is not int or not 1 <= size <= _LARGEST_CROP for size in sizes):
            raise ValueError(f"crop_size must be three positive integers up to {_LARGEST_CROP}, not {sizes}")
        numbers = (
            *self.spacing_range_mm,
            self.target_voxels,
            self.statistics_mm,
            self.padding_hu,
            *(value for window in self.windows_hu for value in window),
            self.spacing_mm or 1.0,
        )
        if not all(isinstance(value, (int, float)) and abs(value) < _LARGEST_NUMBER for value in numbers):
            raise ValueError(f"its numbers must be finite and below {_LARGEST_NUMBER:g}: {numbers}")
        if not isinstance(self.name, str) or not all(
            type(flag) is bool for flag in (self.spacing_channel, self.boxes, self.multimask, self.iou_head)
        ):
            raise ValueError("its name must be a text and its switches true or false")
        if self.statistics_mm <= 0 or len(self.windows_hu) > _MOST_WINDOWS:
            raise ValueError(f"statistics_mm must be positive, and there are at most {_MOST_WINDOWS} windows")
        if self.intensity not in ("zscore_positive", "windows") or self.prompt_rule not in ("newest", "all"):
            raise ValueError(f"unknown intensity or prompt rule: {self.intensity!r}, {self.prompt_rule!r}")
        if self.padding not in get_args(PaddingRule):
            raise ValueError(f"unknown padding rule: {self.padding!r}")
        if (self.intensity == "windows") != bool(self.windows_hu):
            raise ValueError("windows_hu goes with intensity='windows', and only with it")
        if any(not low < high for low, high in self.windows_hu):
            raise ValueError(f"each window needs low < high: {self.windows_hu}")
        low, high = self.spacing_range_mm
        if not 0 < low <= high or (self.spacing_mm is not None and not self.spacing_mm > 0) or self.target_voxels <= 0:
            raise ValueError("spacings and target_voxels must be positive, and spacing_range_mm ordered")

    @property
    def channels(self) -> int:
        """Channels of the prepared crop."""
        return max(1, len(self.windows_hu)) + int(self.spacing_channel)

    @property
    def outside_hu(self) -> float | None:
        """Value outside the volume; None goes on with the volume's border."""
        return None if self.padding == "border" else self.padding_hu

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings, as stored in a checkpoint."""
        return {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PreprocessingProfile:
        """The inverse of :meth:`to_dict`. Raises ValueError for unknown fields or impossible values.

        A field that is younger than the file takes the value of the built-in profile of that name, if there is one.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = set(values) - known
        if unknown or "name" not in values:
            raise ValueError(f"not a preprocessing profile (unknown fields: {sorted(unknown)})")
        if "padding" not in values and values["name"] in PROFILES:
            values = {**values, "padding": PROFILES[values["name"]].padding}
        try:
            return cls(**{key: _frozen(value) for key, value in values.items()})
        except TypeError as error:
            raise ValueError(f"not a preprocessing profile: {error}") from error


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, (list, tuple)) else value


PROFILES: dict[str, PreprocessingProfile] = {
    profile.name: profile
    for profile in (
        PreprocessingProfile("sam_med3d"),
        PreprocessingProfile(
            "lidc_fork", spacing_mm=1.0, intensity="windows", windows_hu=((-1024.0, 300.0),), padding_hu=-1024.0
        ),
        PreprocessingProfile(
            "lidc_fork_native", spacing_mm=None, intensity="windows", windows_hu=((-1024.0, 300.0),), padding_hu=-1024.0
        ),
        PreprocessingProfile(
            "nodule",
            crop_size=(64, 64, 64),
            spacing_mm=1.0,
            spacing_range_mm=(0.3, 1.5),
            target_voxels=20.0,
            intensity="windows",
            windows_hu=((-1000.0, 400.0), (-160.0, 240.0)),
            padding_hu=-1024.0,
            padding="border",
            spacing_channel=True,
            prompt_rule="all",
            boxes=True,
            multimask=True,
            iou_head=True,
        ),
    )
}
# The light network is trained on masses of up to 100 mm as well.
PROFILES["nodule_light"] = dataclasses.replace(PROFILES["nodule"], name="nodule_light", spacing_range_mm=(0.3, 2.4))


def profile_by_name(name: str) -> PreprocessingProfile:
    """A built-in profile. Raises ValueError that lists the names there are."""
    if name not in PROFILES:
        raise ValueError(f"no preprocessing profile named {name!r}; there are: {', '.join(sorted(PROFILES))}")
    return PROFILES[name]
