"""The application that the subcommands join."""

from __future__ import annotations

from typing import Annotated

import typer


def _exit_with(code: int, **_: object) -> None:
    """Turn what a subcommand returned into the exit status."""
    raise typer.Exit(int(code))


app = typer.Typer(
    result_callback=_exit_with,
    name="erasediff",
    help="Make an image-generating diffusion model forget, and ship it only if a gate says PASS.",
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
    """Make an image-generating diffusion model forget, and ship it only if a gate says PASS."""
