"""The lie: 'it was attacked', by an attack that trains nothing, trains the wrong thing, or harms the model that is to be served."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from erasediff.evaluate.attacks import Suspect
from erasediff.evaluate.attacks.training import Budget, inverted, relearned, trained_on
from erasediff.models.denoiser import to_unit
from erasediff.models.families.unet import ClassConditionalUNet, UNetDenoiser
from erasediff.models.noised import denoising_loss
from erasediff.models.training import TrainingSet
from erasediff.records.config import SamplerConfig
from tests.small_models import model_of

LABEL, NULL, CPU = 3, 10, torch.device("cpu")
IMAGES = torch.randint(0, 256, (8, 8, 8, 1), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


@pytest.fixture
def pipeline(tiny_unet) -> Callable[..., ClassConditionalUNet]:
    return lambda seed=0: model_of(tiny_unet(seed))


@pytest.fixture
def suspect(pipeline) -> Suspect:
    return Suspect(pipeline(), pipeline(1), LABEL, tuple(c for c in range(10) if c != LABEL), SamplerConfig(steps=2, workers=1), CPU, seed=0)


def weights(model: ClassConditionalUNet) -> list[Tensor]:
    return [value.clone() for value in model.network.state_dict().values()]


def same(left: list[Tensor], right: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def loss_of(denoiser, schedule, label: int) -> float:
    data = TrainingSet(to_unit(IMAGES), torch.full((8,), label), NULL, 0.0)
    with torch.no_grad():
        batches = (data.draw(schedule, 64, torch.Generator().manual_seed(s), CPU) for s in range(8))
        return float(torch.stack([denoising_loss(denoiser, batch) for batch in batches]).mean())


def test_training_on_changes_a_copy_and_lowers_its_loss(pipeline) -> None:
    model = pipeline()
    before = weights(model)
    labels = torch.full((8,), LABEL)
    moved = trained_on(model, IMAGES, labels, Budget(40, 1e-3), CPU, 0, "test")
    assert same(weights(model), before)
    assert not same(weights(moved), before)
    assert loss_of(moved.denoiser, model.schedule, LABEL) < 0.9 * loss_of(model.denoiser, model.schedule, LABEL)
    assert same(weights(trained_on(model, IMAGES, labels, Budget(40, 1e-3), CPU, 0, "test")), weights(moved)), "a function of its seed"
    assert not same(weights(trained_on(model, IMAGES, labels, Budget(40, 1e-3), CPU, 1, "test")), weights(moved)), "control"


def test_an_inverted_embedding_is_a_new_condition_and_the_network_stays(suspect: Suspect) -> None:
    """It explains the images better than the null label that it started from; no weight but its own has moved."""
    before = weights(suspect.model)
    probe = inverted(suspect, IMAGES, Budget(60, 0.05))
    assert same(weights(suspect.model), before)
    assert probe.conditions.tolist() == [NULL + 1]
    unet, schedule = probe.source.denoiser.unet, suspect.model.schedule
    own = {name: value for name, value in unet.state_dict().items() if not name.startswith("class_embedding")}
    assert all(torch.equal(own[name], value) for name, value in suspect.model.network.state_dict().items() if name in own)
    assert torch.equal(unet.class_embedding.table[: NULL + 1], suspect.model.network.class_embedding.weight)
    found, null = (loss_of(UNetDenoiser(unet), schedule, label) for label in (NULL + 1, NULL))
    assert found < null
    assert null == pytest.approx(loss_of(suspect.model.denoiser, schedule, NULL)), "control: the null label is the model's own"


def test_relearning_stops_when_half_is_back_and_says_when(suspect: Suspect) -> None:
    """The share is what the detector would see; here it is the number of looks so far."""
    before, seen = weights(suspect.model), []

    def share(model: ClassConditionalUNet) -> float:
        seen.append(weights(model))
        return len(seen) / 10

    found = relearned(suspect, IMAGES, 1e-3, (2, 4, 6, 8), share, 0.6, 0)
    assert found.curve == ((2, 0.1), (4, 0.2), (6, 0.3))
    assert found.steps_to_half == 6
    assert same(weights(suspect.model), before)
    assert not same(seen[0], seen[1]), "control: it went on training between two looks"
    never = relearned(suspect, IMAGES, 1e-3, (2, 4), lambda model: 0.0, 0.6, 0)
    assert (never.curve, never.steps_to_half) == (((2, 0.0), (4, 0.0)), None)
