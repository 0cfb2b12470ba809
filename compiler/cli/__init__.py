"""The command `tracemill`. Each command's module is imported when it runs, so that `run` starts at once."""

from __future__ import annotations

import importlib
import sys

import click

# command -> (module, one line)
_COMMANDS = {
    "run": ("script", "Run a script, its training steps compiled."),
    "compile": ("script", "Run a script until its graphs are compiled; print them, their kernels and peak bytes."),
    "dump": ("dump", "Print the graphs of a script, or of an .ir file, at a phase."),
    "opt": ("graphs", "Run passes over an .ir file and print the result."),
    "exec": ("graphs", "Run an .ir file."),
    "diff": ("graphs", "Show how two .ir files differ in structure."),
    "cache": ("machine", "Look at, or empty, the cache on disk."),
    "info": ("machine", "Show versions, CPU, threads and folders."),
}


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        module = importlib.import_module(f"{__name__}.{_COMMANDS[name][0]}")
        command = getattr(module, f"{name}_command")
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in _COMMANDS.items()])


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tracemill", prog_name="tracemill")
def cli() -> None:
    """A deep-learning compiler: PyTorch-style scripts become one static, readable IR, run on generated kernels.

    \b
    Exit codes: 0 done, 1 an error of the script or its input, 2 wrong usage, 3 a bug of tracemill,
    130 interrupted.

    \b
    Example:
      tracemill run --as-torch train.py
    """


def main() -> None:
    """Entry point of the console script."""
    from .report import guarded, plain_cache_warnings

    plain_cache_warnings()
    sys.exit(guarded(lambda: cli(standalone_mode=False)))
