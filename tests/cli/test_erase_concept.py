"""The lie: 'this model has passed', of one that nothing has measured."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from erasediff.cli import main
from tests.stable_diffusion import BLUE, GREEN, RED, write_images, write_model


def test_the_last_line_says_that_nothing_was_gated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = {
        "model": str(write_model(tmp_path / "model")),
        "forget": str(write_images(tmp_path / "forget", [RED])),
        "retain": str(write_images(tmp_path / "retain", [BLUE, GREEN])),
        "erase": {"steps": 2},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(document))
    arguments = ["erase-concept", "--config", str(tmp_path / "config.yaml"), "--out", str(tmp_path / "out")]
    for _ in range(2):  # the second finds the folder and does nothing
        assert main(arguments) == 0
        captured = capsys.readouterr()
        assert captured.out.splitlines()[-1].startswith("not gated: ")
        assert "erasediff judge-concept" in captured.out.splitlines()[-1]
        assert captured.err == ""
        assert (tmp_path / "out/erasure.json").is_file()
    assert main(["erase-concept", "--help"]) == 0
    assert "NOT gated" in " ".join(capsys.readouterr().out.split())
