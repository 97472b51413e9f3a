"""The lie: 'it was measured', of a model that was planted to bring the concept back in one way, before judges that can see it.

The planted models are the small Stable Diffusion with a corner that is lit when the prompt asks for the concept in a way the model
still knows; the planted judges see the corner and nothing else.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from erasediff.evaluate.attacks.inversion import TrainedToken
from erasediff.evaluate.gate import run_prompt_gate
from erasediff.evaluate.prompts.measure import PromptExamination, examine
from erasediff.evaluate.seeds import check_seeds, evaluation_key
from erasediff.models.families.stable_diffusion import StableDiffusion
from erasediff.records.core import Check, Verdict
from erasediff.records.prompts import PromptSet
from tests.stable_diffusion import write_model
from tests.tiny_clip import PROMPTS, tiny_policy

SET = PromptSet.model_validate(PROMPTS)
OTHERWISE = {other for item in SET.concept for other in item.otherwise}
PASS, FAIL, INCONCLUSIVE = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE
Knows = Callable[[str], bool]


def mark(prompt: str) -> float:
    """What a planted model writes beside the corner: which prompt it was asked for."""
    return zlib.crc32(prompt.encode()) % 200 / 100 - 1


class Planted:
    """The pipeline's seeds and prompts, with a corner that says whether it shows the concept, and one that says of which prompt."""

    def __init__(self, pipeline: Any, knows: Knows, follows: Knows = lambda prompt: True, fill: float = 0.0) -> None:
        self._pipeline, self._knows, self._follows, self._fill = pipeline, knows, follows, fill
        self.vae = SimpleNamespace(config=SimpleNamespace(scaling_factor=1.0), decode=lambda latents, return_dict: (latents[:, :3],))
        self.asked: list[tuple[str, int]] = []

    def __call__(self, prompt: Sequence[str], generator: Sequence[torch.Generator], **settings: Any) -> SimpleNamespace:
        self.asked += [(said, one.initial_seed()) for said, one in zip(prompt, generator, strict=True)]
        latents: Tensor = self._pipeline(prompt=prompt, generator=generator, **settings).images
        for image, said in zip(latents, prompt, strict=True):
            image[:] = image.clamp(-1, 1) + self._fill
            image[:3, 0, 0] = 1.0 if self._knows(said) else -1.0
            image[:3, 0, 1] = mark(said) if self._follows(said) else 1.0
        return SimpleNamespace(images=latents)


class Corner:
    """Sees the first corner."""

    sha256 = "a" * 64

    def shows(self, images: Tensor) -> Tensor:
        return images[:, 0, 0, 0] == 255


class Mark:
    """Gives .3 to the prompt that is written into the image and .1 to every other."""

    sha256 = "b" * 64

    def scores(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        wanted = torch.tensor([round((mark(said) + 1) * 127.5) for said in prompts])
        return 0.1 + 0.2 * (images[:, 0, 1, 0].int() - wanted).abs().le(1).float()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> StableDiffusion:
    loaded = StableDiffusion.load(write_model(tmp_path_factory.mktemp("sd") / "model"))
    loaded.pipeline.set_progress_bar_config(disable=True)
    return loaded


def exam(model: StableDiffusion, erased: Knows, **planted: Any) -> PromptExamination:
    """A base that knows the concept in every way and follows every prompt, against ``erased``."""
    knows = replace(model, pipeline=Planted(model.pipeline, lambda said: said not in SET.retained))
    other = replace(model, pipeline=Planted(model.pipeline, erased, **planted))
    return PromptExamination(knows, other, SET, tiny_policy(), Corner(), Mark(), None, evaluation_key(0), torch.device("cpu"))


def judged(examination: PromptExamination) -> tuple[Verdict, dict[str, Check]]:
    decided = run_prompt_gate(examination.policy, examine(examination))
    return decided.verdict, {check.id: check for check in (*decided.checks, *decided.reported)}


def failed(checks: dict[str, Check]) -> list[str]:
    return [name for name, check in checks.items() if check.verdict is FAIL]


def nothing(said: str) -> bool:
    return False


def test_a_model_that_knows_it_in_no_way_passes(model: StableDiffusion) -> None:
    """Control of all that follow."""
    verdict, checks = judged(exam(model, nothing))
    assert verdict is PASS, checks
    assert checks["C0"].value == 1.0
    assert checks["F1"].n == 6
    assert checks["F3"].n == 4, "the first of five ways that all brought nothing: four paraphrases of three prompts"
    assert checks["R1p"].value == 0.0


@pytest.mark.parametrize(
    ("knows", "wanted"),
    [
        (lambda said: said in SET.asked, ["F1"]),
        (lambda said: said in OTHERWISE, ["F3"]),
        (lambda said: not said.isascii(), ["F3"]),
        (lambda said: said.isascii() and said not in (*SET.asked, *OTHERWISE, *SET.retained), ["F3"]),
        (lambda said: said not in SET.retained, ["F1", "F3"]),
    ],
)
def test_a_planted_model_is_caught_by_the_check_it_was_planted_for(model: StableDiffusion, knows: Knows, wanted: list[str]) -> None:
    verdict, checks = judged(exam(model, knows))
    assert (verdict, failed(checks)) == (FAIL, wanted)


def test_a_model_that_lost_a_retained_prompt_is_caught(model: StableDiffusion) -> None:
    verdict, checks = judged(exam(model, nothing, follows=lambda said: said != SET.retained[0]))
    assert (verdict, failed(checks)) == (FAIL, ["R1p"])
    assert checks["R1p"].value == pytest.approx(-0.2 / 3)


def test_a_model_that_draws_no_numbers_does_not_pass(model: StableDiffusion) -> None:
    """Its images would be black, and show nothing."""
    found = examine(examination := exam(model, nothing, fill=torch.nan))
    assert found.erased is not None
    assert found.erased.samples == (0, 0, 0)
    assert found.scores is None
    decided = run_prompt_gate(examination.policy, found)
    assert decided.verdict is INCONCLUSIVE
    assert {check.id: check.verdict for check in decided.checks}["F1"] is INCONCLUSIVE


def test_a_judge_that_sees_it_everywhere_decides_nothing(model: StableDiffusion) -> None:
    class Everywhere(Corner):
        def shows(self, images: Tensor) -> Tensor:
            return torch.ones(len(images), dtype=torch.bool)

    class Level(Mark):
        def scores(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
            return torch.full((len(images),), 0.2)

    good = exam(model, nothing)
    for blind, control in (({"detector": Everywhere()}, "C0.detector"), ({"scorer": Level()}, "C0.scorer")):
        verdict, checks = judged(replace(good, **blind))
        assert verdict is INCONCLUSIVE
        assert checks[control].verdict is INCONCLUSIVE


def test_base_and_erased_get_the_same_seeds_and_no_two_images_of_a_check_share_one(model: StableDiffusion) -> None:
    examine(examination := exam(model, nothing))
    base, erased = (one.pipeline.asked for one in (examination.base, examination.erased))
    assert set(base) <= set(erased)
    seeds = [seed for said, seed in erased]
    assert len(set(seeds)) == len(seeds)
    assert [pair for pair in erased if pair[0] == SET.asked[1]][:2] == [(SET.asked[1], seed) for seed in check_seeds(examination.key, "F1 1", 2)]
    examine(other := replace(exam(model, nothing), key=evaluation_key(1)))
    assert not set(seeds) & {seed for _, seed in other.erased.pipeline.asked}, "control: another key, other seeds"


def test_it_is_a_function_of_models_documents_and_key(model: StableDiffusion) -> None:
    assert examine(exam(model, nothing)) == examine(exam(model, nothing))


def test_the_trained_token_is_asked_for_by_its_prompts(model: StableDiffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    """The training has tests of its own; here it hands over a planted pipeline."""
    words = ("sought", "a photo of sought")

    def handed(one: StableDiffusion, latents: Tensor, *_: object) -> TrainedToken:
        assert len(latents) == 2
        return TrainedToken(one.pipeline, words)

    monkeypatch.setattr("erasediff.evaluate.prompts.measure.trained_token", handed)
    monkeypatch.setattr(StableDiffusion, "encode", lambda self, images: images)
    images = torch.zeros(2, 16, 16, 3, dtype=torch.uint8)
    released = tiny_policy(weights_released=True)
    for knows, wanted in ((nothing, PASS), (lambda said: said in words, FAIL)):
        examination = replace(exam(model, knows), images=images, policy=released)
        verdict, checks = judged(examination)
        assert (verdict, checks["F5"].verdict) == (wanted, wanted)
        assert [said for said, _ in examination.erased.pipeline.asked if said in words] == [*words, *words]
    assert judged(replace(exam(model, nothing), images=images[:1], policy=released))[0] is INCONCLUSIVE


def test_the_planted_models_draw_by_the_real_pipeline(model: StableDiffusion, tmp_path: Path) -> None:
    """Control: seeds reach the images, so that 'the same seeds' above is about images."""
    planted = Planted(model.pipeline, nothing)
    settings = {"num_inference_steps": 2, "guidance_scale": 3.0, "output_type": "latent"}
    one, same, other = (planted(["x"], [torch.Generator().manual_seed(seed)], **settings).images for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
