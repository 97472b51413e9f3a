"""The lie: 'this is the dataset', said of images that were cut off, mislabelled, mixed up or left out."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from erasediff.data.datasets import ImageDataset, load_dataset
from erasediff.data.readers import limits
from erasediff.data.readers.reduction import reduce_images
from erasediff.data.rows import write_rows
from erasediff.errors import BadInput
from erasediff.records.config import DatasetConfig

Writer = Callable[[Path, list[list[str]]], None]


def _load(kind: str, path: Path, size: int | None = None) -> ImageDataset:
    return load_dataset(DatasetConfig.model_validate({"name": "set", "kind": kind, "path": str(path), "size": size}))


def _png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def test_digits_are_the_same_on_every_load() -> None:
    """A record's dataset digest names one dataset only, and it uses the whole range of grey."""
    dataset = load_dataset(DatasetConfig())
    assert dataset.images.shape == (1797, 8, 8, 1)
    assert (dataset.images[:].min(), dataset.images[:].max()) == (0, 255)
    assert dataset.class_names == tuple("0123456789")
    assert dataset.digest() == load_dataset(DatasetConfig()).digest()


def test_the_digest_sees_every_part() -> None:
    """Control of the test above: another pixel, label, shape or name gives another digest."""
    images = np.arange(32, dtype=np.uint8).reshape(2, 4, 4, 1)
    labels = np.array([0, 1], dtype=np.int64)
    changed = images.copy()
    changed[1, 3, 3, 0] ^= 1
    digests = {
        ImageDataset("x", write_rows([images.copy()]), labels.copy(), ("a", "b")).digest(),
        ImageDataset("x", write_rows([changed]), labels.copy(), ("a", "b")).digest(),
        ImageDataset("x", write_rows([images.copy()]), labels[::-1].copy(), ("a", "b")).digest(),
        ImageDataset("x", write_rows([images.reshape(2, 2, 8, 1)]), labels.copy(), ("a", "b")).digest(),
        ImageDataset("x", write_rows([images.copy()]), labels.copy(), ("a", "c")).digest(),
        ImageDataset("x", write_rows([images.copy()]), labels.copy(), ("ab", "")).digest(),
    }
    assert len(digests) == 6


def test_a_dataset_cannot_change_under_its_digest() -> None:
    """The digest that a record quotes stays the digest of what is trained on."""
    dataset = load_dataset(DatasetConfig())
    before = dataset.digest()
    with pytest.raises(ValueError, match="read-only"):
        dataset.labels[0] = 0
    dataset.images[:][0] = 0
    with pytest.raises(TypeError):
        dataset.images[0:1] = 0
    assert ImageDataset("x", dataset.images, dataset.labels, dataset.class_names).digest() == before


def test_a_class_is_never_guessed() -> None:
    """'forget 0' is not answered with the class that happens to come first."""
    images, labels = np.zeros((2, 4, 4, 1), dtype=np.uint8), np.array([0, 1], dtype=np.int64)
    numbered = ImageDataset("set", write_rows([images]), labels, ("3", "7"))
    assert numbered.class_called("7") == "7"
    with pytest.raises(BadInput, match="class 0 is not in dataset set: choose one of 3, 7"):
        numbered.class_called("0")
    named = ImageDataset("set", write_rows([images]), labels, ("cat", "dog"))
    assert named.class_called("dog") == "dog"
    with pytest.raises(BadInput, match="choose one of cat, dog"):
        named.class_called("1")


def test_folder_keeps_each_image_with_its_label(image_folder: Path, labels_writer: Writer) -> None:
    """The order of the rows does not move a label to another image."""
    dataset = _load("folder", image_folder)
    assert dataset.class_names == ("cat", "dog")
    assert dataset.labels.tolist() == [1, 0, 1, 0, 1, 0]
    assert np.array_equal(dataset.images[:][3, :, :, 0], np.asarray(Image.open(image_folder / "3.png")))
    rows = [[f"{n}.png", "cat" if n % 2 else "dog"] for n in reversed(range(6))]
    labels_writer(image_folder, [["file", "label"], *rows])
    assert _load("folder", image_folder).digest() == dataset.digest()


def test_whole_number_labels_are_ordered_by_value(image_folder: Path, labels_writer: Writer) -> None:
    """Label 10 does not come between 1 and 2."""
    labels_writer(image_folder, [["file", "label"], *([f"{n}.png", str((10, 9, 2)[n % 3])] for n in range(6))])
    assert _load("folder", image_folder).class_names == ("2", "9", "10")


def _truncate(folder: Path) -> None:
    path = folder / "3.png"
    path.write_bytes(path.read_bytes()[:-20])


def _flip(folder: Path) -> None:
    data = bytearray((folder / "3.png").read_bytes())
    data[data.index(b"IDAT") + 10] ^= 1
    (folder / "3.png").write_bytes(bytes(data))


def _save(folder: Path, name: str, image: Image.Image) -> None:
    image.save(folder / name)


BROKEN_IMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated": (_truncate, r"3\.png .*damaged"),
    "one bit flipped": (_flip, r"3\.png .*damaged"),
    "no image": (lambda f: (f / "3.png").write_bytes(b"hello") and None, r"3\.png .*damaged"),
    "other size": (lambda f: _save(f, "3.png", Image.new("L", (9, 8))), r"3\.png .*9x8 grey but image 0\.png is 8x8 grey.*dataset\.size"),
    "other mode": (lambda f: _save(f, "3.png", Image.new("RGB", (8, 8))), r"3\.png .*8x8 RGB but image 0\.png is 8x8 grey"),
    "palette": (lambda f: _save(f, "3.png", Image.new("P", (8, 8))), r"3\.png .*mode P"),
    "transparent": (lambda f: _save(f, "3.png", Image.new("RGBA", (8, 8))), r"3\.png .*64 pixels that are not opaque"),
    "too large": (lambda f: _save(f, "3.png", Image.new("L", (513, 8))), r"3\.png .*513x8.*512"),
    "bomb": (lambda f: _save(f, "3.png", Image.new("1", (20_000, 20_000))), r"3\.png .*(too many|sides go up)"),
    "without a label": (lambda f: _save(f, "new.png", Image.new("L", (8, 8))), r"new\.png .*no label"),
    "gone": (lambda f: (f / "3.png").unlink(), r"row \d+ of .*labels\.csv names a file that is not there"),
    "no labels": (lambda f: (f / "labels.csv").unlink(), r"no labels\.csv"),
    "not text": (lambda f: (f / "labels.csv").write_bytes(b"file,label\n\xff\xfe,1\n") and None, "UTF-8"),
}


@pytest.mark.parametrize("name", BROKEN_IMAGES)
def test_a_broken_folder_is_refused_by_name(image_folder: Path, name: str) -> None:
    """No damaged, foreign or unlabelled image slips in, and the sentence says which it is."""
    damage, words = BROKEN_IMAGES[name]
    _load("folder", image_folder)  # the control: it is the damage that is refused
    damage(image_folder)
    with pytest.raises(BadInput, match=words):
        _load("folder", image_folder)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "header"),
        ([["image", "label"]], "header"),
        ([["file", "label", "note"]], "header"),
        ([["file", "label"], ["0.png"]], "row 2"),
        ([["file", "label"], ["0.png", "a", "b"]], "row 2"),
        ([["file", "label"], ["0.png", " "]], "row 2"),
        ([["file", "label"], ["0.png", "a"], ["0.png", "b"]], "row 3 of .* names a file that an earlier row names"),
        ([["file", "label"], ["/etc/passwd", "a"]], "leaves the folder"),
        ([["file", "label"], ["x" * 5000, "a"]], "row 2 of .* names a file that is not there"),
        ([["file", "label"], ["../0.png", "a"]], "leaves the folder"),
        ([["file", "label"], ["C:\\0.png", "a"]], "leaves the folder"),
    ],
)
def test_a_broken_labels_file_is_refused(image_folder: Path, labels_writer: Writer, rows: list[list[str]], words: str) -> None:
    """No label is guessed, and no path reaches outside the folder."""
    labels_writer(image_folder, rows)
    with pytest.raises(BadInput, match=words):
        _load("folder", image_folder)


def test_a_link_out_of_the_folder_is_refused(image_folder: Path, tmp_path: Path) -> None:
    """A folder from outside cannot read the rest of the machine."""
    (image_folder / "3.png").rename(tmp_path / "outside.png")
    (image_folder / "3.png").symlink_to(tmp_path / "outside.png")
    with pytest.raises(BadInput, match="link out of the folder"):
        _load("folder", image_folder)


def test_nothing_to_learn_from_is_refused(image_folder: Path, labels_writer: Writer, tmp_path: Path) -> None:
    """An empty dataset, or one with nothing to retain, is not erased from; a missing folder is not an empty one."""
    labels_writer(image_folder, [["file", "label"], *([f"{n}.png", "cat"] for n in range(6))])
    with pytest.raises(BadInput, match="fewer than 2 classes"):
        _load("folder", image_folder)
    (tmp_path / "empty").mkdir()
    labels_writer(tmp_path / "empty", [["file", "label"]])
    with pytest.raises(BadInput, match="no images"):
        _load("folder", tmp_path / "empty")
    with pytest.raises(BadInput, match="does not exist"):
        _load("folder", tmp_path / "absent")


def test_memory_is_bounded(image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dataset too large for memory is said to be, before it is read."""
    monkeypatch.setattr(limits, "MAX_DATASET_BYTES", 6 * 64)
    _load("folder", image_folder)
    monkeypatch.setattr(limits, "MAX_DATASET_BYTES", 6 * 64 - 1)
    with pytest.raises(BadInput, match="384 bytes of pixels, above 383"):
        _load("folder", image_folder)


IMAGES = np.random.default_rng(1).integers(0, 256, (6, 8, 8), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2])


def test_npz_shards_are_joined_in_order(tmp_path: Path) -> None:
    """No shard is lost, and [N, H, W] means grey."""
    np.savez(tmp_path / "b.npz", images=IMAGES[3:], labels=LABELS[3:])
    np.savez(tmp_path / "a.npz", images=IMAGES[:3], labels=LABELS[:3])
    dataset = _load("shards", tmp_path)
    assert np.array_equal(dataset.images[:][..., 0], IMAGES)
    assert dataset.labels.tolist() == LABELS.tolist()


def _raw_member(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", b"cos\nsystem\n")
        archive.writestr("labels.npy", b"no array")


BROKEN_SHARDS: dict[str, tuple[Callable[[Path], object], str]] = {
    "pickled images": (lambda p: np.savez(p, images=np.array([{}] * 6, dtype=object), labels=LABELS), "pickle"),
    "pickled labels": (lambda p: np.savez(p, images=IMAGES, labels=LABELS.astype(object)), "pickle"),
    "no arrays": (_raw_member, "something other than arrays"),
    "too few labels": (lambda p: np.savez(p, images=IMAGES, labels=LABELS[:5]), "6 images but 5 labels"),
    "no labels": (lambda p: np.savez(p, images=IMAGES), "no array 'labels'"),
    "floats": (lambda p: np.savez(p, images=IMAGES / 255, labels=LABELS), "uint8"),
    "float labels": (lambda p: np.savez(p, images=IMAGES, labels=LABELS / 2), "labels of float64"),
    "no zip": (lambda p: p.write_bytes(b"PK no"), "not a whole .npz"),
    "other size": (lambda p: np.savez(p.with_name("z.npz"), images=IMAGES[:, :4], labels=LABELS), "one size"),
    "both kinds": (lambda p: p.with_suffix(".parquet").write_bytes(b""), "one kind"),
}


@pytest.mark.parametrize("name", BROKEN_SHARDS)
def test_a_broken_shard_is_refused(tmp_path: Path, name: str) -> None:
    """No pickle is loaded and no image gets another image's label."""
    np.savez(tmp_path / "a.npz", images=IMAGES, labels=LABELS)
    _load("shards", tmp_path)
    damage, words = BROKEN_SHARDS[name]
    damage(tmp_path / "a.npz")
    with pytest.raises(BadInput, match=words):
        _load("shards", tmp_path)


def test_an_npz_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small file cannot fill the memory."""
    np.savez_compressed(tmp_path / "a.npz", images=np.zeros((100, 64, 64), dtype=np.uint8), labels=np.arange(100))
    monkeypatch.setattr(limits, "MAX_SHARD_BYTES", 100_000)
    assert (tmp_path / "a.npz").stat().st_size < 100_000
    with pytest.raises(BadInput, match="unpacks to"):
        _load("shards", tmp_path)


def test_parquet_shards(tmp_path: Path) -> None:
    """Encoded images arrive bit by bit with their labels; a damaged one, a missing column or a gap is named."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def write(columns: dict[str, list[object]]) -> None:
        pq.write_table(pa.table(columns), tmp_path / "a.parquet")

    encoded: list[object] = [_png(image) for image in IMAGES]
    names: list[object] = [str(label) for label in LABELS]
    write({"image": encoded, "label": names})
    dataset = _load("shards", tmp_path)
    assert np.array_equal(dataset.images[:][..., 0], IMAGES)
    assert dataset.labels.tolist() == LABELS.tolist()
    for columns, words in [
        ({"image": [*encoded[:5], b"no image"], "label": names}, "image row 5 .*damaged"),
        ({"image": encoded}, "no column 'label'"),
        ({"image": encoded, "label": [*names[:5], None]}, "row 5 of .* no label or no bytes of an image"),
        ({"image": names, "label": names}, "column 'image'"),
    ]:
        write(columns)
        with pytest.raises(BadInput, match=words):
            _load("shards", tmp_path)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(BadInput, match="not a whole parquet"):
        _load("shards", tmp_path)


def _idx_images(images: np.ndarray, magic: int = 2051) -> bytes:
    return struct.pack(">4I", magic, *images.shape) + images.tobytes()


def _idx_labels(labels: np.ndarray, magic: int = 2049) -> bytes:
    return struct.pack(">2I", magic, len(labels)) + labels.astype(np.uint8).tobytes()


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files(tmp_path: Path, suffix: str) -> None:
    """Both forms of the format give the same dataset; a wrong kind, a cut or a mismatch is refused."""

    def write(images: bytes, labels: bytes) -> None:
        pack = gzip.compress if suffix else bytes
        (tmp_path / f"train-images-idx3-ubyte{suffix}").write_bytes(pack(images))
        (tmp_path / f"train-labels-idx1-ubyte{suffix}").write_bytes(pack(labels))

    with pytest.raises(BadInput, match="neither"):
        _load("idx", tmp_path)
    write(_idx_images(IMAGES), _idx_labels(LABELS))
    dataset = _load("idx", tmp_path)
    assert np.array_equal(dataset.images[:][..., 0], IMAGES)
    assert dataset.labels.tolist() == LABELS.tolist()
    for images, labels, words in [
        (_idx_images(IMAGES, magic=2049), _idx_labels(LABELS), "magic number 2049 instead of 2051"),
        (_idx_images(IMAGES)[:-1], _idx_labels(LABELS), "holds 383 bytes where its header promises 384"),
        (_idx_images(IMAGES) + b"x", _idx_labels(LABELS), "holds more than the 384 bytes"),
        (_idx_images(IMAGES)[:10], _idx_labels(LABELS), "within its header"),
        (_idx_images(IMAGES), _idx_labels(LABELS[:5]), "6 images but 5 labels"),
    ]:
        write(images, labels)
        with pytest.raises(BadInput, match=words):
            _load("idx", tmp_path)


def test_a_cut_gzip_is_refused(tmp_path: Path) -> None:
    """A broken download is not a smaller dataset."""
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(_idx_labels(LABELS))
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(_idx_images(IMAGES))[:-12])
    with pytest.raises(BadInput, match="not a whole gzip"):
        _load("idx", tmp_path)


def test_reduction_is_the_mean_of_the_area(tmp_path: Path) -> None:
    """Smaller images show the same thing: the exact mean where sides divide, and no brightness is lost where they do not."""
    images = np.random.default_rng(2).integers(0, 256, (3, 24, 24, 3), dtype=np.uint8)
    halves = reduce_images(images, 12, "set")
    assert halves[1, 2, 3, 1] == np.rint(images[1, 4:6, 6:8, 1].mean())
    uneven = reduce_images(images, 9, "set")
    assert uneven.shape == (3, 9, 9, 3)
    assert abs(float(uneven.mean()) - float(images.mean())) < 1
    assert reduce_images(images, 24, "set") is images
    with pytest.raises(BadInput, match="smaller than size 32"):
        reduce_images(images, 32, "set")
    with pytest.raises(BadInput, match="square"):
        reduce_images(images[:, :12], 8, "set")
    assert _load_reduced(tmp_path, images).images.shape == (3, 8, 8, 3)


def _load_reduced(folder: Path, images: np.ndarray) -> ImageDataset:
    np.savez(folder / "a.npz", images=images, labels=np.arange(3))
    return _load("shards", folder, size=8)
