"""Encoded pictures, decoded one at a time: what is seen is what is read, or the picture is refused."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from erasediff.data.readers import limits
from erasediff.data.readers.reduction import reduce_images
from erasediff.errors import BadInput
from erasediff.records.config import MAX_SIDE

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

_SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".avif", ".heic", ".heif", ".jxl")
"""What names of pictures end with. Not all are read, but none is passed over."""
_FORMATS = ("PNG", "JPEG", "BMP")
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, KeyError, struct.error, zlib.error)
_GREY_STEPS = {"L;2": 85, "L;4": 17}
"""What one step of a grey PNG of few bits is in 8 bits."""


def is_picture(name: str) -> bool:
    """Whether a file is a picture by its name."""
    return name.lower().endswith(_SUFFIXES)


def decode_picture(data: bytes, what: str, size: int | None) -> NDArray[np.uint8]:
    """Decode one PNG, JPEG or BMP as a viewer shows it, turned by its EXIF orientation.

    Args:
        data: the file's bytes.
        what: the picture's name, for error sentences.
        size: the side to reduce it to, if any.

    Returns:
        uint8 [H, W, 1 or 3].

    Raises:
        BadInput: damaged, too large, with pixels that are not opaque, or neither grey nor RGB of 8 bits.
    """
    from PIL import Image, ImageOps

    with warnings.catch_warnings():
        # PIL's own check of the size only warns up to twice its limit; the sides are checked below before anything is decoded.
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(data), formats=_FORMATS) as picture:
                rawmode = _checked(picture, limits.largest_side(size), what)
                picture.verify()
            # verify() checks the checksums of a PNG, which load() does not, and leaves a picture that cannot be loaded.
            with Image.open(io.BytesIO(data), formats=_FORMATS) as picture:
                ImageOps.exif_transpose(picture, in_place=True)
                pixels = _opaque(np.array(picture, dtype=np.uint8), picture.info.get("transparency"), rawmode, picture.mode, what)
        except Image.DecompressionBombError:
            raise BadInput(f"{what} has far too many pixels: sides go up to {limits.largest_side(size)}, so reduce it.") from None
        except _UNREADABLE as error:
            raise BadInput(_sentence(data, what, error)) from None
    return pixels if size is None else reduce_images(pixels[np.newaxis], size, what)[0]


def _checked(picture: ImageFile, largest: int, what: str) -> str:
    """Check what the header says before anything is decoded; returns how the file holds its pixels, in PIL's word."""
    if max(picture.size) > largest:
        hint = "reduce it" if largest > MAX_SIDE else "reduce it, or set dataset.size (--resize)"
        raise BadInput(f"{what} is {picture.size[0]}x{picture.size[1]} pixels: sides go up to {largest}, so {hint}.")
    rawmode = str(picture.tile[0].args) if picture.format == "PNG" and picture.tile else ""
    if ";16" in rawmode:
        raise BadInput(f"{what} has 16 bits a channel: convert it to 8 bits.")
    if picture.mode not in ("L", "RGB", "LA", "RGBA"):
        raise BadInput(f"{what} has the mode {picture.mode}: convert it to 8-bit grey (L) or RGB.")
    return rawmode


def _opaque(pixels: NDArray[np.uint8], transparent: object, rawmode: str, mode: str, what: str) -> NDArray[np.uint8]:
    """The pixels without their alpha channel, which has to be 255 everywhere; nor may a pixel have the colour that a PNG calls transparent."""
    if mode in ("LA", "RGBA"):
        hidden, pixels = pixels[..., -1] != 255, pixels[..., :-1]
    else:
        pixels = pixels.reshape(*pixels.shape[:2], -1)
        if transparent is None:
            return pixels
        hidden = (pixels == np.array(transparent) * _GREY_STEPS.get(rawmode, 1)).all(axis=-1)
    if hidden.any():
        raise BadInput(f"{what} has {int(hidden.sum())} pixels that are not opaque: put it on a background and save it without transparency.")
    return pixels


def _sentence(data: bytes, what: str, error: Exception) -> str:
    kind = _other_format(data)
    if kind is not None:
        return f"{what} is in the format {kind}, which is not read: convert it to PNG, JPEG or BMP."
    return f"{what} is damaged or is no PNG, JPEG or BMP ({type(error).__name__}): replace it."


def _other_format(data: bytes) -> str | None:
    """The name of a format that people have and that is not read, by its first bytes."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    if data[4:8] == b"ftyp":
        return "AVIF" if b"avi" in data[8:64] else "HEIF"
    starts = {b"GIF8": "GIF", b"II*\0": "TIFF", b"MM\0*": "TIFF", b"\xff\x0a": "JPEG XL", b"\0\0\0\x0cJXL ": "JPEG XL"}
    return next((name for start, name in starts.items() if data.startswith(start)), None)


def describe(shape: tuple[int, ...]) -> str:
    """The size and mode of an image [H, W, C] in words."""
    height, width, channels = shape
    return f"{width}x{height} {'grey' if channels == 1 else 'RGB'}"
