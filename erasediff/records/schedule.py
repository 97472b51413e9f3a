"""Check Kubeflow's cron expressions, which have six fields, seconds first.

Kubeflow would misread five fields, as in crontab. Here five fields are an error, and so is a date that does not exist.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from cronsim import CronSim, CronSimError

from erasediff.errors import BadInput

EXAMPLE = "0 0 3 * * *"
_MONTH_DAY, _MONTH, _WEEKDAY = 3, 4, 5
_ASCII = re.ASCII | re.IGNORECASE
_UNKNOWN = {  # to Kubeflow: cronsim reads L and W among days, # and L behind weekdays, and 7 as Sunday
    _MONTH_DAY: re.compile(r"[^\d*,/-]", _ASCII),
    _MONTH: re.compile(r"[^\da-z*,/-]", _ASCII),
    _WEEKDAY: re.compile(r"[^\da-km-z*,/-]|(^|[,-])0*7", _ASCII),
}


def checked_cron(expression: str) -> str:
    """A cron expression that Kubeflow understands, with single spaces.

    Raises:
        BadInput: it does not have six valid fields, or never comes due.
    """
    texts = expression.split()
    if len(texts) != 6:
        raise BadInput(f"cron {expression!r} has {len(texts)} fields, and Kubeflow's has six, seconds first: write for example '{EXAMPLE}'.")
    fields = [text.replace("?", "*") if place in (_MONTH_DAY, _WEEKDAY) else text for place, text in enumerate(texts)]
    for place, unknown in _UNKNOWN.items():
        if unknown.search(fields[place]):
            problem = f"Kubeflow does not know {texts[place]!r}, and its Sunday is 0"
            raise BadInput(f"cron {expression!r} is not valid: {problem}; write for example '{EXAMPLE}'.")
    try:
        CronSim(" ".join(fields), datetime.now(UTC))
    except (CronSimError, ValueError) as error:  # ValueError: a number of 5000 digits
        raise BadInput(f"cron {expression!r} is not valid, or never comes due ({str(error).lower()}): write for example '{EXAMPLE}'.") from None
    return " ".join(texts)
