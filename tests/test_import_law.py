"""The library knows no Kubeflow, components know no algorithm, and nothing imports upward."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Ground floor first; a room imports only rooms on floors below it, and itself.
FLOORS = [
    {"environment", "errors"},
    {"files", "stopping"},
    {"cluster", "progress", "s3"},
    {"records"},
    {"steps.table"},
    {"attempts", "envelopes", "logs", "retries"},
    {"data", "models", "rollout", "serve", "tracking", "trainjob"},
    {"unlearn", "evaluate"},
    {"evidence", "export"},
    {"steps"},
    {"demo", "runner", "display"},
    {"kubeflow_local", "submit", "follow", "python"},
    {"__init__"},
    {"cli"},
    {"__main__"},
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def imported_modules(source: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def room(module: str) -> str:
    """The room of a module, without the package's name: the table of steps has a floor of its own, below what reads it."""
    return next(name for name in (".".join(module.split(".")[:2]), module.split(".")[0]) if name in FLOOR)


def room_of(path: Path) -> str:
    return room(".".join(path.relative_to(ROOT / "erasediff").with_suffix("").parts))


def upward_imports(own: str, modules: set[str]) -> list[str]:
    rooms = {room(m.removeprefix("erasediff.")) for m in modules if m.startswith("erasediff.")}
    return sorted(other for other in rooms if other != own and FLOOR[other] >= FLOOR[own])


LIBRARY = sorted((ROOT / "erasediff").rglob("*.py"))


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: str(p.relative_to(ROOT)))
def test_library_knows_no_kubeflow_and_imports_only_downward(path):
    modules = imported_modules(path.read_text())
    assert not {m for m in modules if m.split(".")[0] in {"kfp", "components", "pipelines"}}
    assert upward_imports(room_of(path), modules) == []


def test_components_know_the_table_of_steps_and_no_algorithm():
    modules = imported_modules((ROOT / "components/shapes.py").read_text())
    assert {m for m in modules if m.startswith("erasediff.")} == {"erasediff.steps.table", "erasediff.steps.component", "erasediff.records.core"}


def test_the_law_can_fail():
    """Control: an upward import and an import of kfp are seen."""
    assert upward_imports("models", imported_modules("from erasediff.steps.erase import erase")) == ["steps"]
    assert "kfp" in imported_modules("def f():\n    import kfp")


def test_importing_components_loads_no_torch():
    code = "import sys, pipelines.erasure; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_a_step_that_builds_no_model_does_not_pay_for_the_library_that_does():
    """diffusers takes longer to import than such a step to run. One process imports them one after another; the control is a step that needs it."""
    imports = "".join(f"import erasediff.steps.{step}; said()\n" for step in ("register", "promote", "check_prerequisites", "erase"))
    code = f"import sys\nsaid = lambda: print('torch' in sys.modules, 'diffusers' in sys.modules)\n{imports}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    register, promote, check_prerequisites, erase = (line.split() for line in done.stdout.splitlines())
    assert register == promote == ["False", "False"]
    assert check_prerequisites[1] == "False"
    assert erase == ["True", "True"]
