"""A full disk ends every command with one sentence, and nothing half-written is left under its final name."""

import re

import pytest

from erasediff.cli import main
from erasediff.models.families.unet import build_unet
from erasediff.models.folder import save_model
from erasediff.records.config import DenoiserConfig
from tests.digits import DIGITS
from tests.disk import fill, small_disk
from tests.small_models import model_of

pytestmark = pytest.mark.faults


@pytest.fixture
def disk(tmp_path):
    """Enough for MLflow's database, not for much more."""
    with small_disk(tmp_path / "disk", 3) as folder:
        yield folder


def refused(capsys, *arguments) -> str:
    assert main([str(a) for a in arguments]) == 2
    *log, sentence = capsys.readouterr().err.strip().split("\n")
    assert all(re.match(r"\d\d:\d\d:\d\d ", line) for line in log), log  # of a step: when it began and failed
    assert "space" in sentence
    return sentence


def test_a_picture_is_whole_or_absent(disk, tmp_path, capsys):
    unet = build_unet(DenoiserConfig(block_out_channels=(8, 16), norm_num_groups=4), channels=1, size=8, classes=10)
    record = save_model(model_of(unet), tmp_path / "models", "digits", DIGITS, ())
    arguments = ("sample", "--model", tmp_path / "models" / record.weights.uri, "--label", 1, "--out", disk / "out.png", "--count", 64)
    fill(disk)
    refused(capsys, *arguments)
    assert [p.name for p in disk.iterdir()] == ["filler"]
    (disk / "filler").unlink()
    assert main([str(a) for a in arguments]) == 0  # control: with space the same command writes it


def test_an_attempt_is_whole_or_absent(disk, capsys):
    """No room for MLflow's database."""
    fill(disk, leave=200 << 10)
    refused(capsys, "check-prerequisites", "--forget-label", 0, "--workdir", disk / "work")
    assert not list(disk.glob("work/runs/*/plan.json"))


def test_a_record_is_whole_or_absent(disk, capsys):
    """The disk fills up after the attempt was opened: the step says so and its record is not there."""
    assert main(["check-prerequisites", "--forget-label", "0", "--workdir", str(disk / "work")]) == 0
    capsys.readouterr()
    fill(disk)
    refused(capsys, "train-base", "--workdir", disk / "work", "--run", (disk / "work/runs/current").read_text().strip())
    assert not list(disk.glob("work/runs/*/base.json"))
    assert not list(disk.rglob("*.part"))
