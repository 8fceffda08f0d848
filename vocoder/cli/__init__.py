"""The command `vocoder`: one module for each group of subcommands.

Heavy imports happen inside the commands, so that `vocoder --help` answers at once.
"""

from __future__ import annotations

import io
import re
import sys
import warnings
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

import vocoder
from vocoder.cli.corpora import synthesize_corpus
from vocoder.cli.measurement import benchmark, evaluate
from vocoder.cli.models import demo, export, info, serve, train
from vocoder.cli.output import warn
from vocoder.cli.synthesis import mel, refine, resynthesize, say, synthesize


class _Commands(TyperGroup):
    """Reports warnings and errors of users in one line each, and exits with status 2."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # for names that are not UTF-8
        before = warnings.showwarning

        def show(message: Any, category: Any, *place: Any, **more: Any) -> None:
            if category is UserWarning:
                warn(f"vocoder: warning: {message}")
            else:
                before(message, category, *place, **more)

        try:
            with warnings.catch_warnings():
                warnings.showwarning = show
                return super().invoke(ctx)
        except BrokenPipeError:
            raise  # the reader of the output is gone: Typer exits quietly
        except (ValueError, OSError, ImportError, NotImplementedError, MemoryError) as error:
            # MelError, CheckpointError and AudioError are ValueErrors.
            reason = "out of memory: give less at once" if isinstance(error, MemoryError) else error
            typer.secho(f"vocoder: {reason}", fg=typer.colors.RED, err=True)
            sys.exit(2)


class _Say(TyperCommand):
    """Takes text that begins with a dash: no option begins with one and what is no letter."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        args = [f" {word}" if re.match(r"-+[^A-Za-z-]", word) else word for word in args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    name="vocoder",
    cls=_Commands,
    help="Log-mel spectrograms to speech by a normalizing flow.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(f"flow-vocoder {vocoder.__version__}")
        raise typer.Exit


for command in (synthesize, synthesize_corpus, resynthesize):
    app.command()(command)
app.command(cls=_Say)(say)
for other in (mel, refine, export, benchmark, evaluate, demo, serve, info):
    app.command()(other)
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(train)


def main() -> None:
    """Entry point of the installed command."""
    app()
