"""Interrupts: what a signal handler raises (KeyboardInterrupt) while a run is in native code.

Python calls signal handlers between instructions of its own, so such an exception shows when the native call has
returned: the run is complete, its results are there. Losing them would leave some parameters updated and others not.
So the executor catches the exception, hands out the results, and the exception is raised where nothing is half done:
at the end of the run, or, for a caller that has to put the results in their places first, at the end of `deferred()`.
"""

from __future__ import annotations

import threading


class Interrupts(threading.local):
    """The state of one thread (Python calls signal handlers on the main thread only).

    Attributes:
        caught: what was raised in the middle of a run.
        depth: how many callers want it to wait.
    """

    def __init__(self) -> None:
        self.caught: BaseException | None = None
        self.depth = 0

    def defer(self) -> None:
        """From now on interrupts of runs wait for `release`."""
        self.depth += 1

    def release(self) -> None:
        """Undo one `defer`; after the last one, raise what has been waiting."""
        self.depth -= 1
        if self.caught is not None:
            self.show()

    def show(self) -> None:
        """Raise what has been caught, unless someone wants it to wait."""
        error = self.caught
        if error is not None and self.depth == 0:
            self.caught = None
            raise error


INTERRUPTS = Interrupts()
