"""The lie: a verdict by detectors that nobody pinned. A swapped classifier finds nothing in any model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from erasediff.attempts.attempt import Attempt
from erasediff.attempts.workdir import Workdir
from erasediff.data.datasets import load_dataset
from erasediff.errors import IntegrityError
from erasediff.evaluate.real import RealImages, real_images
from erasediff.files import sha256_bytes, sha256_folder
from erasediff.records.base import Pointer
from erasediff.records.config import DetectorConfig, FeaturesConfig, RunConfig
from erasediff.records.core import BaseRecord, ErasureRequest, Judges, ModelRecord, PlanRecord
from erasediff.records.policy import load_policy
from erasediff.steps import judges
from erasediff.steps.gate import check_judges
from tests.digits import DIGITS
from tests.evaluate.gate_examples import measurements, witness
from tests.pretrained import write

POLICY = load_policy(Path(__file__).parents[2] / "policies/class-conditional.yaml")
CONFIG = RunConfig(detector=DetectorConfig(steps=2))
KEY, DIGEST = bytes(32), "0" * 64


@pytest.fixture(scope="module")
def real() -> RealImages:
    return real_images(load_dataset(CONFIG.dataset), CONFIG.dataset)


@pytest.fixture
def run(tmp_path: Path) -> Attempt:
    return opened_by(tmp_path, CONFIG)


def pinned(run: Attempt, found: Judges | None) -> BaseRecord:
    model = ModelRecord(dataset="digits", class_names=DIGITS, weights=Pointer(uri="m", sha256=DIGEST), folder_sha256=DIGEST)
    base = BaseRecord(name="digits", version="1", model=model, judges=found)
    base.write(run.path(BaseRecord))
    return base


def the_file(run: Attempt) -> Path:
    (path,) = run.workdir.detectors.glob("*.safetensors")
    return path


def test_who_was_appointed_judges(run: Attempt, real: RealImages) -> None:
    found = judges.pin_judges(run, real)
    pinned(run, found)
    assert judges.classifier(run, real).digest == found.classifier
    assert judges.neighbourhood(run, real).digest == found.neighbours


def test_a_classifier_that_was_swapped_after_the_appointment_is_refused(run: Attempt, real: RealImages) -> None:
    pinned(run, judges.pin_judges(run, real))
    blind = {name: torch.zeros_like(value) for name, value in load_file(the_file(run)).items()}
    save_file(blind, the_file(run))
    with pytest.raises(IntegrityError, match="classifier of run one is not the one that was pinned"):
        judges.classifier(run, real)


def test_one_that_is_trained_again_after_it_was_removed_must_come_out_the_same(run: Attempt, real: RealImages) -> None:
    pinned(run, judges.pin_judges(run, real))
    the_file(run).unlink()
    judges.classifier(run, real)


def test_other_neighbours_are_refused(run: Attempt, real: RealImages) -> None:
    pinned(run, judges.pin_judges(run, real))
    fewer = RealImages(real.holdout[1:], real.holdout_labels[1:], real.train, real.train_labels, real.class_names)
    with pytest.raises(IntegrityError, match="neighbours of"):
        judges.neighbourhood(run, fewer)


def test_without_an_appointment_nobody_judges(run: Attempt, real: RealImages) -> None:
    pinned(run, None)
    with pytest.raises(IntegrityError, match="pinned"):
        judges.classifier(run, real)


def opened_by(tmp_path: Path, config: RunConfig) -> Attempt:
    plan = PlanRecord(
        made_from={"dataset": load_dataset(config.dataset).digest()},
        run="one",
        attempt=1,
        request=ErasureRequest(dataset="digits", label="8"),
        position=8,
        request_id=DIGEST,
        config_digest=config.digest(),
        policy_digest=POLICY.digest(),
        seed_commitment=sha256_bytes(KEY),
        mlflow_run_id="r",
    )
    return Workdir.open(tmp_path / "work").open_attempt(plan, config, POLICY, KEY)


def change_weights(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file({name: value * 1.01 for name, value in tensors.items()}, folder / "model.safetensors", {"format": "pt"})


def change_settings(folder: Path) -> None:
    path = folder / "preprocessor_config.json"
    path.write_text(path.read_text().replace("0.5", "0.6"))


@pytest.mark.parametrize("change", [change_weights, change_settings])
def test_an_extractor_that_was_swapped_after_the_appointment_is_refused(tmp_path: Path, real: RealImages, change: Callable[[Path], None]) -> None:
    """One that sees nothing finds every model as good as the base; other preprocessing does as much as other weights."""
    folder = write(tmp_path / "dinov2", "dinov2")
    run = opened_by(tmp_path, CONFIG.model_copy(update={"features": FeaturesConfig(kind="transformers", path=str(folder))}))
    found = judges.pin_judges(run, real)
    pinned(run, found)
    detector = judges.classifier(run, real)
    assert judges.extractor(run, real, detector).digest == found.features != found.classifier, "control"
    change(folder)
    with pytest.raises(IntegrityError, match="of run one is not the one that was pinned"):
        judges.extractor(run, real, detector)
    judges.classifier(run, real)


def test_the_detector_s_features_are_appointed_with_the_detector(run: Attempt, real: RealImages) -> None:
    found = judges.pin_judges(run, real)
    pinned(run, found)
    assert judges.extractor(run, real, judges.classifier(run, real)).digest == found.features == found.classifier


@pytest.mark.parametrize("change", [change_weights, change_settings])
def test_a_classifier_from_a_folder_is_appointed_like_one_that_was_trained(tmp_path: Path, real: RealImages, change: Callable[[Path], None]) -> None:
    folder = write(tmp_path / "vit", "vit")
    detector = DetectorConfig(kind="transformers", path=str(folder), labels=tuple(range(10)))
    run = opened_by(tmp_path, CONFIG.model_copy(update={"detector": detector}))
    found = judges.pin_judges(run, real)
    pinned(run, found)
    assert judges.classifier(run, real).digest == found.classifier == sha256_folder(folder), "control"
    assert not list(run.workdir.detectors.glob("*")), "none is trained"
    change(folder)
    with pytest.raises(IntegrityError, match="classifier of run one"):
        judges.classifier(run, real)


@pytest.mark.parametrize("who", ["classifier", "neighbours", "features"])
def test_the_gate_refuses_measurements_by_another_judge(run: Attempt, who: str) -> None:
    """The files may have been right when the samples were looked at by something else: the measurements name who looked."""
    base = pinned(run, Judges(classifier=DIGEST, neighbours=DIGEST, features=DIGEST))
    check_judges(run, base, measurements())  # control
    detector = measurements().detector.model_copy(update={"sha256": "1" * 64})
    others = {"classifier": {"detector": detector}, "neighbours": {"neighbours": witness(sha256="1" * 64)}, "features": {"features": "1" * 64}}
    with pytest.raises(IntegrityError, match="made with other detectors or features"):
        check_judges(run, base, measurements(**others[who]))


def test_the_gate_takes_no_judge_in_another_s_place(run: Attempt) -> None:
    """Both were pinned, but each for its own office."""
    base = pinned(run, Judges(classifier=DIGEST, neighbours="1" * 64, features=DIGEST))
    right = measurements(neighbours=witness(sha256="1" * 64))
    check_judges(run, base, right)  # control
    detector = right.detector.model_copy(update={"sha256": "1" * 64})
    with pytest.raises(IntegrityError, match="made with other detectors"):
        check_judges(run, base, right.model_copy(update={"detector": detector}))
