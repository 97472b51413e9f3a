"""The lie: 'it is suppressed', of rules that were read once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from erasediff.errors import BadInput
from erasediff.records.core import ServedModel
from erasediff.records.serving import ServingRules
from erasediff.serve.guard import ServingGuard, check_suppressed
from erasediff.serve.request import Refused, SamplingRequest
from erasediff.serve.rules import RulesFile
from tests.digits import DIGITS
from tests.exported import describe


@pytest.fixture
def model(tmp_path: Path) -> ServedModel:
    for name in ("model.onnx", "solvers.npz"):
        (tmp_path / name).write_bytes(b"x")
    return describe(tmp_path)


def asked(label: int, guidance: float = 1.0) -> SamplingRequest:
    return SamplingRequest(label, 1, 0, "ddim-2", guidance)


def test_without_a_file_there_are_no_rules() -> None:
    assert RulesFile(None).now() == ServingRules()


def test_a_change_is_seen_at_once_and_nothing_is_read_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from erasediff.serve import rules as module

    path, reads = tmp_path / "rules.yaml", []
    load = module.load_rules
    monkeypatch.setattr(module, "load_rules", lambda found: reads.append(found) or load(found))
    path.write_text("suppress: ['1']\n")
    rules = RulesFile(path)
    assert [rules.now().suppress for _ in range(3)] == [("1",)] * 3
    assert len(reads) == 1
    path.write_text("suppress: ['2']\n")
    assert rules.now().suppress == ("2",)


def test_a_mounted_config_map_that_changes_is_seen(tmp_path: Path) -> None:
    """Kubernetes replaces a link to a folder, so the file's own name and size may stay."""
    for number in (1, 2):
        folder = tmp_path / f"..{number}"
        folder.mkdir()
        (folder / "rules.yaml").write_text(f"suppress: ['{number}']\n")
        os.utime(folder / "rules.yaml", (1, 1))
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "rules.yaml").symlink_to("..data/rules.yaml")
    rules = RulesFile(tmp_path / "rules.yaml")
    assert rules.now().suppress == ("1",)
    (tmp_path / "..next").symlink_to("..2")
    (tmp_path / "..next").replace(tmp_path / "..data")
    assert rules.now().suppress == ("2",)


@pytest.mark.parametrize(
    "text", ["suppress: 3\n", "suppress: [3]\n", "surpress: ['3']\n", "{", "suppress: ['3']\nsuppress: []\n", "revoked: [abc]\n"]
)
def test_a_broken_file_stops_everything_until_it_is_mended(tmp_path: Path, model: ServedModel, text: str) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(text)
    guard = ServingGuard(model, RulesFile(path))
    with pytest.raises(BadInput):
        guard.rules.now()
    assert guard.refusal() is not None
    assert guard.suppressed() == DIGITS
    with pytest.raises(Refused) as refused:
        guard.check(asked(4))
    assert refused.value.status == 503
    path.write_text("{}\n")
    guard.check(asked(4))


@pytest.mark.parametrize(
    ("suppress", "question", "passes"),
    [
        ((), asked(10), True),
        (("3",), asked(3), False),
        (("3",), asked(4), True),
        (("3",), asked(10), False),
        (("3",), asked(4, 0.0), False),
        (("3",), asked(4, 0.999), False),
        (("3",), asked(4, float("nan")), False),
        (("3",), asked(4, 8.0), True),
        (("8",), asked(10), True),
        (("8",), asked(8), False),
        (("99",), asked(10), True),
    ],
)
def test_a_label_that_is_suppressed_and_not_forgotten_is_not_had_in_another_way(
    model: ServedModel, suppress: tuple[str, ...], question: SamplingRequest, passes: bool
) -> None:
    """The model has forgotten label 8."""
    rules = ServingRules(suppress=suppress)
    if passes:
        check_suppressed(question, model, rules)
        return
    with pytest.raises(Refused) as refused:
        check_suppressed(question, model, rules)
    assert refused.value.status == 403
