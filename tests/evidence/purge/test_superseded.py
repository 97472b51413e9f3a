"""The lies: 'it knows nothing', of a build that does; 'nobody needs it', of one that serves."""

from __future__ import annotations

import pytest

from erasediff.evidence.purge.superseded import Build, RetentionRules, decide
from erasediff.records.base import Pointer
from erasediff.records.core import ModelRecord
from tests.digits import DIGITS

LABEL, EARLIER = "2", "1"


def build(number: int | None, epoch: int, *forgotten: str, passed: bool = True, labels: tuple[str, ...] = (), dataset: str = "numbers") -> Build:
    weights = f"{number or 99:064x}"
    model = ModelRecord(
        dataset=dataset, class_names=DIGITS[:4], forgotten=forgotten, epoch=epoch, weights=Pointer(uri="w", sha256=weights), folder_sha256="0" * 64
    )
    return Build(model, f"{1000 + (number or 99):064x}", number, f"run{number}", passed, frozenset(labels))


def gone(*builds: Build, **changes: object) -> list[int | None]:
    fields: dict[str, object] = {"dataset": "numbers", "label": LABEL, "champion": 9, "epoch": 2, "warm": 2}
    return sorted(b.number or 0 for b in decide(builds, RetentionRules(**(fields | changes))).gone)  # type: ignore[arg-type]


CHAMPION = build(9, 2, EARLIER, LABEL)


def test_everything_that_knows_the_class_goes_and_the_champion_never() -> None:
    assert gone(build(1, 0), build(2, 1, EARLIER), CHAMPION) == [1, 2]
    assert gone(CHAMPION, warm=1) == []
    assert gone(build(9, 2, EARLIER)) == [], "even a champion that knows it is none of a pure decision's to delete"


@pytest.mark.parametrize(("warm", "expected"), [(1, [6, 7, 8]), (2, [6, 7]), (3, [6]), (9, [])])
def test_the_newest_erased_builds_stay_warm(warm: int, expected: list[int]) -> None:
    others = [build(number, 2, EARLIER, LABEL) for number in (6, 7, 8)]
    assert gone(*others, CHAMPION, warm=warm) == expected


def test_a_champion_that_was_rolled_back_to_counts_once() -> None:
    newer = build(10, 2, EARLIER, LABEL)
    assert gone(CHAMPION, newer, warm=1) == [10]
    assert gone(CHAMPION, newer, warm=2) == []


def test_an_attempt_that_was_not_registered_goes_though_it_says_that_it_has_forgotten() -> None:
    assert gone(CHAMPION, build(None, 2, EARLIER, LABEL, labels=(LABEL,))) == [0]
    assert gone(CHAMPION, build(None, 3, EARLIER, LABEL, "3", labels=("3",))) == [], "control: a later request's attempt has forgotten it for certain"
    assert gone(CHAMPION, build(None, 2, EARLIER, LABEL, "3", labels=(LABEL, "3"))) == [0], "a batch's, whichever of its classes failed"


def test_what_others_need_stays_with_a_reason() -> None:
    base = build(1, 0)
    weights = frozenset({base.model.weights.sha256})
    assert gone(base, CHAMPION) == [1], "control"
    for changes in ({"elsewhere": weights}, {"opened": weights}):
        assert gone(base, CHAMPION, **changes) == []
    decision = decide([base, CHAMPION], RetentionRules("numbers", LABEL, 9, 2, 2, opened=weights))
    assert [b.number for b in decision.open_] == [1]
    assert any("open attempt" in kept.reason for kept in decision.kept)
    assert gone(build(1, 0, dataset="others"), CHAMPION) == []
