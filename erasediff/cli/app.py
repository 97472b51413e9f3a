"""The Typer application, and the groups of subcommands that ``--help`` shows."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer
from typer.core import TyperGroup


class Group(StrEnum):
    """The groups of subcommands, in the order of ``--help``."""

    RUN = "Run"
    REQUESTS = "Requests"
    EVIDENCE = "Evidence"
    SERVING = "Serving"
    MODELS = "Models"
    STEPS = "Single steps of a run"


class _Grouped(TyperGroup):
    """Lists subcommands by group. Typer's own panels would also draw boxes around errors and wrap their sentences."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the groups."""
        commands = [command for name in self.list_commands(ctx) if (command := self.get_command(ctx, name)) is not None]
        for group in Group:
            rows = [command for command in commands if getattr(command, "rich_help_panel", None) == group]
            with formatter.section(group):
                formatter.write_dl([(str(command.name), command.get_short_help_str(200)) for command in rows])


def _exit_with(code: int, **_: object) -> None:
    """Exit with the code that a subcommand returned."""
    raise typer.Exit(int(code))


app = typer.Typer(
    cls=_Grouped,
    result_callback=_exit_with,
    name="erasediff",
    help="Make a diffusion model forget, and ship it only if a gate says PASS.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(value: bool) -> None:
    if value:
        from erasediff import __version__

        print(f"erasediff {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")] = False,
) -> None:
    """Make a diffusion model forget, and ship it only if a gate says PASS."""
