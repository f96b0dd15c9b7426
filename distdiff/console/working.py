"""Says what a command does before it has any progress to show: it checks its configuration, or imports libraries."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import ClassVar

from distdiff.console.output import console


class Working:
    """A message for the time in which a command has nothing else to say.

    On a terminal, `doing` stands beside a spinner inside each `shown` block, and nothing is left of it. Elsewhere, it is
    printed once, as a line, if a `shown` block is still going on `patience` seconds after this object was made.
    """

    _in_hand: ClassVar[ExitStack | None] = None  # ends the block that goes on

    def __init__(self, doing: str, patience: float) -> None:
        self.doing = doing
        self.due = time.monotonic() + patience
        self._said = False

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Shows the message until the block ends, or `end` is called inside it."""
        with ExitStack() as ending:
            if console.is_interactive and not console.quiet:
                ending.enter_context(console.status(self.doing))
            elif not self._said and not console.quiet:
                timer = threading.Timer(max(0.0, self.due - time.monotonic()), self._say)
                timer.daemon = True
                timer.start()
                ending.callback(timer.join)  # so that a line that is being printed comes before the next one
                ending.callback(timer.cancel)
            Working._in_hand = ending
            try:
                yield
            finally:
                Working._in_hand = None

    @staticmethod
    def end() -> None:
        """Ends the message that is being shown, if there is one, because something else is to be said."""
        if Working._in_hand is not None:
            Working._in_hand.close()

    def _say(self) -> None:
        self._said = True
        console.print(self.doing)
