"""Result files: a list of flat rows, with the commit, the machine's core count and the date they were measured at."""

from __future__ import annotations

import json
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
ROOT = Path(__file__).parent.parent

Row = dict[str, Any]


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S607


def _commit() -> str:
    """The commit, marked as dirty if tracked files differ from it: result files apart, which a long benchmark writes as it goes."""
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", f":(exclude){RESULTS.relative_to(ROOT)}")
    return _git("rev-parse", "--short=12", "HEAD") + ("-dirty" if changed else "")


def stamped(row: Row) -> Row:
    """A row with where and when it was measured, unless it has that already."""
    return {"commit": _commit(), "cores": os.cpu_count(), "date": datetime.now(UTC).date().isoformat(), **row}


def write_rows(name: str, rows: list[Row]) -> None:
    """Write ``results/<name>.json``."""
    RESULTS.mkdir(exist_ok=True)
    text = "[\n" + ",\n".join("  " + json.dumps(stamped(row)) for row in rows) + "\n]\n"
    (RESULTS / f"{name}.json").write_text(text)


def read_rows(name: str) -> list[Row]:
    """The rows of ``results/<name>.json``; none if it was never measured."""
    path = RESULTS / f"{name}.json"
    return list(json.loads(path.read_text())) if path.is_file() else []
