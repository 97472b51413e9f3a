"""Check every request against the serving rules, which change while the server runs."""

from __future__ import annotations

from dataclasses import dataclass

from erasediff.errors import EraseDiffError
from erasediff.records.core import ServedModel
from erasediff.records.serving import ServingRules
from erasediff.serve.admission import check_servable
from erasediff.serve.request import Refused, SamplingRequest
from erasediff.serve.revocations import RulesSource


@dataclass(frozen=True)
class ServingGuard:
    """A model and its serving rules."""

    model: ServedModel
    rules: RulesSource

    def refusal(self) -> str | None:
        """Why the model may not be served at all, or ``None``."""
        try:
            check_servable(self.model, self.rules.now())
        except EraseDiffError as error:
            return str(error)
        return None

    def suppressed(self) -> tuple[str, ...]:
        """The classes of the model that are suppressed; all of them if the rules cannot be read."""
        try:
            suppressed = self.rules.now().suppress
        except EraseDiffError:
            return self.model.class_names
        return tuple(name for name in self.model.class_names if name in suppressed)

    def check(self, asked: SamplingRequest) -> None:
        """Check a request.

        Raises:
            Refused: 503 if the model may not be served, 403 if the request is suppressed.
        """
        try:
            rules = self.rules.now()
            check_servable(self.model, rules)
        except EraseDiffError as error:
            raise Refused(503, str(error)) from None
        check_suppressed(asked, self.model, rules)


def check_suppressed(asked: SamplingRequest, model: ServedModel, rules: ServingRules) -> None:
    """Refuse a suppressed class, and every request that may return a suppressed class that the model still knows.

    The null label may return any class, and guidance below 1 mixes the null label in (Ho and Salimans 2022, eq. 6).

    Raises:
        Refused: 403.
    """
    name = model.class_names[asked.label] if asked.label < model.classes else None
    if name in rules.suppress:
        raise Refused(403, f"class {name!r} is suppressed: request another one.")
    known = set(rules.suppress) & set(model.class_names) - set(model.forgotten)
    if known and (name is None or not asked.guidance >= 1):
        raise Refused(403, "the model still knows a suppressed class: request another class by its name, with guidance of 1 or more.")
