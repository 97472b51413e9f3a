"""The prompts that test a text-to-image erasure, from a file of the user.

Prompts may name a person. So this document is never written or quoted in errors, and records hold only digests and counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator

from erasediff.errors import BadInput
from erasediff.records.base import Strict, what_is_wrong
from erasediff.records.yaml import load_yaml

PromptText = Annotated[str, Field(max_length=300, pattern=r"^[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]*$")]
"""One line with something on it."""


class ConceptPrompt(Strict):
    """A prompt of the concept, and indirect forms: paraphrases, synonyms, misspellings, other languages."""

    prompt: PromptText
    otherwise: tuple[PromptText, ...] = Field(default=(), max_length=50)


class PromptSet(Strict):
    """Prompts of the concept, and prompts that must still work.

    ``anchors`` describe images without the concept; a zero-shot detector chooses between them and the concept. ``retained`` should be close to the
    concept: the gate compares their images with their prompts.
    """

    concept: tuple[ConceptPrompt, ...] = Field(min_length=2, max_length=2000)
    anchors: tuple[PromptText, ...] = Field(min_length=1, max_length=200)
    retained: tuple[PromptText, ...] = Field(min_length=2, max_length=2000)

    @property
    def asked(self) -> tuple[str, ...]:
        """The concept's own prompts."""
        return tuple(item.prompt for item in self.concept)

    @model_validator(mode="after")
    def _different(self) -> Self:
        otherwise = [other for item in self.concept for other in item.otherwise]
        if _repeated([*self.asked, *otherwise]):
            raise ValueError("'concept' holds the same prompt twice")
        if _repeated(self.retained) or _repeated(self.anchors):
            raise ValueError("'retained' or 'anchors' holds the same prompt twice")
        if _repeated([*{_spoken(p) for p in (*self.asked, *otherwise)}, *{_spoken(p) for p in (*self.retained, *self.anchors)}]):
            raise ValueError("a prompt of 'concept' is also in 'retained' or 'anchors'")
        return self


def _spoken(prompt: str) -> str:
    """A prompt without differences of case and spaces, which tokenizers ignore."""
    return " ".join(prompt.casefold().split())


def _repeated(prompts: Sequence[str]) -> bool:
    return len({_spoken(prompt) for prompt in prompts}) < len(prompts)


_FIELDS = {*PromptSet.model_fields, *ConceptPrompt.model_fields}


def _problem(error: ValidationError) -> str:
    """The first problem and its place, without quoting the document: even an unknown field's name may be a prompt."""
    problem = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) if isinstance(part, int) or part in _FIELDS else "?" for part in problem["loc"])
    return f"field '{where or 'document'}': {what_is_wrong(problem['msg'])}"


def parse_prompts(document: Any, source: str) -> PromptSet:
    """Read a document of prompts; see :class:`PromptSet`.

    Raises:
        BadInput: it does not follow the schema; no prompt is quoted.
    """
    try:
        return PromptSet.model_validate(document)
    except ValidationError as error:
        raise BadInput(f"{source} is not valid: {_problem(error)}; correct it and run again.") from None


def load_prompts(path: Path) -> PromptSet:
    """Read a file of prompts (YAML); see :func:`parse_prompts`.

    Raises:
        BadInput: unreadable, too large, or not following the schema.
    """
    return parse_prompts(load_yaml(path, "the file of prompts", quote=False), f"the file of prompts {path}")
