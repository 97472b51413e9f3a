"""The lies: 'fifty prompts', of one said fifty times; 'no prompt was logged', of a sentence on the terminal that quotes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from erasediff.errors import BadInput
from erasediff.records.concept import load_concept_config
from erasediff.records.config import load_config
from erasediff.records.prompts import load_prompts
from tests.tiny_clip import PROMPTS

NAME = "jane doe"


def written(path: Path, document: Any) -> Path:
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    return path


def test_a_file_of_prompts_is_read_in_its_order(tmp_path: Path) -> None:
    found = load_prompts(written(tmp_path / "prompts.yaml", PROMPTS))
    assert found.asked == ("a red square", "the red square", "red squares")
    assert found.concept[0].otherwise == ("a crimson box", "red")
    assert found.retained == tuple(PROMPTS["retained"])


CONCEPT = [{"prompt": NAME}, {"prompt": "a woman"}]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({NAME: 1}, "'\\?'"),
        ({"concept": [{NAME: ["x"]}, {"prompt": "y"}]}, r"concept\.0\.prompt"),
        ({"concept": [{"prompt": "x", NAME: 1}, {"prompt": "y"}]}, r"concept\.0\.\?"),
        ({"concept": [{"prompt": NAME}]}, "'concept'"),
        ({"concept": {NAME: ["x"]}}, "'concept'"),
        ({"concept": [{"prompt": NAME}, {"prompt": "Jane  DOE"}]}, "same prompt twice"),
        ({"concept": [{"prompt": NAME, "otherwise": [NAME.upper()]}, {"prompt": "y"}]}, "same prompt twice"),
        ({"concept": CONCEPT, "retained": ["a woman ", "x"]}, "also in"),
        ({"concept": CONCEPT, "anchors": [NAME]}, "also in"),
        ({"retained": [NAME, "Jane doe"]}, "same prompt twice"),
        ({"retained": [NAME]}, "'retained'"),
        ({"anchors": []}, "'anchors'"),
        ({"retained": [NAME, True]}, r"retained\.1"),
        ({"retained": [NAME, " "]}, r"retained\.1"),
        ({"retained": [NAME, f"{NAME}\nx"]}, r"retained\.1"),
        ({"retained": ["x", NAME * 100]}, r"retained\.1"),
        ({"concept": [{"prompt": "x", "otherwise": [f"{NAME} {i}" for i in range(51)]}, {"prompt": "y"}]}, r"concept\.0\.otherwise"),
    ],
)
def test_a_wrong_file_is_refused_without_a_word_of_it(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput, match=says) as refusal:
        load_prompts(written(tmp_path / "prompts.yaml", PROMPTS | change))
    sentence = str(refusal.value)
    assert "jane" not in sentence.casefold()
    assert sentence.count("\n") == 0
    assert "prompts.yaml" in sentence, "control: it names the file"


@pytest.mark.parametrize("text", ["", "- a\n- b", "concept: [", "!!python/object:os.system {}", "a: b: c"])
def test_what_is_no_such_document_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadInput):
        load_prompts(written(tmp_path / "prompts.yaml", text))


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="more than"):
        load_prompts(written(tmp_path / "prompts.yaml", "#" * (5 << 20)))


@pytest.mark.parametrize("text", [f"{NAME}: 1\n{NAME}: 2\n", f"anchor_prompt: *{NAME.replace(' ', '-')}\n", f"anchor_prompt: !{NAME} x\n"])
def test_a_configuration_of_a_concept_that_is_no_yaml_is_not_quoted(tmp_path: Path, text: str) -> None:
    """Its anchor may name a person. Control: another configuration is quoted, so that the mistake is found sooner."""
    path = written(tmp_path / "config.yaml", text)
    with pytest.raises(BadInput, match=r"is not YAML 1\.2") as refusal:
        load_concept_config(path)
    assert "jane" not in str(refusal.value)
    with pytest.raises(BadInput, match="jane"):
        load_config(path)
