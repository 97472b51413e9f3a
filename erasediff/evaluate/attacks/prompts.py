"""Ask in other words: an erasure is trained on a few prompts, and nobody is bound to type those.

What a concept's prompts are otherwise called is said by the file of prompts; misspellings are made here. One letter is changed,
of a word of four letters or more where there is one, since a misspelt article hides nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from erasediff.evaluate.seeds import check_seeds
from erasediff.records.prompt_policy import ReplayName
from erasediff.records.prompts import PromptSet

_KEY_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_HOMOGLYPHS = dict(zip("aceijopsxy", "асеіјорѕху", strict=True))
"""Latin letters and the Cyrillic ones that look the same: to a tokenizer that works on bytes they are others."""
_LONG = re.compile(r"[^\W\d_]{4,}")


def _neighbours() -> dict[str, str]:
    """The keys beside each key in its row of a QWERTY keyboard."""
    return {key: row[max(i - 1, 0) : i] + row[i + 1 : i + 2] for row in _KEY_ROWS for i, key in enumerate(row)}


_BESIDE = _neighbours()


def _beside(letter: str, rng: np.random.Generator) -> str:
    keys = _BESIDE[letter.lower()]
    return keys[int(rng.integers(len(keys)))]


Spelling = Callable[[str, np.random.Generator], str]
SPELLINGS: dict[ReplayName, tuple[Callable[[str], bool], Spelling]] = {
    "neighbouring key": (lambda letter: letter.lower() in _BESIDE, _beside),
    "dropped letter": (str.isalpha, lambda letter, rng: ""),
    "doubled letter": (str.isalpha, lambda letter, rng: letter * 2),
    "homoglyph": (lambda letter: letter.lower() in _HOMOGLYPHS, lambda letter, rng: _HOMOGLYPHS[letter.lower()]),
}
"""For each way to misspell: which letters it can be done to, and what they become."""


def misspelt(prompt: str, way: ReplayName, seed: int) -> str | None:
    """A prompt with one letter wrong; ``None`` where no letter can be so, or nothing would be left.

    Args:
        prompt: what is meant.
        way: one of :data:`SPELLINGS`.
        seed: the same seed makes the same mistake.
    """
    fits, change = SPELLINGS[way]
    rng = np.random.default_rng(seed)
    long = [place for word in _LONG.finditer(prompt) for place in range(word.start(), word.end()) if fits(prompt[place])]
    places = long or [place for place, letter in enumerate(prompt) if fits(letter)]
    if not places:
        return None
    place = places[int(rng.integers(len(places)))]
    wrong = prompt[:place] + change(prompt[place], rng) + prompt[place + 1 :]
    return wrong if wrong.strip() else None


@dataclass(frozen=True)
class Replay:
    """One rewriting: for each prompt of the concept that can be rewritten so, the prompts to sample."""

    name: ReplayName
    prompts: tuple[tuple[str, ...], ...]


def replay(prompts: PromptSet, way: ReplayName, key: bytes) -> Replay:
    """The concept's prompts, rewritten.

    A prompt that nothing can be done to is left out: the gate counts how many there are.

    Args:
        prompts: the concept, and what else it is called.
        way: which of the ways.
        key: of the evaluation seeds, so that nobody can train on the misspellings before.
    """
    if way == "otherwise":
        return Replay(way, tuple(item.otherwise for item in prompts.concept if item.otherwise))
    seeds = check_seeds(key, f"F3 {way}", len(prompts.concept))
    wrong = (misspelt(prompt, way, seed) for prompt, seed in zip(prompts.asked, seeds, strict=True))
    return Replay(way, tuple((prompt,) for prompt in wrong if prompt is not None))
