"""When a schedule comes due: Kubeflow's cron, which has six fields, seconds first.

Its parser's first field is seconds, so an expression of five fields, as crontab has them, cannot mean what it says. Here five are
an error, and so is a date that no calendar has.
"""

from __future__ import annotations

import re
from calendar import monthrange
from dataclasses import dataclass

from erasediff.errors import BadInput

EXAMPLE = "0 0 3 * * *"
_LEAP_YEAR = 2024
_PART = re.compile(r"(?P<first>\*|\?|\w+)(-(?P<last>\w+))?(/(?P<step>\d{1,4}))?", re.ASCII)


@dataclass(frozen=True)
class _Field:
    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()

    def number(self, text: str) -> int:
        lowered = text.lower()
        value = self.names.index(lowered) + self.low if lowered in self.names else int(text) if text.isdecimal() and len(text) < 5 else -1
        if not self.low <= value <= self.high:
            raise ValueError(f"{self.name} {text!r} is not within {self.low} to {self.high}")
        return value

    def values(self, text: str) -> set[int]:
        """What one field admits.

        Raises:
            ValueError: what is wrong with it.
        """
        found: set[int] = set()
        for part in text.split(","):
            match = _PART.fullmatch(part)
            if match is None:
                raise ValueError(f"{self.name} {part!r} is not understood")
            first, last, step = match["first"], match["last"], match["step"]
            if first in "*?":
                if last is not None or (first == "?" and self.name not in ("day of the month", "day of the week")):
                    raise ValueError(f"{self.name} {part!r} is not understood")
                low, high = self.low, self.high
            else:
                low = self.number(first)
                high = self.number(last) if last is not None else self.high if step is not None else low
            if high < low or (step is not None and int(step) < 1):
                raise ValueError(f"{self.name} {part!r} is empty")
            found |= set(range(low, high + 1, int(step or 1)))
        return found


_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS = (
    _Field("second", 0, 59),
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of the month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of the week", 0, 6, _DAYS),
)


def checked_cron(expression: str) -> str:
    """A cron expression that Kubeflow will understand as it was meant, with single spaces.

    Raises:
        BadInput: it has not six fields, one of them is not understood, or it never comes due.
    """
    texts = expression.split()
    if len(texts) != len(_FIELDS):
        raise BadInput(f"cron {expression!r} has {len(texts)} fields, and Kubeflow's has six, seconds first: write for example '{EXAMPLE}'.")
    try:
        *_, days, months, _ = (field.values(text) for field, text in zip(_FIELDS, texts, strict=True))
    except ValueError as error:
        raise BadInput(f"cron {expression!r} is not valid: {error}; write for example '{EXAMPLE}'.") from None
    any_weekday = texts[5][0] in "*?"
    if any_weekday and not any(day <= monthrange(_LEAP_YEAR, month)[1] for day in days for month in months):
        raise BadInput(f"cron {expression!r} never comes due: no month that it names has that day.")
    return " ".join(texts)
