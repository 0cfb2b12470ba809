"""`python -m tracemill` is the command `tracemill`."""

from .compiler.cli import main

main()
