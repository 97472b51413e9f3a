"""The lie: 'compared by DINOv2', in a record whose numbers are another extractor's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from erasediff.data.datasets import load_dataset
from erasediff.evaluate.detectors import Detector, train_detector
from erasediff.evaluate.features.extractor import FeatureExtractor
from erasediff.evaluate.features.opening import DetectorFeatures, open_from_path
from erasediff.evaluate.measure import (
    Examination,
    ModelSamples,
    RetainedSamples,
    compare,
    neighbours_for,
    retain_measurements,
    sample_further,
    watch_for,
)
from erasediff.evaluate.neighbours import Neighbourhood
from erasediff.evaluate.real import real_images
from erasediff.evaluate.seeds import evaluation_key
from erasediff.evaluate.statistics import frechet_distance
from erasediff.models.families.unet import ClassConditionalUNet
from erasediff.records.attacks import Detections
from erasediff.records.config import DetectorConfig, FeaturesConfig, RunConfig, SamplerConfig
from erasediff.records.measurements import ClassAccuracy
from erasediff.records.policy import load_policy
from tests.pretrained import write
from tests.small_models import model_of

POLICY = load_policy(Path(__file__).parents[1] / "e2e/quick/policy.yaml")
RETAINED = (0, 1, 2)


@pytest.fixture(scope="module")
def exam() -> Examination:
    real = real_images(load_dataset(RunConfig().dataset), RunConfig().dataset)
    detector = Detector(train_detector(real.holdout, real.holdout_labels, 10, DetectorConfig(steps=30)), "0" * 64)
    watch = watch_for(detector, real, 8, list(RETAINED), POLICY)
    neighbours = neighbours_for(Neighbourhood(real.holdout, real.holdout_labels), real, 8, RETAINED, POLICY)
    sampler = SamplerConfig(steps=3, workers=2, batch_size=7)
    return Examination(watch, neighbours, DetectorFeatures(detector), real, RETAINED, POLICY, sampler, evaluation_key(0), 0)


@pytest.fixture(scope="module")
def dinov2(exam: Examination, tmp_path_factory: pytest.TempPathFactory) -> FeatureExtractor:
    folder = write(tmp_path_factory.mktemp("features") / "dinov2", "dinov2")
    return open_from_path(FeaturesConfig(kind="transformers", path=str(folder)), exam.real.holdout[:2])


@pytest.fixture(scope="module")
def models(tiny_unet) -> tuple[ClassConditionalUNet, ClassConditionalUNet]:
    return tuple(model_of(tiny_unet(seed)) for seed in (0, 1))


def kept(exam: Examination, models) -> tuple[RetainedSamples, RetainedSamples]:
    return tuple(exam.kept(model, torch.device("cpu"), "test") for model in models)


def test_the_detector_s_numbers_are_those_of_one_look_at_everything(exam: Examination, models) -> None:
    """As it was before extractors were exchangeable, to the last bit."""
    for samples in kept(exam, models):
        found, features = exam.watch.detector.look(samples.images)
        assert torch.equal(samples.found, found)
        assert np.array_equal(samples.features[0:60], features)
    wanted = torch.isin(exam.real.holdout_labels, torch.tensor(RETAINED))
    assert np.array_equal(exam.reference[0 : int(wanted.sum())], exam.watch.detector.look(exam.real.holdout[wanted])[1])


def test_the_extractor_s_features_are_compared_and_the_detector_classifies(exam: Examination, dinov2: FeatureExtractor, models) -> None:
    other = replace(exam, extractor=dinov2)
    by_detector, by_dinov2 = kept(exam, models), kept(other, models)
    for was, now in zip(by_detector, by_dinov2, strict=True):
        assert torch.equal(was.found, now.found)
        assert torch.equal(was.images, now.images)
    wanted = torch.isin(exam.real.holdout_labels, torch.tensor(RETAINED))
    fd = frechet_distance(dinov2.features(exam.real.holdout[wanted]), dinov2.features(by_dinov2[0].images))
    measured, before = retain_measurements(other, *by_dinov2), retain_measurements(exam, *by_detector)
    assert measured.frechet.fd_base == pytest.approx(fd, rel=1e-6)
    assert measured.frechet.fd_base != pytest.approx(before.frechet.fd_base, rel=0.01), "control"
    assert measured.accuracy == before.accuracy
    assert measured.manifold.density is not None


def test_the_record_says_whose_features_they_are(exam: Examination, dinov2: FeatureExtractor, models) -> None:
    nothing, probe = Detections(n=1, detections=0), exam.real.train[:1]
    for chosen in (exam, replace(exam, extractor=dinov2)):
        samples = [ModelSamples(nothing, probe, nothing, nothing, {}, retained) for retained in kept(chosen, models)]
        record = compare(chosen, *samples, samples[0].retained, {}, None)
        assert record.features == chosen.extractor.digest
        assert record.detector.sha256 == "0" * 64
    assert dinov2.digest != "0" * 64, "control"


def test_a_class_on_which_they_disagree_is_asked_again_and_the_others_are_not(exam, models):
    """Of a model against itself the further pairs are all alike; control: of two models they are not."""
    retain = exam.policy.retain.model_copy(update={"n_per_class": 20, "max_per_class": 60, "class_margin": 0.3})
    asking = replace(exam, policy=exam.policy.model_copy(update={"retain": retain}))
    often, never = (ClassAccuracy(label=label, n=20, correct_base=10, correct_erased=10, correct_both=both) for label, both in ((1, 2), (2, 10)))
    one, other = (model.source(torch.device("cpu")) for model in models)
    (again,) = sample_further(asking, one, one, [often, never])
    assert (again.label, again.n) == (1, 60)
    assert again.correct_base - 10 == again.correct_erased - 10 == again.correct_both - 2
    (apart,) = sample_further(asking, one, other, [often, never])
    assert apart.correct_base == again.correct_base
    assert apart.correct_erased != again.correct_erased
