"""What commands answer with one line: a mistake that the user can mend, and a stop that was asked for."""

import signal

ONWARD = "what is finished is kept, and the same command goes on from there"


class UserError(Exception):
    """A mistake in the input. Commands print the message as one line, without a traceback, and exit with status 2."""

    exit_status = 2
    shared = False  # raised on all ranks of a job, so that its leading rank says it


class RankLost(UserError):
    """One of a job's processes is gone, so that the others cannot go on: no user's mistake, but no traceback helps either."""

    exit_status = 1


class Stopped(BaseException):
    """Work was stopped by a signal at a place where nothing is lost; no error, so that nothing on the way swallows it."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number
        self.exit_status = 128 + number


def first_line(error: Exception) -> str:
    """The first line of an error's message that says something."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
