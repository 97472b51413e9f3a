"""The lies: 'label 3 is suppressed', of a file whose second `suppress` counted; 'ten', of an ``010`` that was eight; 'a small file', of aliases that
stand for a billion words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from erasediff.errors import BadInput
from erasediff.records.concept import load_concept_config
from erasediff.records.config import load_config
from erasediff.records.policy import load_policy
from erasediff.records.prompt_policy import load_prompt_policy
from erasediff.records.prompts import load_prompts
from erasediff.records.serving import load_rules
from erasediff.records.yaml import dump_yaml, parse_yaml

ROOT = Path(__file__).parents[2]
POLICIES = ROOT / "policies"
PROMPTS = "concept: [{prompt: jane}, {prompt: jane doe}]\nanchors: [a woman]\nretained: [a tree, a house]\n"
CONCEPT = "model: m\nforget: f\nretain: r\n"


@pytest.mark.parametrize(
    ("load", "text", "again", "key", "line"),
    [
        (load_config, "erase: {steps: 300}\nseed: 1\n", "erase: {method: finetune}\n", "erase", 3),
        (load_config, "erase:\n  steps: 300\n", "  steps: 30\n", "steps", 3),
        (load_policy, (POLICIES / "class-conditional.yaml").read_text(), "tier: 2\n", "tier", None),
        (load_prompt_policy, (POLICIES / "text-to-image.yaml").read_text(), "alpha: 0.04\n", "alpha", None),
        (load_rules, "suppress: ['3']\nrevoked: []\n", "suppress: []\n", "suppress", 3),
        (load_rules, "suppress: ['3']\n", "'suppress': [3]\n", "suppress", 2),
        (load_concept_config, CONCEPT, "forget: g\n", "?", 4),
        (load_prompts, PROMPTS, "retained: [a tree, a lake]\n", "?", 4),
    ],
)
def test_a_key_that_stands_twice_is_refused(tmp_path: Path, load: Callable[[Path], Any], text: str, again: str, key: str, line: int | None) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    load(path)  # control: it is the second key that is refused
    path.write_text(text + again)
    with pytest.raises(BadInput) as refused:
        load(path)
    line = line or len(text.splitlines()) + 1
    assert f"{path} is not YAML 1.2 (the key '{key}' appears twice, line {line})" in str(refused.value)
    assert "jane" not in str(refused.value), "no prompt is quoted"


def test_scalars_are_those_of_yaml_1_2() -> None:
    text = "[010, 0o10, 0x10, 1e-4, yes, 12:30:00, 2024-01-02, true, null, ~, .5, '010']"
    assert parse_yaml(text, "x") == [10, 8, 16, 1e-4, "yes", "12:30:00", "2024-01-02", True, None, None, 0.5, "010"]
    assert parse_yaml("%YAML 1.2\n---\n010\n", "x") == 10, "control: to name the version is no mistake"
    for version in ("1.1", "1.3", "2.0"):
        with pytest.raises(BadInput, match=r"x is not YAML 1\.2"):
            parse_yaml(f"%YAML {version}\n---\n010\n", "x")


@pytest.mark.parametrize(
    "text", ["<<: {a: 1}\n", "!!set {a}", "!!binary aGk=", "!!python/object/apply:os.system [id]", "!own a", "? [a]\n: 1\n? {b: 1}\n: 2\n"]
)
def test_what_its_core_does_not_have_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match=r"x is not YAML 1\.2 .*line \d"):
        parse_yaml(text, "x")


def nested(levels: int, value: str = "x") -> str:
    """Ten times ten times ... the value, by aliases."""
    lines = [f"a0: &a0 [{', '.join([value] * 10)}]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, levels)]
    return "\n".join(lines)


def test_aliases_are_read_but_make_no_document_larger_than_one_may_be() -> None:
    assert parse_yaml("a: &a [1, 2]\nb: *a\n", "x") == {"a": [1, 2], "b": [1, 2]}
    assert len(parse_yaml(nested(5), "x")) == 5, "control: a hundred thousand words are no bomb"
    for bomb in (nested(9), nested(3, "x" * 9000), f"a: &a {'x' * 100_000}\nb: [{', '.join(['*a'] * 50)}]"):
        with pytest.raises(BadInput, match="with its aliases expanded"):
            parse_yaml(bomb, "x")
    with pytest.raises(BadInput, match="an alias refers to a node that contains it, line 1"):
        parse_yaml("a: &a\n  - *a\n", "x")


def test_what_is_written_is_read_again_as_it_was() -> None:
    document = {"b": ["010", "yes", "1e3", "f" * 300, "2024-01-02", "a: b # c", "", None, True, 0.1, {"c": []}], "a": "1" * 64}
    assert parse_yaml(dump_yaml(document), "x") == document
    assert list(parse_yaml(dump_yaml(document), "x")) == ["b", "a"], "in its own order"
