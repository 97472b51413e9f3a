"""Folders of pictures: with a ``labels.csv``, or with a folder for each class."""

from __future__ import annotations

import csv
import io
import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from erasediff.data.readers import limits
from erasediff.data.readers.batches import Batch, Picture, decoded
from erasediff.data.readers.names import no_file, shown
from erasediff.data.readers.pictures import is_picture
from erasediff.errors import BadInput
from erasediff.files import read_bounded

LABELS_FILE, _FIRST_ROW = "labels.csv", 2
"""Its rows are told by their numbers and never quoted: labels may name persons, and where the columns are swapped a file's name is a label."""


@dataclass(frozen=True)
class _Files:
    """The files below a folder.

    Attributes:
        folder: the folder.
        found: names on the disk by their paths inside the folder, in Unicode's form NFC and in order.
        plain: the names on the disk that no link leads to.
    """

    folder: Path
    found: dict[str, str]
    plain: frozenset[str]

    @classmethod
    def below(cls, folder: Path) -> _Files:
        """List them; folders that are links are not entered.

        Raises:
            BadInput: two names are one in Unicode's form NFC.
        """
        found: dict[str, str] = {}
        plain = set()
        for name, is_link in _walk(folder, ""):
            composed = unicodedata.normalize("NFC", name)
            if composed in found:
                raise BadInput(f"{folder} spells the name of one file in two ways, {found[composed]!a} and {name!a}: remove or rename one.")
            found[composed] = name
            if not is_link:
                plain.add(name)
        return cls(folder, dict(sorted(found.items())), frozenset(plain))

    def pictures(self) -> Iterator[str]:
        """The paths that end as a picture's name does."""
        return (name for name in self.found if is_picture(name))

    def find(self, text: str) -> str | None:
        """The name on the disk of the file with this path inside the folder, if there is one."""
        name = self.found.get(unicodedata.normalize("NFC", text))
        # os.path, for it takes a name that is too long for one that is not there.
        if name is None and os.path.isfile(self.folder / text):  # noqa: PTH113  # below a folder that is a link
            return text
        return name

    def read(self, name: str) -> bytes:
        """The bytes of a picture, by its name on the disk.

        Raises:
            BadInput: it lies outside the folder, or is too large.
        """
        path = self.folder / name
        if name not in self.plain and not path.resolve().is_relative_to(self.folder.resolve()):
            raise BadInput(f"{shown(name)} in {self.folder} is a link out of the folder: replace it by the image itself.")
        return read_bounded(path, limits.MAX_PICTURE_FILE_BYTES, "the image")


def _walk(folder: Path | str, prefix: str) -> Iterator[tuple[str, bool]]:
    """The files below a folder, and whether each is a link.

    Raises:
        BadInput: an entry with a picture's name is no file, such as a link whose file was never fetched.
    """
    with os.scandir(folder) as entries:
        for entry in entries:
            name = f"{prefix}{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(entry.path, f"{name}/")
            elif entry.is_file():
                yield name, entry.is_symlink()
            elif is_picture(name):
                raise no_file(name)


def read_labelled_folder(folder: Path, size: int | None) -> Iterator[Batch]:
    """Read a folder of pictures and its ``labels.csv`` with the header ``file,label``; images come in order of their paths.

    Raises:
        BadInput: images and rows do not match one to one, or an image cannot be used.
    """
    files = _Files.below(folder)
    labels = _read_labels_csv(files)
    for name in files.pictures():
        if name not in labels:
            raise BadInput(f"image {shown(name)} in {folder} has no label: add a row for it to {LABELS_FILE} or remove it.")
    ordered = sorted(labels.items())
    pictures = (Picture(files.read(row.file), row.label, f"image {shown(name)}") for name, row in ordered)
    return decoded(pictures, folder, size, len(ordered))


@dataclass(frozen=True)
class _Row:
    """A row of the label file: a name on the disk, and the label as it is spelt."""

    file: str
    label: str


def _read_labels_csv(files: _Files) -> dict[str, _Row]:
    """The rows by the path of their image inside the folder."""
    path = files.folder / LABELS_FILE
    if not path.is_file():
        raise BadInput(f"the dataset folder {files.folder} has no {LABELS_FILE}: add one with the header file,label, or use the kind imagefolder.")
    rows = _rows_of(path)
    if not rows or rows[0] != ["file", "label"]:
        raise BadInput(f"{path} does not begin with the header file,label: correct its first line.")
    labels: dict[str, _Row] = {}
    for line, row in enumerate(rows[1:], start=_FIRST_ROW):
        if not any(cell.strip() for cell in row):  # spreadsheets end a file with a blank row
            continue
        name, found = _label_row(files, line, row)
        if name in labels:
            raise BadInput(f"row {line} of {path} names a file that an earlier row names: keep one row per image.")
        labels[name] = found
    return labels


def _rows_of(path: Path) -> list[list[str]]:
    try:
        text = read_bounded(path, limits.MAX_CSV_BYTES, "the label file").decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not in UTF-8 ({error}): save it again as UTF-8.") from None
    rows: list[list[str]] = []
    try:
        for row in csv.reader(io.StringIO(text, newline=""), strict=True):  # whichever way its lines end
            rows.append(row)
    except csv.Error as error:
        raise BadInput(f"row {len(rows) + 1} of {path} is not CSV ({error}): correct or remove it.") from None
    return rows


def _label_row(files: _Files, line: int, row: list[str]) -> tuple[str, _Row]:
    where = f"row {line} of {files.folder / LABELS_FILE}"
    if len(row) != 2 or not row[0] or not row[1].strip():
        raise BadInput(f"{where} is not a file and a label: correct or remove it.")
    # A name as it stands comes first: \ and : are letters like others where the folder was made.
    for text in (row[0], row[0].replace("\\", "/")):
        path = PurePosixPath(text)
        if path.is_absolute() or ".." in path.parts or "\0" in text:
            raise BadInput(f"{where} leaves the folder: name files by their path inside the folder.")
        if (found := files.find(path.as_posix())) is not None:
            return unicodedata.normalize("NFC", path.as_posix()), _Row(found, row[1])
    if PureWindowsPath(row[0]).drive:
        raise BadInput(f"{where} leaves the folder: name files by their path inside the folder, without a drive.")
    raise BadInput(f"{where} names a file that is not there: add the image or remove the row.")


def read_class_folders(folder: Path, size: int | None) -> Iterator[Batch]:
    """Read ``CLASS/picture.png``: the name of a folder is the label of the pictures in it. What begins with a dot is left out.

    Raises:
        BadInput: a picture lies in no class's folder or below one, a folder has no pictures, or a picture cannot be used.
    """
    files = _Files.below(folder)
    names = [name for name in files.pictures() if not any(part.startswith(".") for part in name.split("/"))]
    for name in names:
        if name.count("/") != 1:
            hint = "put it into the folder of its class" if "/" not in name else "give the folder that holds the folders of the classes"
            raise BadInput(f"image {shown(name)} in {folder} is not at CLASS/FILE, where its folder names its class: {hint}.")
    filled = {files.found[name].partition("/")[0] for name in names}
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and not entry.name.startswith(".") and entry.name not in filled:
            raise BadInput(f"the folder {shown(entry.name)} in {folder} holds no pictures, or is a link: fill it or remove it.")
    found = ((files.found[name], f"image {shown(name)}") for name in names)
    pictures = (Picture(files.read(name), name.partition("/")[0], where) for name, where in found)
    return decoded(pictures, folder, size, len(names))
