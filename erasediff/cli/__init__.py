"""``erasediff …``: one subcommand a step, and those that do several or look after what came of them.

Nothing heavy is imported before a subcommand needs it, so that ``--help`` answers at once.
"""

from __future__ import annotations

import sys
import tempfile
import traceback
from pathlib import Path

from erasediff.cli.app import app
from erasediff.environment import settle
from erasediff.errors import EraseDiffError, ExitCode

# Each registers its subcommands, in the order that --help has.
# isort: off
from erasediff.cli import pipeline, serving, models, steps, evidence, concepts  # noqa: F401
# isort: on


def _write_traceback() -> Path:
    with tempfile.NamedTemporaryFile("w", prefix="erasediff-", suffix=".log", delete=False) as handle:
        handle.write(traceback.format_exc())
    return Path(handle.name)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code; see :class:`erasediff.errors.ExitCode`."""
    settle()
    try:
        app(args=arguments, prog_name="erasediff")
        return ExitCode.OK
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else ExitCode.UNEXPECTED
    except EraseDiffError as error:
        print(f"erasediff: {error}", file=sys.stderr)
        return error.exit_code
    except Exception as error:  # the one place where anything unexpected becomes a sentence; the traceback is kept
        print(f"erasediff: {type(error).__name__} was not expected; the traceback is in {_write_traceback()}.", file=sys.stderr)
        return ExitCode.UNEXPECTED
