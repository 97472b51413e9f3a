"""``python -m benchmarks.found WORKDIR``: CPU seconds of every step that finds its record, each in the command of its container.

WORKDIR holds an attempt that has ended. ``MLFLOW_TRACKING_URI`` should name a server over its database, as on Kubernetes.
What Kubernetes and Kubeflow's launcher need before the command begins is not measured.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from benchmarks.results_file import Row, write_rows
from erasediff.attempts.workdir import Workdir
from erasediff.steps.table import Role, Step, work_steps
from pipelines.compile import COMPILED

REPEATS = 3


def executor_input(component: dict[str, Any], values: dict[str, str], folder: Path) -> str:
    """What Kubeflow's launcher hands to the executor of a component, with its outputs in a folder."""
    defined = component["outputDefinitions"]
    artifacts = {
        name: {"artifacts": [{"name": name, "type": artifact["artifactType"], "uri": str(folder / name), "metadata": {}}]}
        for name, artifact in defined.get("artifacts", {}).items()
    }
    parameters = {name: {"outputFile": str(folder / name)} for name in defined["parameters"]}
    outputs = {"parameters": parameters, "artifacts": artifacts, "outputFile": str(folder / "executor_output.json")}
    return json.dumps({"inputs": {"parameterValues": values}, "outputs": outputs})


def cpu_seconds(row: Step, pipeline: dict[str, Any], workdir: Path, run: str) -> float:
    """User and system time of one start of a step's container command."""
    container = pipeline["deploymentSpec"]["executors"][f"exec-{row.command}"]["container"]
    size = {"training_cpu": "1", "training_memory": "2Gi", "training_gpus": "0"}
    values = {"step": row.name, "workdir": str(workdir), "run": run, "after": "", **(size if row.distributed else {})}
    with tempfile.TemporaryDirectory() as folder:
        given = executor_input(pipeline["components"][f"comp-{row.command}"], values, Path(folder))
        arguments = [given if part == "{{$}}" else part for part in container["args"]]
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, **{entry["name"]: entry["value"] for entry in container["env"]}}
        process = subprocess.Popen([*container["command"], *arguments], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        assert process.stderr is not None
        said = process.stderr.read().decode()
        _, status, used = os.wait4(process.pid, 0)
        if status:
            sys.exit(f"{row.command} failed: {said[-2000:]}")
    return used.ru_utime + used.ru_stime


def main() -> int:
    """Measure each step three times and keep the smallest figure."""
    workdir = Path(sys.argv[1])
    run = Workdir(workdir).attempt().name
    pipeline, _ = yaml.safe_load_all((COMPILED / "erasure-cpu.yaml").read_text())
    rows: list[Row] = []
    for row in {row.name: row for row in work_steps() if row.role is not Role.OPENS}.values():
        rows.append({"step": row.name, "cpu_seconds": round(min(cpu_seconds(row, pipeline, workdir, run) for _ in range(REPEATS)), 2)})
        print(rows[-1], flush=True)
    write_rows("found", rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
