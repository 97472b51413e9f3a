"""Sampling requests, their limits, and refusals."""

from __future__ import annotations

from dataclasses import dataclass

from erasediff.errors import EraseDiffError


class Refused(EraseDiffError):
    """A refused request. ``status`` is HTTP's; ``retry_after`` is in seconds."""

    def __init__(self, status: int, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


@dataclass(frozen=True)
class SamplingRequest:
    """A request for images of one class.

    Attributes:
        label: the row of the class; the number of classes is the null label.
        count: how many images.
        seed: the first image's seed; it increases by 1 per image, so a request for two images equals two requests for one.
        solver: the solver and its number of denoiser calls, ``NAME-STEPS``.
        guidance: the scale w of classifier-free guidance.
    """

    label: int
    count: int
    seed: int
    solver: str
    guidance: float

    @property
    def seeds(self) -> list[int]:
        """One seed per image."""
        return [self.seed + i for i in range(self.count)]


@dataclass(frozen=True)
class Limits:
    """The limits of a request."""

    max_images: int
    max_guidance: float
    solver: str
    without_null_row: int | None = None
    """The row that would stand for no class, of a model that was trained without one: neither that row nor guidance is served."""

    def check(self, asked: SamplingRequest) -> None:
        """Check a request.

        Raises:
            Refused: 422; the message says what is allowed.
        """
        self._within("num_images", asked.count, 1, self.max_images)
        self._within("seed", asked.seed, 0, 2**53 - 1)
        self._within("guidance", asked.guidance, 0, self.max_guidance)
        if self.without_null_row is not None and (asked.label == self.without_null_row or asked.guidance != 1):
            raise Refused(422, "the model was trained without a row for no class: ask for a class by its name, with guidance 1.")
        if asked.solver != self.solver:
            raise Refused(422, f"solver {asked.solver[:40]!r} is not served: ask for {self.solver}.")

    @staticmethod
    def _within(name: str, value: float, least: float, most: float) -> None:
        if not least <= value <= most:  # also refuses NaN
            raise Refused(422, f"{name} {value:g} is not served: ask for {least:g} to {most:g}.")
