"""The lies: 'the class at this position', of a dataset that lost one; 'class 3', of a number that meant a position."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from erasediff.attempts.workdir import Workdir
from erasediff.cli import main
from erasediff.data.datasets import load_dataset
from erasediff.data.shards import unpack
from erasediff.errors import BadInput
from erasediff.evidence.served_rules import workdir_rules
from erasediff.models.folder import save_model
from erasediff.records.config import RunConfig, load_config
from erasediff.records.core import BaseRecord, ErasureRequest, ForgetSetRecord
from erasediff.records.policy import load_policy
from erasediff.steps.perform import open_attempt, perform
from erasediff.steps.table import step_named
from erasediff.steps.version_forget_set import forget_store
from erasediff.tracking import CHAMPION, MODEL_ARTIFACTS, Tracking, model_tags
from tests.certified import ROOT
from tests.small_models import model_of

NAMES = ("11", "2", "apple", "Bär", "cow", "dog", "emu", "fox", "gnu", "hen")
"""Not in the order of any dataset: the model's own."""
POLICY = load_policy(ROOT / "policies/class-conditional.yaml")


def write(folder: Path, names: tuple[str, ...]) -> None:
    """Six pictures a class; the pictures of a class are all of one grey, by which they are known."""
    folder.mkdir(parents=True, exist_ok=True)
    grey = np.repeat([25 * NAMES.index(name) for name in names], 6)
    noise = np.random.default_rng(0).integers(0, 12, (len(grey), 8, 8), dtype=np.uint8)
    np.savez(folder / "a.npz", images=grey[:, None, None].astype(np.uint8) + noise, labels=np.repeat(np.array(names), 6))


def config(folder: Path) -> RunConfig:
    document = {"model_name": "farm", "dataset": {"name": "farm", "kind": "shards", "path": str(folder / "data")}, "detector": {"steps": 5}}
    (folder / "config.yaml").write_text(yaml.safe_dump(document))
    return load_config(folder / "config.yaml")


@pytest.fixture
def workdir(tmp_path: Path, tiny_unet, monkeypatch: pytest.MonkeyPatch) -> Workdir:
    """The champion has forgotten the apple, and its classes are in an order of its own."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    write(tmp_path / "data", NAMES)
    workdir, configured = Workdir.open(tmp_path / "work"), config(tmp_path)
    tracking = Tracking(workdir.root)
    dataset = load_dataset(configured.dataset)
    assert dataset.class_names != NAMES
    record = save_model(model_of(tiny_unet()), workdir.models, "farm", NAMES, ("apple",)).model_copy(update={"epoch": 1})
    run_id = tracking.start_run("a base", {})
    source = tracking.log_artifacts(run_id, workdir.models / record.weights.uri, MODEL_ARTIFACTS)
    tracking.log_model_record(run_id, record)
    tracking.set_alias("farm", CHAMPION, tracking.register("farm", source, run_id, model_tags(record)))
    return workdir


def greys(workdir: Workdir, forget_set: ForgetSetRecord, scratch: Path) -> set[int]:
    """The classes of the pictures in a forget set, by their grey."""
    attempt = workdir.attempt()
    forget_store(attempt, attempt.plan()).fetch(forget_set.version, scratch / "forget", scratch)
    images, _, _ = unpack(scratch / "forget", forget_set.manifest_sha256)
    return {round((float(torch.from_numpy(image).float().mean()) - 5.5) / 25) for image in images}


@pytest.mark.parametrize("left", [NAMES, tuple(name for name in NAMES if name != "apple")], ids=["whole", "without what is forgotten"])
def test_the_pictures_of_the_class_that_was_named_are_forgotten(workdir: Workdir, tmp_path: Path, left: tuple[str, ...]) -> None:
    """After the forgotten class was deleted from the dataset, too: nothing else moves to its place."""
    write(tmp_path / "data", left)
    attempt = open_attempt(workdir, (ErasureRequest(dataset="farm", label="cow"),), config(tmp_path), POLICY)
    for name in ("train_base", "version_forget_set"):
        perform(step_named(name), attempt)
    base, forget_set = attempt.need(BaseRecord), attempt.need(ForgetSetRecord)
    assert (attempt.plan().position, forget_set.label) == (NAMES.index("cow"), base.model.row("cow"))
    assert greys(workdir, forget_set, tmp_path) == {NAMES.index("cow")}
    assert (forget_set.count, forget_set.retain_count, forget_set.gone_count) == (6, 48, 6 if "apple" in left else 0)


@pytest.mark.parametrize(
    ("left", "label", "sentence"),
    [
        (tuple(name for name in NAMES if name != "hen"), "cow", "the dataset lacks hen"),
        ((*NAMES[:-1], "hens"), "cow", "the dataset lacks hen and the model lacks hens"),
        (NAMES, "apple", "class apple is already forgotten"),
        (tuple(name for name in NAMES if name != "apple"), "apple", "class apple is already forgotten"),
        (NAMES, "4", "class 4 is not in dataset farm"),
        (NAMES, "bär", "class bär is not in dataset farm"),
    ],
)
def test_what_does_not_fit_the_model_is_refused_before_anything_is_opened(
    workdir: Workdir, tmp_path: Path, left: tuple[str, ...], label: str, sentence: str
) -> None:
    """Control: above, a class that fits is opened."""
    for picture in (tmp_path / "data").glob("*"):
        picture.unlink()
    grey = dict.fromkeys(left)
    np.savez(
        tmp_path / "data/a.npz", images=np.random.default_rng(1).integers(0, 256, (2 * len(grey), 8, 8), dtype=np.uint8), labels=np.repeat(left, 2)
    )
    with pytest.raises(BadInput, match=sentence):
        open_attempt(workdir, (ErasureRequest(dataset="farm", label=label),), config(tmp_path), POLICY)
    assert not list(workdir.runs.glob("*/plan.json"))


def command(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def test_a_number_is_the_same_name_asked_at_once_and_by_a_request(workdir: Workdir, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Class 2 of this model is at position 1, and class 11 at position 0. Control: a position that is no class's name is refused."""
    config(tmp_path)
    options = ("--workdir", workdir.root)
    assert command("check-prerequisites", "--config", tmp_path / "config.yaml", "--forget-label", " 2", *options) == 0
    plan = workdir.attempt().plan()
    assert (plan.request.label, plan.position) == ("2", 1)
    capsys.readouterr()
    assert command("request", "add", "--dataset", "farm", "--label", "2\u00a0", "--by", "desk", *options) == 0
    one = capsys.readouterr().out.split(":")[0]
    for move in ("verify", "locate", "accept", "suppress"):
        assert command("request", move, one, "--by", "desk", *options) == 0
    assert workdir_rules(workdir).suppress == ("2",)
    capsys.readouterr()
    assert command("request", "list", *options) == 0
    assert "class 2 of farm" in capsys.readouterr().out
    for wrong in ("1", "0", "02"):
        assert command("check-prerequisites", "--config", tmp_path / "config.yaml", "--forget-label", wrong, *options) == 2


def test_a_request_that_no_registered_model_can_fulfil_is_refused_or_marked(workdir: Workdir, capsys: pytest.CaptureFixture[str]) -> None:
    filed = ("request", "add", "--by", "desk", "--workdir", workdir.root)
    for dataset, label, sentence in (
        ("farms", "cow", "no registered model is of dataset 'farms'"),
        ("farm", "cows", "no registered model of dataset farm has the class cows: choose one of 11, 2, apple, Bär"),
    ):
        assert command(*filed, "--dataset", dataset, "--label", label) == 2
        assert sentence in capsys.readouterr().err
    assert not (workdir.root / "ledger.db").exists()
    assert command(*filed, "--dataset", "farm", "--label", "Ba\u0308r") == 0, "control: it has this class"
    assert command(*filed, "--dataset", "farm", "--label", "cows", "--unchecked") == 0
    capsys.readouterr()
    command("request", "list", "--workdir", workdir.root)
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("class Bär of farm")
    assert second.endswith("class cows of farm  unchecked")
