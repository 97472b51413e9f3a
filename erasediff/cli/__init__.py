"""The command line: one subcommand for each step, and those for whole runs, requests, evidence, serving and models.

Subcommands import heavy modules only when they run, so that ``--help`` is fast.
"""

from __future__ import annotations

import tempfile
import traceback
from pathlib import Path

from erasediff.cli.app import app
from erasediff.environment import close_umask, configure_process
from erasediff.errors import EraseDiffError, ExitCode, explain_missing_module
from erasediff.logs import report_failure

# Each module registers its subcommands, in the order of --help.
# isort: off
from erasediff.cli import pipeline, kubeflow, requests, evidence, serving, models, concepts, steps  # noqa: F401
# isort: on


def _write_traceback() -> Path:
    with tempfile.NamedTemporaryFile("w", prefix="erasediff-", suffix=".log", delete=False) as handle:
        handle.write(traceback.format_exc())
    return Path(handle.name)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code; see :class:`erasediff.errors.ExitCode`."""
    configure_process()
    close_umask()
    try:
        app(args=arguments, prog_name="erasediff")
        return ExitCode.OK
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else ExitCode.UNEXPECTED
    except Exception as error:  # the only place where an unexpected error becomes a sentence; the traceback goes to a file
        known = explain_missing_module(error) if isinstance(error, ModuleNotFoundError) else error
        if isinstance(known, EraseDiffError):
            report_failure(f"erasediff: {known}")
            return known.exit_code
        report_failure(f"erasediff: {type(error).__name__} was not expected: the traceback is in {_write_traceback()}.")
        return ExitCode.UNEXPECTED
