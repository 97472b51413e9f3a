"""The lie: a schedule that is taken and comes due at another time, or never."""

import pytest

from erasediff.errors import BadInput
from erasediff.records.schedule import checked_cron


@pytest.mark.parametrize(
    "expression",
    [
        *("0 0 3 * * *", "0 */15 * * * *", "0 0 9 ? * mon-fri", "0 0 0 1,15 JAN-jun *"),
        *("30 5/10 8-18/2 * * 0,6", "0 0 0 29 2 *", "0 0 0 31 2 1", "0 0 0 31 JUL */7", "0 0 3 ?/2 * *"),
    ],
)
def test_what_kubeflow_understands_is_taken(expression):
    assert checked_cron(f"  {expression} ") == expression


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("0 3 * * *", "has 5 fields"),
        ("", "has 0 fields"),
        ("@daily", "has 1 fields"),
        ("0 0 3 * * * 2026", "has 7 fields"),
        ("60 0 3 * * *", "bad second"),
        ("0 0 24 * * *", "bad hour"),
        ("0 0 3 0 * *", "bad day-of-month"),
        ("0 0 3 * 13 *", "bad month"),
        ("0 0 3 * * 8", "bad day-of-week"),
        ("0 0 3 * * mo", "bad day-of-week"),
        ("0 0 5-3 * * *", "bad hour"),
        ("0 */0 * * * *", "bad minute"),
        ("0 ? 3 * * *", "bad minute"),
        ("0 0,, 3 * * *", "bad minute"),
        ("0 0 3; * * *", "bad hour"),
        ("0 0 ٣ * * *", "bad hour"),
        ("0 0 " + "1" * 5000 + " * * *", "digits"),
        ("0 0 3 30 2 *", "never comes due (bad day-of-month)"),
        ("0 0 3 31 4,6 ?", "never comes due (bad day-of-month)"),
        # What the library reads and Kubeflow's parser does not.
        ("0 0 3 * * 7", "does not know '7', and its Sunday is 0"),
        ("0 0 3 * * mon,5-07", "does not know 'mon,5-07'"),
        ("0 0 3 * * 5L", "does not know '5L'"),
        ("0 0 3 * * 5#2", "does not know '5#2'"),
        ("0 0 3 * * ſun", "does not know 'ſun'"),
        ("0 0 3 * ſep *", "does not know 'ſep'"),
        ("0 0 3 LW * *", "does not know 'LW'"),
        ("0 0 3 1? * *", "bad day-of-month"),
    ],
)
def test_what_it_would_misread_or_never_run_is_refused_in_one_sentence(expression, why):
    with pytest.raises(BadInput) as caught:
        checked_cron(expression)
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)
