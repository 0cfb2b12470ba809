"""The one error hierarchy. Errors a user can cause are `TracemillError`s: where, what, how to go on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Location:
    """A line of the user's program (or of an `.ir` file)."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class TracemillError(Exception):
    """Base of all errors raised on purpose.

    Args:
        message: what is wrong, with operator, shapes and dtypes where they matter.
        location: the user's line, if known.
        hint: what to do instead.
    """

    def __init__(self, message: str, *, location: Location | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.location = location
        self.hint = hint

    def __str__(self) -> str:
        where = f"{self.location}: " if self.location else ""
        hint = f"\n  hint: {self.hint}" if self.hint else ""
        return f"{where}{self.message}{hint}"


class ShapeError(TracemillError, ValueError, RuntimeError):
    """Shapes that do not fit an operator. (Also a RuntimeError: PyTorch scripts catch that.)"""


class DTypeError(TracemillError, TypeError, RuntimeError):
    """Dtypes that do not fit an operator."""


class AttributeValueError(TracemillError, ValueError, RuntimeError):
    """An operator's attribute is missing, of the wrong kind, or out of range."""


class IndexRangeError(TracemillError, IndexError, RuntimeError):
    """An index outside its dimension, found while tracing or while running."""


class AutogradError(TracemillError, RuntimeError):
    """Misuse of automatic differentiation."""


class CaptureError(TracemillError, RuntimeError):
    """Something inside `tm.compile` that cannot be captured in a static graph."""


class NotSupportedError(TracemillError, NotImplementedError, RuntimeError):
    """A feature that tracemill does not offer; the hint says what to use instead."""


class VerifyError(TracemillError):
    """A graph that breaks the rules of the IR."""


class IRSyntaxError(TracemillError):
    """IR text that does not parse; shows the line with a caret."""

    def __init__(self, message: str, *, source: str, line: int, column: int, file: str = "<ir>") -> None:
        super().__init__(message, location=Location(file, line))
        self.line, self.column = line, column
        lines = source.splitlines()
        self.text = lines[line - 1] if 0 < line <= len(lines) else ""

    def __str__(self) -> str:
        caret = " " * (self.column - 1) + "^"
        return f"{self.location}:{self.column}: {self.message}\n  {self.text}\n  {caret}"


class CheckpointError(TracemillError, RuntimeError):
    """A file that cannot be loaded, or a state that does not fit the model."""


class KernelError(TracemillError, RuntimeError):
    """A running kernel met bad data; nothing was written to parameters or state."""


class CacheError(TracemillError):
    """The on-disk cache cannot be used safely."""


class InternalError(TracemillError):
    """A bug of tracemill itself, with a path to a reproducer where one was written."""

    def __str__(self) -> str:
        return f"internal error (a bug in tracemill, not in your script): {super().__str__()}"
