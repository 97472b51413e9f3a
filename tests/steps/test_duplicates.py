"""The lie: 'the forget set', of pictures some of which are retained, held out and judged by under another label."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from erasediff.attempts.attempt import Attempt
from erasediff.attempts.workdir import Workdir
from erasediff.data.datasets import load_dataset
from erasediff.data.split import partition
from erasediff.errors import BadInput, IntegrityError
from erasediff.evaluate.real import real_images
from erasediff.models.denoiser import to_unit
from erasediff.models.families.unet import build_unet
from erasediff.models.family import Model
from erasediff.models.folder import save_model
from erasediff.records.config import DatasetConfig, DenoiserConfig, RunConfig
from erasediff.records.core import BaseRecord, ErasureRequest, ForgetSetRecord
from erasediff.records.policy import load_policy
from erasediff.steps.check_prerequisites import check_prerequisites
from erasediff.steps.erase import _erasure_data
from erasediff.steps.record_outcome import _compared
from erasediff.steps.version_forget_set import version_forget_set
from tests.small_models import model_of

POLICY = load_policy(Path(__file__).parents[2] / "policies/class-conditional.yaml")
NAMES = ("ant", "bee", "cat", "dog")
TINY = DenoiserConfig(block_out_channels=(8, 16), norm_num_groups=4)
COPIES = np.arange(40, 46)
"""Pictures of bees that lie among the dogs too: those at 10 to 15."""


def images_of(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 8, 8, 1), dtype=np.uint8)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    """40 pictures of four classes, and six bees once more among the dogs; they may join the forget set."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    images, labels = images_of(40), np.array(["ant", "bee", "cat", "dog"]).repeat(10)
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data/a.npz", images=np.concatenate([images, images[10:16]]), labels=np.append(labels, ["dog"] * len(COPIES)))
    return RunConfig(dataset=DatasetConfig(name="animals", kind="shards", path=str(tmp_path / "data"), duplicates="forget"))


def versioned(config: RunConfig, workdir: Workdir) -> tuple[Attempt, Model]:
    run = check_prerequisites(workdir, [ErasureRequest(dataset="animals", label="bee")], config, POLICY)
    model = model_of(build_unet(TINY, channels=1, size=8, classes=len(NAMES)))
    BaseRecord(name="animals", version="1", model=save_model(model, workdir.models, "animals", NAMES, ())).write(run.path(BaseRecord))
    version_forget_set(run).write(run.path(ForgetSetRecord))
    return run, model


def shown(images: torch.Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images}


def test_a_dataset_that_changed_since_the_plan_is_not_versioned(config: RunConfig, tmp_path: Path) -> None:
    """Control: the same without the change, in the next test."""
    run, _ = versioned(config, Workdir.open(tmp_path / "work"))
    shutil.rmtree(remote := run.workdir.root / "forget-remote")
    file = tmp_path / "data/a.npz"
    arrays = dict(np.load(file))
    arrays["images"][0, 0, 0] ^= 1
    np.savez(file, **arrays)
    with pytest.raises(BadInput, match="dataset 'animals' changed since the run was opened: run the command again"):
        version_forget_set(run)
    assert not any(remote.rglob("*")), "nothing of it was published"


def test_a_copy_joins_the_forget_set_and_nobody_is_trained_on_it_under_its_other_label(config: RunConfig, tmp_path: Path) -> None:
    """From the dataset to what the erasure trains on and what the judges see; only counts are recorded."""
    run, model = versioned(config, Workdir.open(tmp_path / "work"))
    record, dataset = run.need(ForgetSetRecord), load_dataset(config.dataset)
    assert (record.count, record.retain_count, record.gone_count) == (16, 30, 0)
    assert record.comparison is not None
    assert (record.comparison.compared, record.comparison.exact, record.comparison.near, record.comparison.joined) == (36, 6, None, 6)
    assert _compared(run).endswith("; 6 joined the forget set.")

    data, train = _erasure_data(run, config, run.need(BaseRecord), model), partition(dataset.labels, 1 / 3, 0).train
    joined = np.intersect1d(COPIES, train)
    assert len(joined) > 0
    assert len(data.forget) == (dataset.labels[train] == 1).sum() + len(joined)
    assert set(data.forget_labels.tolist()) == {1}
    copies = shown(to_unit(torch.from_numpy(dataset.images[COPIES])))
    assert not copies & shown(data.retain)
    assert len(copies & shown(data.forget)) > 0

    refusing = config.dataset.model_copy(update={"duplicates": "refuse"})
    real, plain = (real_images(dataset, rule) for rule in (config.dataset, refusing))
    twice = shown(torch.from_numpy(dataset.images[COPIES]))
    assert not twice & (shown(real.holdout) | shown(real.train))
    assert len(real.holdout) + len(real.train) == 46 - 12
    assert twice <= shown(plain.holdout) | shown(plain.train), "control: else they are there"


def test_a_forget_set_that_was_split_by_another_rule_is_not_erased(config: RunConfig, tmp_path: Path) -> None:
    """The erasure makes the split again: what is retained then has to be what the record says."""
    run, model = versioned(config, Workdir.open(tmp_path / "work"))
    images = images_of(40)
    other = np.concatenate([images, images[10:15], images_of(41)[40:]])  # one copy fewer
    np.savez(tmp_path / "data/a.npz", images=other, labels=np.append(np.array(["ant", "bee", "cat", "dog"]).repeat(10), ["dog"] * len(COPIES)))
    with pytest.raises(IntegrityError, match="the retain set is not the one of the forget set's record"):
        _erasure_data(run, config, run.need(BaseRecord), model)


def test_a_class_that_lies_under_another_label_as_a_whole_has_no_judge(config: RunConfig, tmp_path: Path) -> None:
    images = images_of(40)
    images[:10] = images[20:30]
    np.savez(tmp_path / "data/a.npz", images=images, labels=np.array(["ant", "bee", "cat", "dog"]).repeat(10))
    with pytest.raises(BadInput, match="all pictures of a class of dataset animals lie under another label too"):
        real_images(load_dataset(config.dataset), config.dataset)
