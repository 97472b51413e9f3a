"""The lie: 'it is suppressed', of rules that were read once."""

from __future__ import annotations

import os
import threading
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


def test_a_change_is_seen_at_once_and_nothing_is_parsed_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from erasediff.serve import rules as module

    path, reads = tmp_path / "rules.yaml", []
    parse = module.parse_rules
    monkeypatch.setattr(module, "parse_rules", lambda *given: reads.append(given) or parse(*given))
    path.write_text("suppress: ['1']\n")
    rules = RulesFile(path)
    assert [rules.now().suppress for _ in range(3)] == [("1",)] * 3
    assert len(reads) == 1
    path.write_text("suppress: ['2']\n")
    os.utime(path, (1, 1))
    assert rules.now().suppress == ("2",)
    with path.open("r+") as file:
        file.write("suppress: ['7']\n")
    os.utime(path, (1, 1))
    assert rules.now().suppress == ("7",), "of the same size and time, in the same file"


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


NO_RULES = ["", "\n", " ", "# nothing yet\n", "---\n", "...\n", "{}\n", "[]\n", "0\n", "false\n", "''\n", "~\n", "suppress:\n", "suppress: ~\n"]
"""What stands where rules should; a lenient reader takes all of it for rules that forbid nothing."""
CUT = ["minimum_epoch: 1", "suppress: ['4'", "suppress:\n- '3'\n- '1", "minimum_epoch: 0\nsuppress: []", "minimum_epoch: 1 # as {REQUEST}"]
"""What has the right fields, and may be the beginning of more."""


@pytest.mark.parametrize(
    "text",
    ["suppress: 3\n", "suppress: [3]\n", "surpress: ['3']\n", "{", "suppress: ['3']\nsuppress: []\n", "revoked: [abc]\n", *NO_RULES, *CUT],
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
    path.write_text("suppress: []\n")
    guard.check(asked(4))


@pytest.mark.parametrize(
    "text",
    [
        "suppress: ['3', '30']\nminimum_epoch: 12\n",
        '{"suppress": ["3", "30"], "minimum_epoch": 12}',
        '# rules\n---\n{"suppress": ["3", "30"]}',
        "suppress:\n- '3'\n- '30'\n",
    ],
)
def test_no_beginning_of_a_file_that_ends_within_a_line_is_taken_for_the_whole(tmp_path: Path, text: str) -> None:
    """What another process reads while the file is written in place."""
    path = tmp_path / "rules.yaml"
    rules = RulesFile(path)
    for end in range(len(text)):
        path.write_text(text[:end])
        if not text[:end].endswith("\n"):
            with pytest.raises(BadInput, match=f"^the rules {path} "):
                rules.now()
    path.write_text(text)
    assert rules.now().suppress == ("3", "30"), "control: the whole is"


def test_a_class_is_suppressed_while_its_rules_are_rewritten_in_place(tmp_path: Path, model: ServedModel) -> None:
    """Each request is refused: 403 by the whole file, 503 by less than that."""
    path, text, answers = tmp_path / "rules.yaml", "suppress: ['5']\n" + "".join(f"# {number:070}\n" for number in range(100)), []
    path.write_text(text)
    guard, ended = ServingGuard(model, RulesFile(path)), threading.Event()

    def rewrite() -> None:
        while not ended.is_set():
            path.write_text(text)

    writer = threading.Thread(target=rewrite)
    writer.start()
    try:
        while len(answers) < 3_000 or (not {403, 503} <= set(answers) and len(answers) < 300_000):
            with pytest.raises(Refused) as refused:
                guard.check(asked(5))
            answers.append(refused.value.status)
    finally:
        ended.set()
        writer.join()
    assert set(answers) == {403, 503}
    guard.check(asked(4))  # control: another class is not refused


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
