"""The lie: 'an erasure is nobody's business', of libraries that tell their makers what they are used for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
MLFLOW = "from mlflow.telemetry.utils import is_telemetry_disabled; print(is_telemetry_disabled())"
HUB = "from huggingface_hub import constants; print(constants.HF_HUB_DISABLE_TELEMETRY)"
DVC = "from dvc import analytics; print(not analytics.is_enabled())"


def said(code: str, temporary: Path, **variables: str) -> str:
    """What a process prints that inherits nothing; the libraries turn themselves off where they see that they are tested."""
    environment = {"TMPDIR": str(temporary), "HOME": str(temporary), "OMP_NUM_THREADS": "1", **variables}
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_every_library_sees_that_it_is_turned_off_by_each_room_that_uses_one_and_onnxruntime_opens_no_session_with_its_maker(tmp_path: Path) -> None:
    for room in ("tracking", "data", "models", "evaluate", "serve"):
        off = said(f"import erasediff.{room}; {MLFLOW}; {HUB}; {DVC}; import onnxruntime", tmp_path)
        assert off.splitlines() == ["True"] * 3, room
    assert not (tmp_path / ".ses").exists()
    on = said(f"{MLFLOW}; {HUB}; {DVC}; import onnxruntime", tmp_path)
    assert on.splitlines() == ["False"] * 3, "control: left alone, it is on"
    assert (tmp_path / ".ses").exists(), "control: left alone, it writes down the session's name"


def test_what_an_operator_chose_stands(tmp_path: Path) -> None:
    code = f"import erasediff.tracking; {MLFLOW}"
    assert said(code, tmp_path, MLFLOW_DISABLE_TELEMETRY="false", DO_NOT_TRACK="false") == "False"
