"""Readers of images and labels from outside: strict, bounded, and never unpickling.

Each reader takes an existing folder and returns images uint8 [N, H, W, C] with one label name each.
"""

from __future__ import annotations

import csv
import gzip
import io
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from erasediff.errors import BadInput
from erasediff.files import read_bounded

MAX_SIDE = 512
MAX_DATASET_BYTES = 4 << 30
MAX_IMAGE_FILE_BYTES = 16 << 20
MAX_CSV_BYTES = 256 << 20
MAX_SHARD_BYTES = 2 << 30
LABELS_FILE, _FIRST_ROW = "labels.csv", 2
"""Its rows are told by their numbers and never quoted: labels may name persons, and where the columns are swapped a file's name is a label."""
_IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"}
_UNREADABLE_IMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)
_UNREADABLE_NPZ = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError, MemoryError)


@dataclass(frozen=True, eq=False)
class Raw:
    """The result of a reader: images uint8 [N, H, W, C] and N label names."""

    images: NDArray[np.uint8]
    labels: list[str]


def read_folder(folder: Path) -> Raw:
    """Read a folder of images and its ``labels.csv`` with the header ``file,label``; images come in order of their names.

    Raises:
        BadInput: images and rows do not match one to one, or an image cannot be used.
    """
    labels = _read_labels_csv(folder)
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.suffix.lower() in _IMAGE_SUFFIXES and name not in labels:
            raise BadInput(f"image {name} in {folder} has no label: add a row for it to {LABELS_FILE} or remove it.")
    names, rows = sorted(labels), {name: row for row, name in enumerate(labels, start=_FIRST_ROW)}
    images = stack_images(((name, _image_file(folder, name, rows[name])) for name in names), len(names), folder)
    return Raw(images, [labels[name] for name in names])


def _read_labels_csv(folder: Path) -> dict[str, str]:
    path = folder / LABELS_FILE
    if not path.is_file():
        raise BadInput(f"the dataset folder {folder} has no {LABELS_FILE}: add one with the header file,label.")
    try:
        rows = list(csv.reader(io.StringIO(read_bounded(path, MAX_CSV_BYTES, "the label file").decode("utf-8-sig")), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{path} is not CSV in UTF-8 ({error}): save it again as UTF-8.") from None
    if not rows or rows[0] != ["file", "label"]:
        raise BadInput(f"{path} does not begin with the header file,label: correct its first line.")
    labels: dict[str, str] = {}
    for line, row in enumerate(rows[1:], start=_FIRST_ROW):
        name, label = _label_row(path, line, row)
        if name in labels:
            raise BadInput(f"row {line} of {path} names a file that an earlier row names: keep one row per image.")
        labels[name] = label
    return labels


def _label_row(path: Path, line: int, row: list[str]) -> tuple[str, str]:
    if len(row) != 2 or not row[0] or not row[1].strip():
        raise BadInput(f"row {line} of {path} is not a file and a label: correct or remove it.")
    name = PurePosixPath(row[0])
    if name.is_absolute() or ".." in name.parts or "\\" in row[0] or ":" in row[0] or "\0" in row[0]:
        raise BadInput(f"row {line} of {path} leaves the folder: name files by their path inside the folder.")
    return name.as_posix(), row[1].strip()


def _image_file(folder: Path, name: str, row: int) -> bytes:
    path = folder / name
    if not path.is_file():
        raise BadInput(f"row {row} of {folder / LABELS_FILE} names a file that is not there: add the image or remove the row.")
    if not path.resolve().is_relative_to(folder.resolve()):
        raise BadInput(f"{name} in {folder} is a link out of the folder: replace it by the image itself.")
    return read_bounded(path, MAX_IMAGE_FILE_BYTES, "the image")


def stack_images(encoded: Iterator[tuple[str, bytes]], count: int, source: Path) -> NDArray[np.uint8]:
    """Decode ``count`` named images of one common size into uint8 [N, H, W, C].

    Raises:
        BadInput: one is damaged, too large, of another size than the first, or neither grey nor RGB.
    """
    images: NDArray[np.uint8] = np.empty((0, 0, 0, 1), dtype=np.uint8)
    first = ""
    for index, (name, data) in enumerate(encoded):
        image = decode_image(data, f"image {name} in {source}")
        if index == 0:
            first = name
            check_bytes(count * image.size, source)
            images = np.empty((count, *image.shape), dtype=np.uint8)
        if image.shape != images.shape[1:]:
            ours, theirs = _describe(image.shape), _describe(images.shape[1:])
            raise BadInput(f"image {name} in {source} is {ours} but {first} is {theirs}: give all images one size and one mode.")
        images[index] = image
    return images


def decode_image(data: bytes, what: str) -> NDArray[np.uint8]:
    """Decode one PNG, JPEG or BMP, 8-bit grey or RGB, to uint8 [H, W, 1 or 3].

    Raises:
        BadInput: damaged, larger than 512 pixels a side, or of another mode.
    """
    from PIL import Image

    formats = ("PNG", "JPEG", "BMP")
    with warnings.catch_warnings():
        # Its own bomb check only warns up to twice its limit; the sides are bounded below before anything is decoded.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            with Image.open(io.BytesIO(data), formats=formats) as picture:
                _check_picture(picture.size, picture.mode, what)
                picture.verify()
            # verify() checks the checksums, which load() does not, and leaves a picture that cannot be loaded.
            with Image.open(io.BytesIO(data), formats=formats) as picture:
                pixels = np.array(picture, dtype=np.uint8)
        except Image.DecompressionBombError:
            raise BadInput(f"{what} has far too many pixels: sides go up to {MAX_SIDE}, so reduce it.") from None
        except _UNREADABLE_IMAGE as error:
            raise BadInput(f"{what} is damaged or is no PNG, JPEG or BMP ({type(error).__name__}): replace it.") from None
    return pixels.reshape(*pixels.shape[:2], -1)


def _check_picture(size: tuple[int, int], mode: str, what: str) -> None:
    if max(size) > MAX_SIDE:
        raise BadInput(f"{what} is {size[0]}x{size[1]} pixels: sides go up to {MAX_SIDE}, so reduce it.")
    if mode not in ("L", "RGB"):
        raise BadInput(f"{what} has the mode {mode}: convert it to 8-bit grey (L) or RGB.")


def _describe(shape: tuple[int, ...]) -> str:
    height, width, channels = shape
    return f"{width}x{height} {'grey' if channels == 1 else 'RGB'}"


def check_bytes(size: int, source: Path) -> None:
    """Refuse a dataset that would not fit in memory.

    Raises:
        BadInput: more than 4 GiB of pixels.
    """
    if size > MAX_DATASET_BYTES:
        raise BadInput(f"the dataset {source} has {size} bytes of pixels, more than {MAX_DATASET_BYTES}: take fewer images.")


def read_shards(folder: Path) -> Raw:
    """Read every ``.npz`` or every ``.parquet`` file of a folder, in order of their names.

    Raises:
        BadInput: no shards, both kinds, or a shard that is damaged, inconsistent or too large.
    """
    kinds = {suffix: sorted(folder.glob(f"*{suffix}")) for suffix in (".npz", ".parquet")}
    found = [suffix for suffix, paths in kinds.items() if paths]
    if len(found) != 1:
        what = "both .npz and .parquet files" if found else "neither .npz nor .parquet files"
        raise BadInput(f"the dataset folder {folder} holds {what}: give shards of one kind.")
    reader: Callable[[Path], Raw] = _read_npz if found == [".npz"] else _read_parquet
    shards = []
    pixels = 0
    for path in kinds[found[0]]:
        shards.append(reader(path))
        pixels += shards[-1].images.size
        check_bytes(pixels, folder)
        ours, theirs = shards[-1].images.shape[1:], shards[0].images.shape[1:]
        if ours != theirs:
            first = kinds[found[0]][0].name
            raise BadInput(f"{path} has images {_describe(ours)} but {first} has {_describe(theirs)}: give all shards one size.")
    return Raw(np.concatenate([shard.images for shard in shards]), [label for shard in shards for label in shard.labels])


def load_npz(data: bytes, path: Path, names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    """Load the named arrays of an ``.npz`` file, bounded before it is unpacked and without unpickling.

    Args:
        data: the file's bytes.
        path: their origin, for error sentences.
        names: the arrays to load.

    Raises:
        BadInput: damaged, too large, an array missing, or an array that needs pickle.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > MAX_SHARD_BYTES:
            raise BadInput(f"{path} unpacks to {size} bytes, more than {MAX_SHARD_BYTES}: split it into smaller shards.")
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            missing = [name for name in names if name not in arrays.files]
            if missing:
                raise BadInput(f"{path} has no array '{missing[0]}': a shard holds {' and '.join(names)}.")
            loaded = {name: arrays[name] for name in names}
    except _UNREADABLE_NPZ as error:
        if "pickle" in str(error) or "Object arrays" in str(error):
            raise BadInput(f"{path} holds pickled objects, which are never loaded: save plain number arrays.") from None
        raise BadInput(f"{path} is not a whole .npz file ({type(error).__name__}): write it again.") from None
    # numpy returns a member that is no .npy file as bytes.
    if not all(isinstance(array, np.ndarray) for array in loaded.values()):
        raise BadInput(f"{path} holds something other than arrays: save plain number arrays.")
    return loaded


def _read_npz(path: Path) -> Raw:
    arrays = load_npz(read_bounded(path, MAX_SHARD_BYTES, "the shard"), path, ("images", "labels"))
    images, labels = arrays["images"], arrays["labels"]
    images = images[..., np.newaxis] if images.ndim == 3 else images
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
        raise BadInput(f"{path} has images of {images.dtype} {list(images.shape)}: give uint8 [N, H, W] or [N, H, W, 1 or 3].")
    if labels.ndim != 1 or labels.dtype.kind not in "iuU":
        raise BadInput(f"{path} has labels of {labels.dtype} {list(labels.shape)}: give N whole numbers or names.")
    _check_shard(images.shape, len(labels), path)
    return Raw(images, [str(label) for label in labels])


def _check_shard(shape: tuple[int, ...], labels: int, path: Path) -> None:
    if shape[0] != labels:
        raise BadInput(f"{path} has {shape[0]} images but {labels} labels: give one label per image.")
    if max(shape[1:3]) > MAX_SIDE or min(shape[1:3]) < 1:
        raise BadInput(f"{path} has images of {shape[2]}x{shape[1]} pixels: sides go from 1 to {MAX_SIDE}, so resize them.")


def _read_parquet(path: Path) -> Raw:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.stat().st_size > MAX_SHARD_BYTES:
        raise BadInput(f"{path} is larger than {MAX_SHARD_BYTES} bytes: split it into smaller shards.")
    try:
        columns = pq.read_schema(path).names
        metadata = pq.read_metadata(path)
        size = sum(metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups))
        missing = [name for name in ("image", "label") if name not in columns]
        if missing:
            raise BadInput(f"{path} has no column '{missing[0]}': a parquet shard holds image and label.")
        if size > MAX_SHARD_BYTES:
            raise BadInput(f"{path} unpacks to {size} bytes, more than {MAX_SHARD_BYTES}: split it into smaller shards.")
        table = pq.read_table(path, columns=["image", "label"])
    except (OSError, pa.ArrowException) as error:
        raise BadInput(f"{path} is not a whole parquet file ({type(error).__name__}): write it again.") from None
    encoded, labels = table.column("image"), table.column("label")
    if not (pa.types.is_binary(encoded.type) or pa.types.is_large_binary(encoded.type)):
        raise BadInput(f"column 'image' of {path} is {encoded.type}: give the bytes of PNG or JPEG files.")
    if not (pa.types.is_integer(labels.type) or pa.types.is_string(labels.type) or pa.types.is_large_string(labels.type)):
        raise BadInput(f"column 'label' of {path} is {labels.type}: give whole numbers or names.")
    if encoded.null_count or labels.null_count:
        raise BadInput(f"{path} has a row without an image or a label: fill it or remove it.")
    rows = ((f"row {row}", value.as_py()) for row, value in enumerate(encoded))
    return Raw(stack_images(rows, len(encoded), path), [str(label) for label in labels.to_pylist()])


def read_idx(folder: Path) -> Raw:
    """Read ``train-images-idx3-ubyte`` and ``train-labels-idx1-ubyte``, plain or with ``.gz``.

    Raises:
        BadInput: missing, damaged, truncated or inconsistent files.
    """
    pictures = _idx_file(folder, "train-images-idx3-ubyte")
    numbers = _idx_file(folder, "train-labels-idx1-ubyte")
    images = _parse_idx(pictures, dimensions=3)[..., np.newaxis]
    labels = _parse_idx(numbers, dimensions=1)
    _check_shard(images.shape, len(labels), folder)
    return Raw(images, [str(label) for label in labels])


def _idx_file(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise BadInput(f"the dataset folder {folder} has neither {name} nor {name}.gz: add one of them.")


def _parse_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    data = _unpacked(path)
    header = 4 * (1 + dimensions)
    if len(data) < header:
        raise BadInput(f"{path} ends within its header: download it again.")
    magic, *shape = struct.unpack(f">{1 + dimensions}I", data[:header])
    expected = 0x0800 | dimensions
    if magic != expected:
        raise BadInput(f"{path} has the magic number {magic} instead of {expected}: check which file it is.")
    size = 1
    for side in shape:
        size *= side
    if len(data) - header != size:
        raise BadInput(f"{path} holds {len(data) - header} bytes where its header promises {size}: download it again.")
    return np.frombuffer(data, dtype=np.uint8, offset=header).reshape(shape).copy()


def _unpacked(path: Path) -> bytes:
    if path.suffix != ".gz":
        return read_bounded(path, MAX_SHARD_BYTES, "the idx file")
    try:
        with gzip.open(path) as handle:
            data = handle.read(MAX_SHARD_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise BadInput(f"{path} is not a whole gzip file ({type(error).__name__}): download it again.") from None
    if len(data) > MAX_SHARD_BYTES:
        raise BadInput(f"{path} unpacks to more than {MAX_SHARD_BYTES} bytes: is it the right file?")
    return data
