"""Run a notebook's cells in their order in one namespace, and keep what they print and return: nbclient is not among the dependencies.

``python -m tests.notebook NOTEBOOK`` writes the outputs into the notebook. What goes to standard error is not kept.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any


def code_cells(path: Path) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


def run_cell(source: str, names: dict[str, Any]) -> list[dict[str, Any]]:
    """Run a cell as Jupyter does: the value of an expression in its last line is shown. Gives its outputs in the notebook's format."""
    tree, printed, value = ast.parse(source), io.StringIO(), None
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "cell", "exec"), names)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
    outputs: list[dict[str, Any]] = []
    if printed.getvalue():
        outputs.append({"output_type": "stream", "name": "stdout", "text": printed.getvalue().splitlines(keepends=True)})
    if hasattr(value, "_repr_png_"):
        picture = base64.b64encode(value._repr_png_()).decode()
        outputs.append({"output_type": "display_data", "metadata": {}, "data": {"image/png": picture}})
    elif value is not None:
        outputs.append({"output_type": "stream", "name": "stdout", "text": [f"{value!r}\n"]})
    return outputs


def run_notebook(path: Path) -> tuple[dict[str, Any], list[list[dict[str, Any]]]]:
    """The namespace after all cells, and the outputs of each."""
    names: dict[str, Any] = {"__name__": "notebook"}
    return names, [run_cell("".join(cell["source"]), names) for cell in code_cells(path)]


if __name__ == "__main__":
    notebook = Path(sys.argv[1])
    document = json.loads(notebook.read_text())
    _, made = run_notebook(notebook)
    for number, (cell, outputs) in enumerate(zip((c for c in document["cells"] if c["cell_type"] == "code"), made, strict=True), 1):
        cell |= {"execution_count": number, "outputs": outputs}
    notebook.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
