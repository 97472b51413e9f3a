"""The lie: 'this image shows what the model does with this label and seed', while it shows its neighbours in the batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from erasediff.models.denoiser import to_bytes, to_unit
from erasediff.models.families.unet import UNetDenoiser
from erasediff.models.process import build_scheduler, squared_cosine
from erasediff.models.sampler import ImageNoise, Source, Start, guided, sample
from erasediff.records.config import SamplerConfig
from tests.small_models import model_of

LABELS = torch.arange(8)
SEEDS = [11, 22, 33, 44, 55, 66, 77, 88]
SCHEDULERS = pytest.mark.parametrize("name", ["ddim", "dpm-solver++", "unipc"])


class Counting:
    """A real denoiser that counts its calls and the rows in them."""

    def __init__(self, denoiser) -> None:
        self.denoiser, self.rows = denoiser, []

    def __call__(self, noised: Tensor, timesteps: Tensor, labels: Tensor) -> Tensor:
        self.rows.append(len(noised))
        return self.denoiser(noised, timesteps, labels)


def source_of(denoiser, scheduler, start: Start | None = None) -> Source:
    return Source(denoiser, scheduler, (1, 8, 8), 10, torch.device("cpu"), start=start)


def draw(unet, labels=LABELS, seeds=SEEDS, name="dpm-solver++", guidance=1.0, steps=5) -> Tensor:
    scheduler = build_scheduler(SamplerConfig(scheduler=name), squared_cosine(1000))
    return sample(source_of(UNetDenoiser(unet), scheduler), labels, seeds, steps, guidance)


def levels(left: Tensor, right: Tensor) -> int:
    return int((left.int() - right.int()).abs().max())


@SCHEDULERS
def test_an_image_depends_on_its_own_seed_and_label_alone(tiny_unet, name: str) -> None:
    """Alone, in a batch, in another order: the same image.

    Equal to one grey level and not to the bit, because the matrix kernels block a batch of 8 otherwise than a batch of 1:
    float32 sums in another order differ in their last bits, and rounding to bytes can turn that into one level.
    """
    unet = tiny_unet()
    together = draw(unet, name=name)
    alone = torch.cat([draw(unet, LABELS[i : i + 1], SEEDS[i : i + 1], name) for i in range(8)])
    assert levels(together, alone) <= 1
    order = torch.tensor([3, 1, 7, 0, 2, 6, 5, 4])
    assert levels(draw(unet, LABELS[order], [SEEDS[i] for i in order], name), together[order]) <= 1
    neighbours = torch.where(LABELS == 4, LABELS, 9)
    assert levels(draw(unet, neighbours, [55 if i == 4 else i for i in range(8)], name)[4:5], together[4:5]) <= 1


@SCHEDULERS
def test_the_same_batch_gives_the_same_bytes(tiny_unet, name: str) -> None:
    """Also from one scheduler object used twice: multi-step solvers keep state, and threads share the object."""
    unet, scheduler = tiny_unet(), build_scheduler(SamplerConfig(scheduler=name), squared_cosine(1000))
    first, second = (sample(source_of(UNetDenoiser(unet), scheduler), LABELS, SEEDS, 5) for _ in range(2))
    assert torch.equal(first, second)
    assert scheduler.num_inference_steps is None, "sampling works on a copy"
    assert (first.dtype, first.shape) == (torch.uint8, (8, 8, 8, 1))


def test_control_another_seed_or_label_gives_another_image(tiny_unet) -> None:
    unet = tiny_unet()
    with torch.no_grad():
        unet.class_embedding.weight.mul_(20)  # random weights hardly look at the label
    images = draw(unet)
    assert all(levels(images[i : i + 1], images[j : j + 1]) > 1 for i in range(8) for j in range(i))
    other = draw(unet, labels=LABELS.flip(0))
    assert all(levels(images[i : i + 1], other[i : i + 1]) > 1 for i in range(8))


def test_control_one_generator_for_the_batch_would_depend_on_the_neighbours() -> None:
    """The shape of the noise is not what makes an image independent of its batch: its own generator is."""

    def shared(count: int) -> Tensor:
        return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(1))

    assert not torch.equal(shared(8)[4:], shared(4))
    all_images, some = ImageNoise(SEEDS, (1, 8, 8)), ImageNoise(SEEDS[4:], (1, 8, 8))
    assert torch.equal(all_images.draw()[4:], some.draw())
    assert torch.equal(all_images.draw()[4:], some.draw()), "and so at every step of an ancestral sampler"


def test_sampling_leaves_the_global_generator_alone(tiny_unet) -> None:
    before = torch.get_rng_state()
    draw(tiny_unet())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("guidance", "rows"), [(1.0, 8), (2.0, 16), (0.0, 16)])
def test_guidance_one_asks_once(tiny_unet, guidance: float, rows: int) -> None:
    """What guidance costs: nothing at 1, twice the rows elsewhere, always one call a step."""
    counting = Counting(UNetDenoiser(tiny_unet()))
    scheduler = build_scheduler(SamplerConfig(), squared_cosine(1000))
    sample(source_of(counting, scheduler), LABELS, SEEDS, 4, guidance)
    assert counting.rows == [rows] * 4


@pytest.mark.parametrize("w", [0.0, 0.5, 1.0, 3.0])
def test_guidance_is_the_formula_of_the_paper(w: float) -> None:
    """eps_null + w (eps_c - eps_null) with an affine denoiser whose answer is known for every label."""
    offsets = torch.tensor([0.5, -2.0, 7.0])  # labels 0 and 1, and null

    def affine(noised: Tensor, timesteps: Tensor, labels: Tensor) -> Tensor:
        return 3 * noised + offsets[labels].view(-1, 1, 1, 1) + timesteps.view(-1, 1, 1, 1)

    noised, labels = torch.randn(2, 1, 2, 2), torch.tensor([0, 1])
    found = guided(affine, noised, torch.tensor([5, 6]), labels, null_row=2, scale=w)
    shift = 7.0 + w * (offsets[labels] - 7.0) + torch.tensor([5, 6])
    assert torch.allclose(found, 3 * noised + shift.view(-1, 1, 1, 1), atol=1e-5)


def test_the_pipeline_samples_like_the_sampler(tiny_unet) -> None:
    assert torch.equal(model_of(tiny_unet()).pipeline()(LABELS, SEEDS, steps=5, guidance_scale=2.0), draw(tiny_unet(), guidance=2.0))


def test_bytes_survive_the_unit_range() -> None:
    every = torch.arange(256, dtype=torch.uint8).reshape(4, 8, 8, 1)
    unit = to_unit(every)
    assert (unit.min(), unit.max()) == (-1, 1)
    assert torch.equal(to_bytes(unit), every)
    assert to_bytes(torch.full((1, 1, 1, 1), 9.0)).item() == 255


@SCHEDULERS
def test_a_start_under_little_noise_is_kept_and_under_all_of_it_forgotten(tiny_unet, name: str) -> None:
    """The lie: 'it completed the picture', of a sampler that never saw the picture, or that noised it to another level than it removes."""
    unet, images = tiny_unet(), torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1

    class Knowing:
        """A denoiser that knows the picture: it takes away exactly the noise that was added."""

        def __call__(self, noised: Tensor, timesteps: Tensor, labels: Tensor) -> Tensor:
            signal = scheduler.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
            return (noised - signal.sqrt() * images) / (1 - signal).sqrt()

    scheduler = build_scheduler(SamplerConfig(scheduler=name), squared_cosine(1000))
    kept = sample(source_of(Knowing(), scheduler, Start(images, 0.5)), LABELS, SEEDS, 10)
    assert levels(kept, to_bytes(images)) <= 1
    counted = Counting(UNetDenoiser(unet))
    for strength, calls in ((0.1, 1), (0.5, 5), (1.0, 10)):
        counted.rows.clear()
        sample(source_of(counted, scheduler, Start(images, strength)), LABELS, SEEDS, 10)
        assert len(counted.rows) == calls
    whole, other = (sample(source_of(UNetDenoiser(unet), scheduler, Start(x, 1.0)), LABELS, SEEDS, 10) for x in (images, -images))
    assert levels(whole, other) <= 3, "at full strength next to nothing of the picture is left"
    half, other_half = (sample(source_of(UNetDenoiser(unet), scheduler, Start(x, 0.3)), LABELS, SEEDS, 10) for x in (images, -images))
    assert levels(half, other_half) > 30, "control: with less noise it is"
