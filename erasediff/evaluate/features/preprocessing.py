"""How a pretrained model wants its images, as its ``preprocessor_config.json`` says; without the class that the file names.

The processors of transformers resize one PIL image after another. Here a batch is resized at once in Pillow's way: with its kernels
and antialiasing, first along rows and then along columns, and each time back to whole levels of 0 to 255.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, tensor
from torch.nn import functional

from erasediff.errors import BadInput
from erasediff.evaluate.features.extractor import to_colour
from erasediff.models.layout import read_json

SETTINGS = "preprocessor_config.json"
_KERNELS = {2: "bilinear", 3: "bicubic"}
"""Pillow's numbers for them."""
_KNOWN_STEPS = {"do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb"}

Side = Annotated[int, Field(ge=1, le=4096)]
Colour = tuple[float, float, float]


class _Sides(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)
    height: Side | None = None
    width: Side | None = None
    shortest_edge: Side | None = None


class _Settings(BaseModel):
    """What decides pixels. The file is another project's: what decides nothing is passed over."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)
    do_resize: bool = True
    do_center_crop: bool = False
    do_rescale: bool = True
    do_normalize: bool = True
    size: _Sides | Side | None = None
    crop_size: _Sides | Side | None = None
    crop_pct: float | None = None
    resample: int = 2
    rescale_factor: float = Field(default=1 / 255, gt=0)
    image_mean: Colour | None = None
    image_std: Colour | None = None


@dataclass(frozen=True)
class Preprocessing:
    """Bytes to what a model takes: resized, cut to the middle, scaled, and with the mean and the standard deviation taken out.

    Attributes:
        size: ``(H, W)``, or the shorter side alone, or nothing where images are not resized.
        crop: ``(H, W)`` of the middle that is kept, if any.
        kernel: ``bilinear`` or ``bicubic``.
        scale: what bytes are multiplied by.
        mean: of the three channels, after scaling.
        std: of the three channels, after scaling.
    """

    size: tuple[int, int] | int | None
    crop: tuple[int, int] | None
    kernel: str
    scale: float
    mean: Colour
    std: Colour

    def __call__(self, images: Tensor) -> Tensor:
        """``uint8 [N,H,W,C]`` to ``float32 [N,3,h,w]``."""
        pixels = to_colour(images).float()
        if self.size is not None:
            height, width = self._resized(images)
            pixels = self._stretch(self._stretch(pixels, (images.shape[1], width)), (height, width))
        if self.crop is not None:
            top, left = ((have - keep) // 2 for have, keep in zip(pixels.shape[2:], self.crop, strict=True))
            pixels = pixels[:, :, top : top + self.crop[0], left : left + self.crop[1]]
        return (pixels * self.scale - tensor(self.mean).view(3, 1, 1)) / tensor(self.std).view(3, 1, 1)

    def _stretch(self, pixels: Tensor, size: tuple[int, int]) -> Tensor:
        if tuple(pixels.shape[2:]) == size:
            return pixels
        stretched = functional.interpolate(pixels, size, mode=self.kernel, align_corners=False, antialias=True)
        return stretched.clamp(0, 255).round()  # bicubic overshoots

    def _resized(self, images: Tensor) -> tuple[int, int]:
        if isinstance(self.size, tuple):
            return self.size
        assert self.size is not None
        height, width = images.shape[1:3]
        shorter = min(height, width)
        return height * self.size // shorter, width * self.size // shorter


def read_preprocessing(folder: Path) -> Preprocessing:
    """Read a folder's ``preprocessor_config.json``.

    Raises:
        BadInput: it is missing, malformed, or asks for a step that is not known here.
    """
    path = folder / SETTINGS
    document = read_json(path)
    _refuse_unknown_steps(document, path)
    try:
        settings = _Settings.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        raise BadInput(f"{path} is not valid ('{first['loc'][0]}': {first['msg']}): correct it.") from None
    size = _size(settings, path) if settings.do_resize else None
    crop = _crop(settings, path) if settings.do_center_crop else None
    if crop is not None and (size is None or min(size if isinstance(size, tuple) else (size,)) < max(crop)):
        raise BadInput(f"{path} cuts out more than it resizes to: correct 'size' or 'crop_size'.")
    mean, std = _colour(settings, path)
    return Preprocessing(size, crop, _kernel(settings, path), settings.rescale_factor if settings.do_rescale else 1.0, mean, std)


def _refuse_unknown_steps(document: dict[str, Any], path: Path) -> None:
    unknown = sorted(name for name, value in document.items() if name.startswith("do_") and value and name not in _KNOWN_STEPS)
    if unknown:
        raise BadInput(f"{path} asks for '{unknown[0]}', which is not known here: take a model whose images are resized, cut and normalised alone.")
    if document.get("crop_pct") is not None:
        raise BadInput(f"{path} gives 'crop_pct', which is not known here: write what it means as 'size' and 'crop_size'.")


def _size(settings: _Settings, path: Path) -> tuple[int, int] | int:
    """An old file has one number: the shorter side where the middle is cut out, else both."""
    size = settings.size
    if isinstance(size, int):
        return size if settings.do_center_crop else (size, size)
    if size is not None and size.height and size.width:
        return size.height, size.width
    if size is not None and size.shortest_edge:
        return size.shortest_edge
    raise BadInput(f"{path} gives no 'size' of height and width, or of the shortest edge: add it.")


def _crop(settings: _Settings, path: Path) -> tuple[int, int]:
    crop = settings.crop_size
    if isinstance(crop, int):
        return crop, crop
    if crop is None or not crop.height or not crop.width:
        raise BadInput(f"{path} gives no 'crop_size' of height and width: add it, or set 'do_center_crop' to false.")
    return crop.height, crop.width


def _kernel(settings: _Settings, path: Path) -> str:
    if settings.resample not in _KERNELS:
        raise BadInput(f"{path} resizes by resample {settings.resample}: only 2 (bilinear) and 3 (bicubic) are known here.")
    return _KERNELS[settings.resample]


def _colour(settings: _Settings, path: Path) -> tuple[Colour, Colour]:
    if not settings.do_normalize:
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if settings.image_mean is None or settings.image_std is None or min(settings.image_std) <= 0:
        raise BadInput(f"{path} normalises and gives no 'image_mean' and positive 'image_std' of three channels: add them.")
    return settings.image_mean, settings.image_std
