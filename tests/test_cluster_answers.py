"""The lie: 'it was applied', of an object of which the API server kept a part: it drops what its definition lacks without a word."""

from __future__ import annotations

from typing import Any

import pytest

from erasediff.cluster.answers import dropped

ASKED: dict[str, Any] = {"predictor": {"name": "m", "model": {"args": ["a", "b"], "env": [{"name": "X", "value": "1"}]}}, "empty": {}, "none": None}


def test_what_was_kept_and_added_to_is_whole() -> None:
    written = {"predictor": {"name": "m", "model": {"args": ["a", "b", "c"], "env": [{"name": "X", "value": "1", "more": 1}]}, "added": 1}}
    assert dropped(ASKED, written, "spec") is None


@pytest.mark.parametrize(
    ("written", "path"),
    [
        (None, "spec"),
        ({}, "spec.predictor"),
        ({"predictor": {"name": "m"}}, "spec.predictor.model"),
        ({"predictor": {"name": "m", "model": {"args": ["a"], "env": [{"name": "X", "value": "1"}]}}}, "spec.predictor.model.args"),
        ({"predictor": {"name": "m", "model": {"args": ["a", "b"], "env": [{"name": "X"}]}}}, "spec.predictor.model.env[0].value"),
    ],
)
def test_the_first_field_that_is_gone_is_named(written: object, path: str) -> None:
    assert dropped(ASKED, written, "spec") == path
