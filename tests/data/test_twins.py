"""The lie: 'it was forgotten', of pictures that were trained on all the same, under another label."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from erasediff.attempts.workdir import Workdir
from erasediff.cli import main
from erasediff.data.split import split_dataset
from erasediff.data.twins import TWINS, twins

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
    assert "other labels (0, 3)" in said
    assert (work / TWINS).read_text().splitlines() == ["position,label,same_as", "40,3,12", "41,0,13"]
    assert (work / TWINS).stat().st_mode & 0o077 == 0, "positions are for whoever keeps the data"
    assert not list(Workdir(work).runs.glob("*"))
    assert opened(dataset(tmp_path / "data", (14, "bee"), (2, "dog")), work, capsys) == "", "controls"
    assert not (work / TWINS).exists()


def test_one_grey_level_is_another_picture() -> None:
    images = np.zeros((3, *SHAPE), dtype=np.uint8)
    images[2, 0, 0, 0] = 1
    assert twins(images, split_dataset(np.array([0, 1, 1]), 0)) == [(1, 0)]


def test_what_is_forgotten_in_the_same_run_or_before_is_not_retained() -> None:
    images = np.zeros((4, *SHAPE), dtype=np.uint8)
    assert twins(images, split_dataset(np.array([0, 1, 2, 3]), 0, (1, 2))) == [(3, 0)]
