"""The lie: a schedule that is taken and comes due at another time, or never."""

import pytest

from erasediff.errors import BadInput
from erasediff.records.schedule import checked_cron


@pytest.mark.parametrize(
    "expression",
    ["0 0 3 * * *", "0 */15 * * * *", "0 0 9 ? * mon-fri", "0 0 0 1,15 JAN-jun *", "30 5/10 8-18/2 * * 0,6", "0 0 0 29 2 *", "0 0 0 31 2 1"],
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
        ("60 0 3 * * *", "second '60' is not within 0 to 59"),
        ("0 0 24 * * *", "hour '24'"),
        ("0 0 3 0 * *", "day of the month '0'"),
        ("0 0 3 * 13 *", "month '13'"),
        ("0 0 3 * * 7", "day of the week '7'"),
        ("0 0 3 * * mo", "day of the week 'mo'"),
        ("0 0 5-3 * * *", "hour '5-3' is empty"),
        ("0 */0 * * * *", "minute '*/0' is empty"),
        ("0 ? 3 * * *", "minute '?' is not understood"),
        ("0 0,, 3 * * *", "minute '' is not understood"),
        ("0 0 3; * * *", "hour '3;' is not understood"),
        ("0 0 ٣ * * *", "hour '٣' is not understood"),
        ("0 0 3 30 2 *", "never comes due"),
        ("0 0 3 31 4,6 ?", "never comes due"),
    ],
)
def test_what_it_would_misread_or_never_run_is_refused_in_one_sentence(expression, why):
    with pytest.raises(BadInput) as caught:
        checked_cron(expression)
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)
