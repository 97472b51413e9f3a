"""Run the container of a step here: its own command, with an executor's input as Kubeflow's launcher gives it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.certified import ROOT


def run_container(
    folder: Path,
    command: Sequence[str],
    function: str,
    values: Mapping[str, str],
    artifacts: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
    before: Sequence[str] = (),
) -> tuple[int, list[str]]:
    """Exit code and log of a step's container.

    Args:
        folder: for what it hands over; an artifact lies there under its name.
        command: of the container.
        function: the component's.
        values: of its parameters.
        artifacts: the schemas of the artifacts that it hands over, by their names.
        environment: variables beside those of this process, of which it gets none of MLflow's, AWS's and this project's.
        before: words before the command, which run it as somebody else.
    """
    handed_over = {
        name: {"artifacts": [{"name": name, "type": {"schemaTitle": schema}, "uri": str(folder / name)}]}
        for name, schema in (artifacts or {}).items()
    }
    outputs = {"parameters": {"Output": {"outputFile": str(folder / "Output")}}, "outputFile": str(folder / "executor_output.json")}
    given = json.dumps({"inputs": {"parameterValues": dict(values)}, "outputs": outputs | {"artifacts": handed_over}})
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "ERASEDIFF", "AWS"))}
    found = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{inherited['PATH']}", "PYTHONPATH": str(ROOT)}
    words = [*before, *command, "--executor_input", given, "--function_to_execute", function]
    ended = subprocess.run(
        words, env=inherited | dict(environment or {}) | found, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    return ended.returncode, ended.stdout.splitlines()
