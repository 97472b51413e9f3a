"""What may be had of a model right now: asked of the rules at every request, since they change while it serves."""

from __future__ import annotations

from dataclasses import dataclass

from erasediff.errors import EraseDiffError
from erasediff.records.nouns import ServedModel
from erasediff.records.serving import ServingRules
from erasediff.serve.admission import check_servable
from erasediff.serve.request import Refused, SamplingRequest
from erasediff.serve.revocations import RulesSource


@dataclass(frozen=True)
class ServingGuard:
    """A model, the rules above it, and what follows from both, now."""

    model: ServedModel
    rules: RulesSource

    def refusal(self) -> str | None:
        """Why nothing at all is served, or ``None``."""
        try:
            check_servable(self.model, self.rules.now())
        except EraseDiffError as error:
            return str(error)
        return None

    def suppressed(self) -> tuple[int, ...]:
        """Labels that nobody gets; all of them where the rules cannot be read."""
        try:
            return tuple(sorted(set(self.rules.now().suppress)))
        except EraseDiffError:
            return tuple(range(self.model.classes))

    def check(self, asked: SamplingRequest) -> None:
        """Let a request pass.

        Raises:
            Refused: 503 where the model may not be served, 403 where what is asked for is suppressed.
        """
        try:
            rules = self.rules.now()
            check_servable(self.model, rules)
        except EraseDiffError as error:
            raise Refused(503, str(error)) from None
        check_suppressed(asked, self.model, rules)


def check_suppressed(asked: SamplingRequest, model: ServedModel, rules: ServingRules) -> None:
    """Refuse a suppressed label, and every question that the model may answer with one that it has not forgotten.

    The null label may draw any class, and guidance below 1 mixes it in: at 0 it is all there is (Ho and Salimans 2022, eq. 6).

    Raises:
        Refused: 403.
    """
    if asked.label in rules.suppress:
        raise Refused(403, f"label {asked.label} is suppressed: ask for another.")
    known = set(rules.suppress) & set(range(model.classes)) - set(model.forgotten)
    if known and (asked.label >= model.classes or not asked.guidance >= 1):
        raise Refused(403, "a label is suppressed that the model still knows: ask for another label by its number, with guidance of 1 or more.")
