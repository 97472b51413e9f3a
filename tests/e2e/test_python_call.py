"""The lie: 'the Python call does what the pipeline does', of another erasure under the same settings."""

from __future__ import annotations

import shutil
from pathlib import Path

import yaml

import erasediff as package
from erasediff.attempts.workdir import Workdir
from erasediff.files import sha256_file
from erasediff.models.families import load_folder
from erasediff.models.layout import WEIGHTS
from erasediff.records.core import BaseRecord, ErasedRecord, VerdictRecord
from tests.e2e.conftest import log_of
from tests.e2e.numbers import QUICK

CONFIG = QUICK / "config.yaml"


def test_the_call_and_the_steps_make_the_same_weights(with_base: Path, erasediff, tmp_path: Path) -> None:
    """To the last byte, in a process with one thread each, and from an imported base as from a trained one. Control: another class."""
    work = Path(shutil.copytree(with_base, tmp_path / "work"))
    run = erasediff("run", "--forget-label", "3", "--config", CONFIG, "--policy", QUICK / "policy.yaml", "--workdir", work)
    attempt = Workdir.open(work).attempt()
    assert attempt.path(VerdictRecord).is_file(), run.stderr + log_of(work)
    base, erased = attempt.need(BaseRecord).model, attempt.need(ErasedRecord).model

    settings = yaml.safe_load(CONFIG.read_text())
    model = package.load(work / "models" / base.weights.uri)
    digests = {}
    for label in ("3", "4"):
        made = package.erase(model, dataset="digits", forget=label, sampler=settings["sampler"], **settings["erase"])
        made.save_pretrained(tmp_path / label)
        digests[label] = sha256_file(tmp_path / label / WEIGHTS)
    assert digests["3"] == erased.weights.sha256
    assert digests["4"] != erased.weights.sha256
    assert weights_erased_from_an_import_of(work / "models" / base.weights.uri, erasediff, tmp_path) == erased.weights.sha256


def weights_erased_from_an_import_of(folder: Path, erasediff, tmp_path: Path) -> str:
    """Import a base's folder as somebody else saves it, in shards and without an index, and erase class 3 by the pipeline's steps."""
    load_folder(folder).network.save_pretrained(tmp_path / "theirs/unet", max_shard_size="100KB")
    shutil.copytree(folder / "scheduler", tmp_path / "theirs/scheduler")
    documents, place = ("--config", CONFIG, "--policy", QUICK / "policy.yaml"), ("--workdir", tmp_path / "imported")
    commands = (
        ("import-base", tmp_path / "theirs", *documents),
        ("check-prerequisites", "--forget-label", "3", *documents),
        ("train-base",),
        ("version-forget-set",),
        ("erase",),
    )
    for command in commands:
        done = erasediff(*command, *place)
        assert done.returncode == 0, done.stdout + done.stderr
    return Workdir.open(tmp_path / "imported").attempt().need(ErasedRecord).model.weights.sha256
