"""A whole run and its purge through the command line: what was forgotten is gone, and what serves goes on serving."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from erasediff.records.purging import PurgeRecord
from erasediff.records.workdir import Workdir
from tests.e2e.test_crash import QUICK, asking, write_images

HIDDEN = b"report.show_forgotten is off"


@pytest.fixture(scope="module")
def canary() -> bytes:
    return os.urandom(48)


def holding(canary: bytes, folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and canary in p.read_bytes())


@pytest.fixture(scope="module")
def finished(tmp_path_factory, erasediff, canary):
    """A run that was promoted, on images of which one forget image carries the canary in its pixels."""
    workdir = tmp_path_factory.mktemp("purge") / "work"
    write_images(workdir.parent / "numbers")
    image = np.asarray(Image.open(workdir.parent / "numbers" / "0.png")).copy()  # the first digit is a zero
    image.reshape(-1)[: len(canary)] = np.frombuffer(canary, dtype=np.uint8)
    Image.fromarray(image).save(workdir.parent / "numbers" / "0.png")
    config = yaml.safe_load((QUICK / "config.yaml").read_text()) | {"report": {"show_forgotten": True}}
    (workdir.parent / "config.yaml").write_text(yaml.safe_dump(config))
    options = asking("zero", workdir)
    options[1] = workdir.parent / "config.yaml"
    done = erasediff("run", "--workdir", workdir, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    return workdir


def test_a_run_is_purged_and_what_serves_goes_on(finished, erasediff, canary):
    run = Workdir(finished).run()
    report = (run.folder / "report.html").read_bytes()
    assert any(name.startswith("forget-remote/") for name in holding(canary, finished)), "control: the remote holds the image as it is"
    before = {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(finished.rglob("*")) if p.is_file()}
    dry = erasediff("purge", "--workdir", finished, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert "dvc remote           deleted" in dry.stdout
    assert before == {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(finished.rglob("*")) if p.is_file()}
    done = erasediff("purge", "--workdir", finished)
    assert done.returncode == 0, done.stdout + done.stderr
    record = run.need(PurgeRecord, "purge")
    assert record.complete
    assert holding(canary, finished) == []
    left = (run.folder / "report.html").read_bytes()
    assert HIDDEN in left
    assert HIDDEN not in report, "control: the first report shows samples of the class"
    assert left == (finished / "report.html").read_bytes()
    assert not (run.folder / "samples.npz").exists()
    with np.load(run.folder / "samples.remaining.npz") as grids:
        assert "forgotten_before" not in grids.files
        assert run.plan().request.label not in grids["labels"]
    assert len(list((finished / "models").iterdir())) == 1
    assert erasediff("purge", "--workdir", finished).returncode == 0
    assert run.need(PurgeRecord, "purge") == record
    outcome = erasediff("record-outcome", "--workdir", finished)
    assert outcome.returncode == 0, outcome.stderr
    assert HIDDEN in (run.folder / "report.html").read_bytes(), "a later report shows no more"
    refused = erasediff("rollback", "--workdir", finished, "--model", "numbers")
    assert refused.returncode == 2
    assert "may be rolled back to (there is no other version)" in refused.stderr


def test_the_next_request_starts_from_the_champion_that_was_left(finished, erasediff):
    """Its base is fetched, its judges are made again, and the class that is gone is measured again."""
    done = erasediff("run", "--workdir", finished, *asking("one", finished))
    assert done.returncode in (0, 10, 11), done.stdout + done.stderr
    assert "failed" not in done.stdout
