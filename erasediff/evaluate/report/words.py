"""Format numbers for the report."""

from __future__ import annotations

from erasediff.records.core import Unit


def number(value: float, digits: int) -> str:
    """Write a number with at most ``digits`` decimals and a real minus sign."""
    text = f"{value:,.{digits}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return ("0" if text == "-0" else text).replace("-", "\N{MINUS SIGN}")


def percent(share: float, digits: int = 2) -> str:
    """Write a share as a percentage: ``0.0077`` is ``0.77 %``."""
    return f"{number(100 * share, digits)}\N{NO-BREAK SPACE}%"


def signed(value: float, digits: int, unit: str) -> str:
    """Write a change with its sign."""
    text = number(value, digits)
    return f"{'' if value <= 0 or text == '0' else '+'}{text}\N{NO-BREAK SPACE}{unit}"


def scientific(value: float) -> str:
    """Write a very small or very large number as a power of ten, in place of ``4.1e-05``."""
    mantissa, _, exponent = f"{value:.2g}".partition("e")
    raised = str(int(exponent or 0)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{mantissa} \N{MULTIPLICATION SIGN} 10{raised}".replace(" ", "\N{NO-BREAK SPACE}") if exponent else mantissa


def quantity(value: float | None, unit: Unit) -> str:
    """Write a check's number in its unit."""
    if value is None:
        return "not measured"
    if unit == "number":
        return scientific(value)
    if unit == "share":
        return percent(value)
    return signed(100 * value, 2, "%" if unit == "relative" else "pp")


def duration(seconds: float) -> str:
    """Write a duration as a person says it."""
    if seconds < 60:
        return f"{seconds:.1f}\N{NO-BREAK SPACE}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{hours} h"] * (hours > 0) + [f"{minutes} min"] * (minutes > 0) + [f"{rest} s"] * (rest > 0 and not hours)
    return " ".join(parts).replace(" ", "\N{NO-BREAK SPACE}")
