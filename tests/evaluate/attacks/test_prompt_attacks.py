"""The lies: 'it was asked in other words', of words that are the same to the tokenizer; 'nobody could train on these'."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from erasediff.evaluate.attacks.prompts import SPELLINGS, misspelt, replay
from erasediff.evaluate.seeds import evaluation_key
from erasediff.models.families.stable_diffusion import StableDiffusion
from erasediff.records.prompts import PromptSet
from tests.stable_diffusion import write_model
from tests.tiny_clip import PROMPTS

SET = PromptSet.model_validate(PROMPTS)
WAYS = sorted(SPELLINGS)
KEY, OTHER = evaluation_key(1), evaluation_key(2)


@pytest.mark.parametrize("way", WAYS)
def test_one_letter_is_wrong_and_a_seed_decides_which(way: str) -> None:
    prompt = "a photo of a Cathedral"
    found = {misspelt(prompt, way, seed) for seed in range(50)}
    assert [misspelt(prompt, way, 7) for _ in range(3)] == [misspelt(prompt, way, 7)] * 3
    assert len(found) > 5, "control: seeds differ"
    for wrong in found:
        assert wrong is not None
        changed = {"dropped letter": -1, "doubled letter": 1}.get(way, 0)
        assert len(wrong) == len(prompt) + changed
        assert wrong.casefold() != prompt.casefold(), "to a tokenizer case is nothing"
        assert wrong.startswith("a ")
        assert " of a " in wrong, "words of a letter or two are left as they are"


@pytest.mark.parametrize("way", WAYS)
@given(prompt=st.text(min_size=1, max_size=40), seed=st.integers(0, 2**53))
def test_whatever_is_misspelt_differs_and_says_something(way: str, prompt: str, seed: int) -> None:
    wrong = misspelt(prompt, way, seed)
    assert wrong is None or (wrong != prompt and wrong.strip())


@pytest.mark.parametrize(
    ("prompt", "way"), [("7 × 9", way) for way in WAYS] + [("собор", "homoglyph"), ("собор", "neighbouring key"), ("x", "dropped letter")]
)
def test_what_cannot_be_misspelt_is_nothing_and_not_the_prompt_again(prompt: str, way: str) -> None:
    assert misspelt(prompt, way, 0) is None


def test_a_misspelling_is_another_prompt_to_the_tokenizer(tmp_path: Path) -> None:
    tokenizer = StableDiffusion.load(write_model(tmp_path / "model")).pipeline.tokenizer
    said = tokenizer("a red square").input_ids
    assert tokenizer("A  RED square").input_ids == said, "control: these are one prompt"
    for way in WAYS:
        assert all(tokenizer(misspelt("a red square", way, seed)).input_ids != said for seed in range(20))


def test_a_replay_is_a_list_for_each_prompt_and_belongs_to_its_key() -> None:
    assert replay(SET, "otherwise", KEY).prompts == (("a crimson box", "red"), ("one scarlet tile",), ("ruby tiles",))
    for way in WAYS:
        made = replay(SET, way, KEY)
        assert made == replay(SET, way, KEY)
        assert [len(prompts) for prompts in made.prompts] == [1, 1, 1]
        assert not {prompt for prompts in made.prompts for prompt in prompts} & set(SET.asked)
    assert any(replay(SET, way, KEY) != replay(SET, way, OTHER) for way in WAYS), "nobody knows them before the key is drawn"


def test_a_prompt_that_nothing_can_be_done_to_is_left_out() -> None:
    """So the gate counts too few, and says so."""
    few = PromptSet.model_validate(PROMPTS | {"concept": [{"prompt": "собор"}, {"prompt": "a church", "otherwise": ["a chapel"]}]})
    assert len(replay(few, "otherwise", KEY).prompts) == len(replay(few, "homoglyph", KEY).prompts) == 1
    assert len(replay(few, "doubled letter", KEY).prompts) == 2, "control"
