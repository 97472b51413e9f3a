"""The lie: 'it was forgotten', of pictures that were trained on all the same, under another label."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from erasediff.attempts.workdir import Workdir
from erasediff.cli import main
from erasediff.data.datasets import ImageDataset
from erasediff.data.rows import write_rows
from erasediff.data.twins import TWINS, Apart, split_apart, under_two_labels
from erasediff.errors import BadInput

SHAPE = (8, 8, 1)


def dataset(folder: Path, *copies: tuple[int, str]) -> Path:
    """40 pictures of four classes, and copies of some under another label."""
    images = np.random.default_rng(0).integers(0, 256, (40, *SHAPE), dtype=np.uint8)
    labels = np.array(["ant", "bee", "cat", "dog"]).repeat(10)
    again = np.array([position for position, _ in copies], dtype=int)
    folder.mkdir(exist_ok=True)
    np.savez(folder / "a.npz", images=np.concatenate([images, images[again]]), labels=np.append(labels, [label for _, label in copies]))
    return folder


def opened(folder: Path, work: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What `check-prerequisites` says last when it refuses; nothing where it opens an attempt at the bees."""
    command = ("check-prerequisites", "--dataset", f"shards:{folder}", "--forget-label", "bee", "--workdir", str(work))
    code, said = main(list(command)), capsys.readouterr().err.splitlines()
    assert code == (2 if said and "pictures" in said[-1] else 0), said
    return said[-1] if code else ""


def test_a_picture_to_forget_that_is_retained_under_another_label_ends_the_run_before_it_begins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Controls: a copy under its own label, one of two retained classes, and none."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    work = tmp_path / "work"
    said = opened(dataset(tmp_path / "data", (12, "dog"), (13, "ant"), (14, "bee"), (2, "dog")), work, capsys)
    assert "2 pictures" in said
    assert "other labels (ant, dog)" in said
    assert (work / TWINS).read_text().splitlines() == ["position,label,same_as,how", "40,dog,12,exact", "41,ant,13,exact"]
    assert (work / TWINS).stat().st_mode & 0o077 == 0, "positions are for whoever keeps the data"
    assert not list(Workdir(work).runs.glob("*"))
    assert opened(dataset(tmp_path / "data", (14, "bee"), (2, "dog")), work, capsys) == "", "controls"
    assert not (work / TWINS).exists()


def picture_set(images: np.ndarray, labels: list[int]) -> ImageDataset:
    return ImageDataset("set", write_rows([images]), np.array(labels, dtype=np.int64), tuple("abcd"))


def apart(images: np.ndarray, labels: list[int], folder: Path, gone: tuple[int, ...] = ()) -> Apart:
    return split_apart(picture_set(images, labels), 0, gone, "forget", folder)


def test_one_grey_level_is_another_picture_where_pictures_are_small(tmp_path: Path) -> None:
    """8x8 pixels of different classes look alike too often to be called the same; the record says that they were compared exactly only."""
    images = np.random.default_rng(0).integers(1, 255, (4, *SHAPE), dtype=np.uint8)
    images[1:3] = images[0]
    images[2, 0, 0, 0] += 1
    found = apart(images, [0, 1, 1, 1], tmp_path)
    assert found.split.forget.tolist() == [0, 1]
    assert found.comparison.exact == found.comparison.joined == 1
    assert found.comparison.near is None
    assert "too small" in found.comparison.in_words()


def test_what_is_forgotten_in_the_same_run_or_before_is_not_retained(tmp_path: Path) -> None:
    """A copy of a picture that an earlier request named is in no set, and joins the forget set where it is a picture of that as well."""
    images = np.random.default_rng(0).integers(0, 256, (8, *SHAPE), dtype=np.uint8)
    images[4], images[5], images[2] = images[0], images[1], images[1]
    found = apart(images, [0, 1, 2, 3, 3, 3, 3, 3], tmp_path, gone=(1, 2))
    assert (found.split.forget.tolist(), found.split.retain.tolist(), found.split.gone.tolist()) == ([0, 4], [3, 6, 7], [1, 2, 5])
    assert (found.comparison.compared, found.comparison.joined, found.comparison.forgotten_before) == (5, 1, 1)
    assert "1 joined the forget set, and 1 are pictures of classes forgotten earlier" in found.comparison.in_words()
    assert (tmp_path / TWINS).read_text().splitlines()[1:] == ["4,d,0,exact", "5,d,1,exact"]


def test_a_class_of_copies_alone_leaves_nothing_to_retain(tmp_path: Path) -> None:
    images = np.zeros((4, *SHAPE), dtype=np.uint8)
    with pytest.raises(BadInput, match="every picture that dataset set would retain"):
        apart(images, [0, 0, 1, 1], tmp_path)


@pytest.fixture(scope="module")
def digits32() -> tuple[np.ndarray, np.ndarray]:
    """Digits of 32 pixels a side, and their labels."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    small = np.floor(bunch.images * 255 / 16 + 0.5).astype(np.uint8)
    return np.array([np.asarray(Image.fromarray(image).resize((32, 32), Image.Resampling.BICUBIC)) for image in small])[..., None], bunch.target


def jpeg(image: np.ndarray) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0]).save(buffer, "JPEG", quality=75)
    return np.asarray(Image.open(buffer))[..., None]


def brighter(image: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(image * 1.05), 0, 255).astype(np.uint8)


def darker(image: np.ndarray) -> np.ndarray:
    return np.rint(image * 0.9).astype(np.uint8)


def enlarged_and_reduced(image: np.ndarray) -> np.ndarray:
    there = Image.fromarray(image[..., 0]).resize((64, 64), Image.Resampling.BICUBIC)
    return np.asarray(there.resize((32, 32), Image.Resampling.BOX))[..., None]


@pytest.mark.parametrize("change", [brighter, darker, jpeg, enlarged_and_reduced])
def test_a_copy_that_was_made_brighter_or_compressed_is_still_the_picture(
    digits32: tuple[np.ndarray, np.ndarray], change: Callable[[np.ndarray], np.ndarray], tmp_path: Path
) -> None:
    """And of 1797 digits none is taken for one of another class: neither before, nor by what joins the forget set."""
    images, labels = digits32
    again = np.flatnonzero(labels == 0)[::8]
    copies = np.array([change(image) for image in images[again]])
    assert (copies != images[again]).reshape(len(again), -1).any(axis=1).all(), "control: they have other pixels"
    dataset = ImageDataset("set", write_rows([images, copies]), np.append(labels, np.full(len(again), 8)), tuple("0123456789"))
    found = split_apart(dataset, 0, (), "forget", tmp_path)
    assert (found.comparison.exact, found.comparison.joined) == (0, len(again))
    assert found.comparison.near is not None
    assert found.comparison.near.found == len(again)
    assert found.split.forget[-len(again) :].tolist() == list(range(len(images), len(images) + len(again)))
    assert under_two_labels(dataset).tolist() == sorted([*again, *found.split.forget[-len(again) :]])
    assert split_apart(ImageDataset("set", write_rows([images]), labels, dataset.class_names), 0, (), "refuse", tmp_path).comparison.exact == 0


def test_a_brighter_copy_ends_the_run_unless_it_is_to_join_the_forget_set(
    digits32: tuple[np.ndarray, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    images, labels = digits32
    again, data = np.flatnonzero(labels == 0)[::8], tmp_path / "data"
    data.mkdir()
    copies = brighter(images[again])
    np.savez(data / "a.npz", images=np.concatenate([images, copies]), labels=np.append(labels, np.full(len(again), 8)))
    for rule, code in (("refuse", 2), ("forget", 0)):
        config = tmp_path / f"{rule}.yaml"
        config.write_text(f"dataset: {{name: set, kind: shards, path: {data}, duplicates: {rule}}}\n")
        assert main(["check-prerequisites", "--config", str(config), "--forget-label", "0", "--workdir", str(tmp_path / rule)]) == code
        said = capsys.readouterr().err
        listed = (tmp_path / rule / TWINS).read_text().splitlines()
        assert len(listed) == 1 + len(again) == 24
        assert all(line.endswith(",near") for line in listed[1:])
        assert ("23 pictures of dataset set are a picture to forget (23 look the same)" in said) == (code == 2)


def test_another_colour_or_a_plain_picture_is_another_picture(tmp_path: Path) -> None:
    """The hash is of greys alone, and of pictures without contrast it would be noise: the pixels have the last word."""
    shape = np.random.default_rng(0).integers(0, 2, (8, 8), dtype=np.uint8).repeat(4, axis=0).repeat(4, axis=1)
    red, green = np.zeros((2, 32, 32, 3), dtype=np.uint8)
    red[..., 0], green[..., 1] = shape * 200, shape * 102  # as bright as each other
    plain = [np.full((32, 32, 3), level, dtype=np.uint8) for level in (100, 104)]
    found = apart(np.array([red, green, red // 2, plain[0], plain[1], plain[0]]), [0, 1, 1, 0, 1, 1], tmp_path)
    assert found.split.forget.tolist() == [0, 2, 3, 5], "controls: darker, and pixel for pixel"
