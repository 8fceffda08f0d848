"""The command `vocoder`: one module for each group of subcommands.

A subcommand reads its arguments, calls the package and prints. Options that several share are in
`options`, what they do before and after the work in `output`. Heavy imports happen inside the
commands, so that `vocoder --help` answers at once.
"""

from __future__ import annotations

import io
import re
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

import vocoder
from vocoder.cli.corpora import synthesize_corpus
from vocoder.cli.measurement import benchmark, evaluate
from vocoder.cli.models import demo, export, info
from vocoder.cli.output import warnings_in_a_line
from vocoder.cli.speech import say
from vocoder.cli.synthesis import refine, resynthesize, synthesize


class _Commands(TyperGroup):
    """Reports user errors in one line, without a traceback, and exits with status 2."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # for names that are not UTF-8
        try:
            with warnings_in_a_line():
                return super().invoke(ctx)
        except BrokenPipeError:
            raise  # the reader of the output is gone: Typer exits quietly
        except (ValueError, OSError, ImportError, NotImplementedError) as error:
            # MelError, CheckpointError and AudioError are ValueErrors.
            typer.secho(f"vocoder: {error}", fg=typer.colors.RED, err=True)
            sys.exit(2)
        except MemoryError:
            typer.secho("vocoder: out of memory: give less at once", fg=typer.colors.RED, err=True)
            sys.exit(2)


class _Reading(TyperCommand):
    """A command whose text may begin with a dash: `vocoder say "-5 degrees"`."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        dashed = re.compile(r"-+[^A-Za-z-]")  # no option begins so
        return super().parse_args(ctx, [f" {a}" if dashed.match(a) else a for a in args])


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


# In the order in which --help lists them.
for _command in (
    synthesize,
    synthesize_corpus,
    resynthesize,
    say,
    refine,
    export,
    benchmark,
    evaluate,
    demo,
    info,
):
    app.command(cls=_Reading if _command is say else None)(_command)


def main() -> None:
    """Entry point of the installed command."""
    app()


__all__ = ["app", "main"]
