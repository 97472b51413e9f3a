"""The lies: 'the minimum only rises', 'nothing else in the rules was touched', 'one at a time'."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest

from erasediff.errors import BadInput
from erasediff.records.serving import parse_rules
from erasediff.rollout.lease import SECONDS, Lease, held_by, holder_of
from erasediff.rollout.rules import add_values, raise_epoch


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("# mind this\nminimum_epoch: 1 # since May\nsuppress: ['3']\n", "# mind this\nminimum_epoch: 2 # since May\nsuppress: ['3']\n"),
        ("suppress: ['3'] # at once\n", "minimum_epoch: 2\nsuppress: ['3'] # at once\n"),
        ("suppress: []\n", "minimum_epoch: 2\nsuppress: []\n"),
        ("minimum_epoch: 0\n", "minimum_epoch: 2\n"),
        ("{suppress: ['3']}", "{minimum_epoch: 2, suppress: ['3']}\n"),
        ("{minimum_epoch: 1, revoked: []}", "{minimum_epoch: 2, revoked: []}\n"),
        ("suppress:\n- '3' # by order\nminimum_epoch:\n  1\n", "suppress:\n- '3' # by order\nminimum_epoch: 2\n"),
    ],
)
def test_the_minimum_rises_and_the_rest_stays(text: str, after: str) -> None:
    found = raise_epoch(text, 2, "rules")
    assert found == after
    assert parse_rules(found, "rules") == parse_rules(text, "rules").model_copy(update={"minimum_epoch": 2})


@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_it_never_falls(epoch: int) -> None:
    assert raise_epoch("minimum_epoch: 2\n", epoch, "rules") is None


@pytest.mark.parametrize(
    "text",
    [
        "minimum_epoch: -1",
        "minimum_epoch: true",
        "unknown: 1",
        "[",
        "- 1",
        "revoked: [abc]",
        "suppress: ['3']\nsuppress: []",
        "[" * 1_500,
        "",
        "# nothing yet\n",
        "{}",
        "suppress:\n",
    ],
)
def test_rules_that_nobody_understands_stop_a_roll_out(text: str) -> None:
    for read in (lambda: raise_epoch(text, 2, "the rules"), lambda: parse_rules(text, "the rules")):
        with pytest.raises(BadInput, match="the rules") as refused:
            read()
        assert "\n" not in str(refused.value)


def test_a_lease_is_held_until_it_was_not_renewed() -> None:
    now = datetime.now(UTC)
    lease = held_by("a", "me", now)
    assert holder_of(lease, now) == "me"
    assert holder_of(lease, now + timedelta(seconds=SECONDS - 1)) == "me"
    assert holder_of(lease, now + timedelta(seconds=SECONDS + 1)) is None
    assert holder_of({**lease, "spec": {**lease["spec"], "holderIdentity": ""}}, now) is None
    assert holder_of({}, now) is None


class InMemory:
    """A lease without an API server; a real one is asked in tests/cluster."""

    namespace = "n"

    def __init__(self, present: dict | None = None) -> None:
        self.present = present

    def get(self, kind: object, name: str) -> dict | None:
        return self.present

    def create(self, kind: object, body: dict) -> None:
        self.present = body

    replace = create


def lease_of(owner: str, cluster: InMemory, patience: float = 20) -> Lease:
    return Lease(cluster, "a-roll-out", owner, patience)  # type: ignore[arg-type]


def test_a_pod_that_replaces_an_evicted_one_waits_for_its_lease_and_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("erasediff.rollout.lease._LOOK_SECONDS", 0.05)
    expiring = held_by("a-roll-out", "one/evicted-pod", datetime.now(UTC) - timedelta(seconds=SECONDS - 1))
    cluster = InMemory(expiring)
    started = time.monotonic()
    with lease_of("one", cluster).held():
        assert time.monotonic() > started + 0.5, "it was held until then"
        assert cluster.present["spec"]["holderIdentity"].startswith("one/")
    assert cluster.present["spec"]["holderIdentity"] == ""


def test_control_nobody_waits_for_another_roll_out_or_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("erasediff.rollout.lease._LOOK_SECONDS", 0.05)
    held = held_by("a-roll-out", "one/pod", datetime.now(UTC))
    started = time.monotonic()
    with pytest.raises(BadInput, match="by one/pod"), lease_of("two", InMemory(held)).held():
        pass
    assert time.monotonic() < started + 5
    with pytest.raises(BadInput, match="by one/pod"), lease_of("one", InMemory(held), 0.3).held():
        pass


def test_who_renews_keeps_when_it_was_acquired_and_the_version_it_read() -> None:
    now, present = datetime.now(UTC), {}
    present = {**held_by("a", "me", now), "metadata": {"name": "a", "resourceVersion": "7"}}
    renewed, taken = held_by("a", "me", now + timedelta(seconds=9), present), held_by("a", "you", now + timedelta(seconds=9), present)
    assert renewed["metadata"]["resourceVersion"] == taken["metadata"]["resourceVersion"] == "7"
    assert renewed["spec"]["acquireTime"] == present["spec"]["acquireTime"] != taken["spec"]["acquireTime"]


@pytest.mark.parametrize(
    "text",
    [
        "# mind this\nminimum_epoch: 1 # since May\n",
        "suppress: []\n",
        "{suppress: ['3']}",
        f"# mind this\nrevoked: ['{'1' * 64}', {'f' * 64}]\nsuppress: ['3']\n",
        f"revoked:\n# mind this\n- '{'3' * 64}'\nsuppress: ['3']\n",
        "revoked: &none []\nsuppress: *none\n",
    ],
)
def test_what_is_revoked_is_added_and_the_rest_stays(text: str) -> None:
    found = add_values(text, "revoked", ["2" * 64], "rules")
    assert found is not None
    before, after = parse_rules(text, "rules"), parse_rules(found, "rules")
    assert set(after.revoked) == {*before.revoked, "2" * 64}
    assert after.model_copy(update={"revoked": before.revoked}) == before
    assert ("# mind this" in found) == ("# mind this" in text)
    assert add_values(found, "revoked", ["2" * 64], "rules") is None, "again changes nothing"


def test_a_label_is_suppressed_and_the_rest_stays() -> None:
    text = f"# mind this\nminimum_epoch: 1\nrevoked: ['{'1' * 64}']\n"
    found = add_values(text, "suppress", ["3"], "rules")
    assert found is not None
    assert "# mind this" in found
    assert parse_rules(found, "rules") == parse_rules(text, "rules").model_copy(update={"suppress": ("3",)})
    more = add_values(found, "suppress", ["1", "3"], "rules")
    assert more is not None
    assert parse_rules(more, "rules").suppress == ("3", "1")
    assert add_values(more, "suppress", ["1"], "rules") is None, "again changes nothing"
