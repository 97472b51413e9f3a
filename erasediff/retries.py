"""Try a call to a service again while the service is away, in the step that needs it: Kubeflow runs no step again that ended with an exit code."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from erasediff.errors import Outage
from erasediff.progress import say
from erasediff.records.settings import RetrySettings

if TYPE_CHECKING:
    from tenacity import RetryCallState

T = TypeVar("T")
_LONGEST_PAUSE_SECONDS = 60


def retried(call: Callable[[], T]) -> T:
    """The result of a call, which is made again after an outage, for as long as the settings say.

    Args:
        call: it has to be safe to make twice, for the answer to the first may be what was lost.

    Raises:
        Outage: the service was away for the whole time.
    """
    from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

    seconds = RetrySettings.load().minutes * 60
    backoff = wait_random_exponential(multiplier=2, min=1, max=_LONGEST_PAUSE_SECONDS)

    def pause(state: RetryCallState) -> float:
        return min(backoff(state), _left(state, seconds))

    def tell(state: RetryCallState) -> None:
        error = None if state.outcome is None else state.outcome.exception()
        left = _left(state, seconds)
        say(f"{error} Trying again in {state.upcoming_sleep:.0f} s, for {_shown(left)} at most.")

    again = Retrying(retry=retry_if_exception_type(Outage), stop=stop_after_delay(seconds), wait=pause, before_sleep=tell, reraise=True)
    return again(call)


def _left(state: RetryCallState, seconds: float) -> float:
    return max(0.0, seconds - (state.seconds_since_start or 0.0))


def _shown(seconds: float) -> str:
    return f"{seconds / 60:.0f} more minutes" if seconds >= 120 else f"{seconds:.0f} more seconds"
