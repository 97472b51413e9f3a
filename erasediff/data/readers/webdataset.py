"""Shards of files, ``.tar``, as webdataset writes them: a picture and its label have one name up to the first dot."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from erasediff.data.readers import limits
from erasediff.data.readers.batches import Batch, Picture, decoded
from erasediff.data.readers.names import shown
from erasediff.data.readers.pictures import is_picture
from erasediff.errors import BadInput

_LABELS = (".cls", ".txt")
"""Files that hold a label; the first that a sample has counts."""


def read_webdataset(paths: list[Path], folder: Path, size: int | None) -> Iterator[Batch]:
    """Read shards in the order of their files: samples of one picture and one label, ``.cls`` or ``.txt``; other files are left out.

    Raises:
        BadInput: a shard is damaged or compressed, a sample has no picture, several or no label, or a picture cannot be used.
    """
    return decoded(_pictures(paths, folder), folder, size)


def _pictures(paths: list[Path], folder: Path) -> Iterator[Picture]:
    for path in paths:
        if path.stat().st_size > limits.MAX_SHARD_BYTES:
            raise BadInput(f"{path} is larger than {limits.MAX_SHARD_BYTES} bytes: split it into smaller shards.")
        try:
            yield from _samples(path, path.relative_to(folder).as_posix())
        except (OSError, tarfile.TarError, EOFError, ValueError) as error:
            raise BadInput(f"{path} is not a whole tar file without compression ({type(error).__name__}): write it again.") from None


@dataclass
class _Sample:
    """The files of one sample, as far as they were read."""

    key: str
    shard: Path
    name: str
    picture: bytes | None = None
    file: str = ""
    labels: dict[str, bytes] = field(default_factory=dict)

    def take(self, file: str, suffix: str | None, data: bytes) -> None:
        if suffix is not None:
            if suffix in self.labels:
                raise BadInput(f"the sample {shown(self.key)} in {self.shard} has two labels, both {suffix}: keep one.")
            self.labels[suffix] = data
            return
        if self.picture is not None:
            raise BadInput(
                f"the sample {shown(self.key)} in {self.shard} has two pictures, {shown(self.file)} and {shown(file)}: "
                "give each picture its own name up to the first dot."
            )
        self.picture, self.file = data, file

    def whole(self) -> Picture:
        found = next((self.labels[suffix] for suffix in _LABELS if suffix in self.labels), None)
        if self.picture is None or found is None:
            what = "picture" if self.picture is None else "label (.cls or .txt)"
            raise BadInput(f"the sample {shown(self.key)} in {self.shard} has no {what} beside it: add it, or remove the sample.")
        try:
            label = found.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise BadInput(f"the label of the sample {shown(self.key)} in {self.shard} is not text in UTF-8: write it again.") from None
        # The line's end is the file's, not the name's.
        return Picture(self.picture, label.removesuffix("\n").removesuffix("\r"), f"image {shown(self.file)} of {self.name}")


def _samples(path: Path, name: str) -> Iterator[Picture]:
    sample: _Sample | None = None
    with tarfile.open(path, "r:") as archive:
        while (member := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # else it remembers all of them
            folder, _, file = member.name.rpartition("/")
            stem, dot, rest = file.partition(".")
            suffix = f"{dot}{rest}" if f"{dot}{rest}" in _LABELS else None
            if member.isdir() or not stem or (suffix is None and not is_picture(file)):
                continue
            key = f"{folder}/{stem}" if folder else stem
            if sample is None or sample.key != key:
                if sample is not None:
                    yield sample.whole()
                sample = _Sample(key, path, name)
            sample.take(member.name, suffix, _content(archive, member, path))
        _check_end(archive)
    if sample is not None:
        yield sample.whole()


def _check_end(archive: tarfile.TarFile) -> None:
    """Check that nothing but zeros follows: tarfile takes a damaged header for the end, and does not see a second archive behind the first."""
    handle = archive.fileobj
    assert handle is not None
    handle.seek(archive.offset)
    part = handle.read(tarfile.BLOCKSIZE)
    if len(part) < tarfile.BLOCKSIZE:
        raise EOFError
    while part:
        if part.strip(b"\0"):
            raise tarfile.ReadError
        part = handle.read(limits.BATCH_BYTES)


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> bytes:
    if not member.isreg() or member.issparse():
        raise BadInput(f"{shown(member.name)} in {path} is a link or another kind of entry: pack the file itself.")
    if member.size > limits.MAX_PICTURE_FILE_BYTES:
        raise BadInput(f"{shown(member.name)} in {path} has {member.size} bytes, more than {limits.MAX_PICTURE_FILE_BYTES}: reduce it.")
    handle = archive.extractfile(member)
    data = b"" if handle is None else handle.read()
    if len(data) != member.size:
        raise EOFError
    return data
