"""The lie: 'a row is all it takes', of a step that some place lists by hand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from erasediff.steps.table import STEPS, Role, work_steps

ROOT = Path(__file__).parents[2]
PROBE = """
import json, sys
from pathlib import Path
from erasediff.records.core import RollOutRecord
from erasediff.steps import table
if sys.argv[1] == "with":
    row = table.Step("watermark", "Put a watermark on", "Put a watermark on the graph.", makes=RollOutRecord)
    at = [step.name for step in table.STEPS].index("register")
    table.STEPS = (*table.STEPS[:at], row, *table.STEPS[at:])
import typer.testing
from components import catalogue
from erasediff.cli.app import app
import erasediff.cli
from pipelines import compile, stages
folder = Path(sys.argv[2])
compile.write(folder / "erasure.yaml", compile.LOCAL)
catalogue.write_all(folder)
from erasediff.attempts.attempt import Attempt
from erasediff.attempts.journal import record_seconds
from erasediff.steps.record_outcome import seconds_of
attempt = Attempt(None, folder)
for name in ("register", "watermark", "export_onnx"):
    record_seconds(attempt, name, 1.0)
print(json.dumps({
    "command line": typer.testing.CliRunner().invoke(app, ["--help"]).output,
    "compiled pipeline": (folder / "erasure.yaml").read_text(),
    "catalogue": "\\n".join(path.parent.name for path in folder.glob("*/README.md")),
    "dvc.yaml": stages.document(),
    "journal": " ".join(seconds_of(attempt)),
}))
"""


def places(folder: Path, how: str) -> dict[str, str]:
    import json

    folder.mkdir()
    done = subprocess.run([sys.executable, "-c", PROBE, how, str(folder)], cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return places(tmp_path_factory.mktemp("table") / "with", "with")


def test_a_row_is_found_in_every_place_that_reads_the_table(found: dict[str, str], tmp_path: Path) -> None:
    """Control: without the row it is nowhere."""
    assert {place for place, text in found.items() if "watermark" in text} == set(found)
    assert "watermark" not in "".join(places(tmp_path / "without", "without").values())


def test_it_stands_where_the_table_has_it(found: dict[str, str]) -> None:
    assert found["journal"] == "export_onnx watermark register"
    stages = found["dvc.yaml"]
    assert stages.index("\n  export_onnx:") < stages.index("\n  watermark:") < stages.index("\n  register:")
    assert "name: Put a watermark on" in found["compiled pipeline"]


def test_no_list_of_steps_stands_anywhere_else() -> None:
    """Three names of neighbours in the table, each in quotes, are a list of steps. Control: the table itself is one."""
    names = [row.name for row in STEPS]
    runs = [tuple(names[i : i + 3]) for i in range(len(names) - 2)]

    def lists(text: str) -> bool:
        return any(all(f'"{name}"' in text or f'"{name.replace("_", "-")}"' in text for name in run) for run in runs)

    assert lists((ROOT / "erasediff/steps/table.py").read_text())
    folders = ("erasediff", "components", "pipelines")
    others = [path for folder in folders for path in (ROOT / folder).rglob("*.py") if path.name != "table.py"]
    assert [str(path.relative_to(ROOT)) for path in others if lists(path.read_text())] == []


def test_a_run_certifies_before_the_purge_and_after_it_and_every_row_has_a_place() -> None:
    order = [row.name for row in work_steps()]
    assert order[-3:] == ["certify", "purge", "certify"]
    assert {row.name for row in STEPS if row.role in (Role.OPENS, Role.IDLES, Role.CLOSES)} | set(order) == {row.name for row in STEPS}
