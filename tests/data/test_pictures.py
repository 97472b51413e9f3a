"""The lie: 'this is the picture', said of one that everybody else sees turned, on another background, or in other shades."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, features

from erasediff.data.readers import limits
from erasediff.data.readers.kinds import read
from erasediff.data.readers.pictures import decode_picture
from erasediff.errors import BadInput
from erasediff.records.config import MAX_SIDE
from tests.data.written import chunk, png, raw_png, tar

PIXELS = np.random.default_rng(3).integers(0, 256, (8, 12, 3), dtype=np.uint8)
GREY = PIXELS[..., 0]
SEEN: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: np.swapaxes(a, 0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(np.swapaxes(a, 0, 1), 2),
    8: np.rot90,
}
"""What an EXIF orientation does to an image, by the standard's own words."""


def _encoded(array: np.ndarray, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, form, **options)
    return buffer.getvalue()


def _turned(form: str, orientation: int, array: np.ndarray = PIXELS) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return _encoded(array, form, exif=exif)


def _decoded(data: bytes, size: int | None = None) -> np.ndarray:
    return decode_picture(data, "image x", size)


@pytest.mark.parametrize("orientation", SEEN)
def test_a_picture_is_read_as_it_is_seen(orientation: int) -> None:
    """A photograph that was taken upright is not trained on lying down; PNG and JPEG alike, grey and coloured."""
    assert np.array_equal(_decoded(_turned("PNG", orientation)), SEEN[orientation](PIXELS))
    assert np.array_equal(_decoded(_turned("PNG", orientation, GREY))[..., 0], SEEN[orientation](GREY))
    stored = np.array(Image.open(io.BytesIO(_turned("JPEG", orientation))))
    assert np.array_equal(_decoded(_turned("JPEG", orientation)), SEEN[orientation](stored))
    assert (orientation == 1) == np.array_equal(SEEN[orientation](PIXELS), PIXELS), "control: the others are another image"


def test_every_reader_of_pictures_turns_them(tmp_path: Path) -> None:
    """A format in which the orientation is forgotten would be another dataset."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    data, other = _turned("JPEG", 6), png(np.rot90(PIXELS, -1))
    for name in ("folder", "imagefolder/a", "imagefolder/b", "parquet", "tar"):
        (tmp_path / name).mkdir(parents=True)
    for folder, names in (("folder", ("0.jpg", "1.png")), ("imagefolder", ("a/0.jpg", "b/1.png"))):
        for name, content in zip(names, (data, other), strict=True):
            (tmp_path / folder / name).write_bytes(content)
    (tmp_path / "folder/labels.csv").write_text("file,label\n0.jpg,a\n1.png,b\n")
    pq.write_table(pa.table({"image": [data, other], "label": ["a", "b"]}), tmp_path / "parquet/a.parquet")
    tar(tmp_path / "tar/a.tar", {"0.jpg": data, "0.cls": b"a", "1.png": other, "1.cls": b"b"})
    found = [read(kind, tmp_path / name) for kind, name in [("folder",) * 2, ("imagefolder",) * 2, ("shards", "parquet"), ("shards", "tar")]]
    assert all(raw.labels == ["a", "b"] and np.array_equal(raw.images[:], found[0].images[:]) for raw in found)
    assert np.array_equal(found[0].images[:][0], np.rot90(np.array(Image.open(io.BytesIO(data))), -1))


def _rows(depth: int, channels: int) -> bytes:
    """Two rows of two pixels: every channel is at its largest value, all bits set."""
    row = b"\0" + b"\xff" * max(1, 2 * channels * depth // 8)
    return row * 2


SIXTEEN = {"grey": (0, 1), "RGB": (2, 3), "grey with alpha": (4, 2), "RGB with alpha": (6, 4)}


@pytest.mark.parametrize("mode", SIXTEEN)
def test_sixteen_bits_are_refused_in_every_mode(mode: str) -> None:
    """PIL drops the lower eight bits of some modes without a word, and keeps them in others."""
    colour, channels = SIXTEEN[mode]
    with pytest.raises(BadInput, match="image x has 16 bits a channel: convert it to 8 bits"):
        _decoded(raw_png((2, 2), 16, colour, _rows(16, channels)))
    assert (_decoded(raw_png((2, 2), 8, colour, _rows(8, channels))) == 255).all(), "control: 8 bits are read"


def _with_alpha(mode: str, hidden: bool) -> bytes:
    picture = Image.fromarray(GREY if mode == "LA" else PIXELS).convert(mode)
    alpha = np.full(GREY.shape, 255, dtype=np.uint8)
    alpha[2, 3] = 254 if hidden else 255
    picture.putalpha(Image.fromarray(alpha))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _with_colour(depth: int, colour: int, hidden: bool) -> bytes:
    """A white PNG that calls white transparent, or black."""
    channels = 3 if colour == 2 else 1
    value = (1 << depth) - 1 if hidden else 0
    return raw_png((2, 2), depth, colour, _rows(depth, channels), chunk(b"tRNS", struct.pack(">H", value) * channels))


TRANSPARENT: dict[str, Callable[[bool], bytes]] = {
    "grey with alpha": lambda hidden: _with_alpha("LA", hidden),
    "RGB with alpha": lambda hidden: _with_alpha("RGBA", hidden),
    "grey with a colour": lambda hidden: _with_colour(8, 0, hidden),
    "grey of 4 bits with a colour": lambda hidden: _with_colour(4, 0, hidden),
    "grey of 2 bits with a colour": lambda hidden: _with_colour(2, 0, hidden),
    "RGB with a colour": lambda hidden: _with_colour(8, 2, hidden),
}


@pytest.mark.parametrize("mode", TRANSPARENT)
def test_transparency_is_refused_in_every_mode(mode: str) -> None:
    """No background is invented. The control: where every pixel is opaque nothing is lost, and the picture is read."""
    with pytest.raises(BadInput, match=r"image x has \d+ pixels that are not opaque: put it on a background"):
        _decoded(TRANSPARENT[mode](True))
    read_as = _decoded(TRANSPARENT[mode](False))
    if "alpha" in mode:
        assert np.array_equal(read_as, GREY[..., None] if mode.startswith("grey") else PIXELS)
    else:
        assert (read_as == 255).all()


@pytest.mark.parametrize(
    ("form", "options", "words"),
    [
        ("WEBP", {"lossless": True}, "in the format WebP"),
        ("GIF", {}, "in the format GIF"),
        ("TIFF", {}, "in the format TIFF"),
        pytest.param("AVIF", {}, "in the format AVIF", marks=pytest.mark.skipif(not features.check("avif"), reason="this Pillow writes no AVIF")),
    ],
)
def test_a_format_that_is_not_read_is_called_by_its_name(tmp_path: Path, form: str, options: dict[str, object], words: str) -> None:
    """A whole picture is not called damaged, nor left out, in whatever folder it lies."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / f"x.{form.lower()}").write_bytes(_encoded(PIXELS, form, **options))
    with pytest.raises(BadInput, match=f"{words}, which is not read: convert it to PNG, JPEG or BMP"):
        read("imagefolder", tmp_path)
    with pytest.raises(BadInput, match="is damaged or is no PNG"):
        _decoded(b"RIFF....WAVE")


def test_jpegs_under_other_names_are_read(tmp_path: Path) -> None:
    """``.jfif``, and the pictures of phones that hold a second picture for depth."""
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "MPO", save_all=True, append_images=[Image.fromarray(255 - PIXELS)])
    for name, data in {"a/0.jfif": _encoded(PIXELS, "JPEG"), "a/1.JPE": _encoded(PIXELS, "JPEG"), "b/2.jpg": buffer.getvalue()}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    raw = read("imagefolder", tmp_path)
    assert raw.labels == ["a", "a", "b"]
    assert np.array_equal(raw.images[:][0], raw.images[:][1])
    assert np.array_equal(raw.images[:][0], raw.images[:][2])


@given(data=st.binary(max_size=60), head=st.sampled_from([b"", b"MM\0*\0\0\0\x08", b"II*\0\x08\0\0\0", b"II*\0\x08\0\0\0\x01\0\x12\x01"]))
def test_exif_that_is_no_exif_ends_with_the_picture_as_it_is_stored_or_a_sentence(data: bytes, head: bytes) -> None:
    """Whatever a camera or an attacker wrote there, no traceback ends the reading."""
    encoded = _encoded(PIXELS, "JPEG", exif=b"Exif\0\0" + head + data)
    stored = np.array(Image.open(io.BytesIO(encoded)))
    try:
        found = _decoded(encoded)
    except BadInput as refused:
        assert "image x is damaged" in str(refused)  # noqa: PT017
    else:
        assert any(np.array_equal(found, seen(stored)) for seen in SEEN.values())


def test_pictures_of_any_size_are_reduced_to_one(tmp_path: Path) -> None:
    """Photographs need not be made small by hand first; without a size they are refused, and nothing is enlarged or cropped."""
    large = np.random.default_rng(4).integers(0, 256, (768, 768), dtype=np.uint8)
    (tmp_path / "a").mkdir()
    (tmp_path / "a/0.png").write_bytes(png(large))
    (tmp_path / "a/1.png").write_bytes(png(large[:24, :24]))
    raw = read("imagefolder", tmp_path, size=12)
    assert np.array_equal(raw.images[:][0, ..., 0], np.rint(large.reshape(12, 64, 12, 64).mean(axis=(1, 3))))
    assert np.array_equal(raw.images[:][1, ..., 0], np.rint(large[:24, :24].reshape(12, 2, 12, 2).mean(axis=(1, 3))))
    with pytest.raises(BadInput, match=r"768x768 pixels: sides go up to 512, so reduce it, or set dataset\.size"):
        read("imagefolder", tmp_path)
    (tmp_path / "a/2.png").write_bytes(png(large[:24, :16]))
    with pytest.raises(BadInput, match=r"image a/2\.png in .* has 16x24 pixels, which do not reduce to 12x12: crop all images to squares"):
        read("imagefolder", tmp_path, size=12)
    (tmp_path / "a/2.png").write_bytes(png(large[:8, :8]))
    with pytest.raises(BadInput, match=r"image a/2\.png .* 8x8 pixels, smaller than size 12"):
        read("imagefolder", tmp_path, size=12)


def _huge_jpeg() -> bytes:
    data = bytearray(_encoded(PIXELS, "JPEG"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">2H", 65_000, 65_000)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (_huge_jpeg(), None),
        (_huge_jpeg(), 8),
        (raw_png((60_000, 60_000), 8, 0, b"\0"), 8),
        (raw_png((limits.MAX_SIDE_TO_REDUCE + 1, 8), 8, 0, b"\0"), 8),
        (raw_png((MAX_SIDE + 1, 8), 8, 0, b"\0"), None),
    ],
)
def test_a_picture_that_says_it_is_huge_is_not_unpacked(data: bytes, size: int | None) -> None:
    """A few bytes do not take gigabytes, whether the pixels are there or not."""
    with pytest.raises(BadInput, match=r"image x .*(sides go up to|too many pixels)"):
        _decoded(data, size)
