"""What a client may ask for, and the sentence it gets otherwise."""

from __future__ import annotations

from dataclasses import dataclass

from erasediff.errors import EraseDiffError


class Refused(EraseDiffError):
    """A request that is not served. ``status`` is HTTP's, ``retry_after`` the seconds until it may be worth asking again."""

    def __init__(self, status: int, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


@dataclass(frozen=True)
class SamplingRequest:
    """Images of one label.

    Attributes:
        label: the class; the number of classes is the null label.
        count: how many images.
        seed: of the first image; the next has the next, so that two requests for one image each are one for two.
        solver: a solver and its number of denoiser calls, as ``NAME-STEPS``.
        guidance: w of classifier-free guidance.
    """

    label: int
    count: int
    seed: int
    solver: str
    guidance: float

    @property
    def seeds(self) -> list[int]:
        """One an image."""
        return [self.seed + i for i in range(self.count)]


@dataclass(frozen=True)
class Limits:
    """What is served at most."""

    classes: int
    max_images: int
    max_guidance: float
    solver: str

    def check(self, asked: SamplingRequest) -> None:
        """Let a request pass.

        Raises:
            Refused: 422 and a sentence that says what may be asked for.
        """
        self._within("label", asked.label, 0, self.classes)
        self._within("num_images", asked.count, 1, self.max_images)
        self._within("seed", asked.seed, 0, 2**53 - 1)
        self._within("guidance", asked.guidance, 0, self.max_guidance)
        if asked.solver != self.solver:
            raise Refused(422, f"solver {asked.solver[:40]!r} is not served: ask for {self.solver}.")

    @staticmethod
    def _within(name: str, value: float, least: float, most: float) -> None:
        if not least <= value <= most:  # NaN is not
            raise Refused(422, f"{name} {value:g} is not served: ask for {least:g} to {most:g}.")
