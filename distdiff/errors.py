"""The errors that commands report in one line: mistakes that the user can fix, and requested stops."""

import signal

# The signals that stop work between two batches, as far as the operating system has them. Windows has no SIGUSR1, and
# sends SIGBREAK for Ctrl-Break.
STOPPING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGBREAK") if hasattr(signal, name)
)
ONWARD = "what is finished is kept, and the same command goes on from there"


class UserError(Exception):
    """A mistake in the input. Commands print the message as one line, without a traceback, and exit with status 2."""

    exit_status = 2
    said = False  # True once the message has been printed
    shared = False  # True if all ranks of a job raise this error, so that the leading rank alone reports it


class RankLost(UserError):
    """One of a job's processes is gone, so the others cannot go on.

    This is not the user's mistake, but a traceback would not help either.
    """

    exit_status = 1


class Stopped(BaseException):
    """A signal stopped the work at a point at which nothing is lost.

    It is not an `Exception`, so that `except Exception` does not catch it.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number
        self.exit_status = 128 + number


def onward(stop: Stopped | KeyboardInterrupt) -> str:
    """Which signal ended the work, and what becomes of it: `ONWARD`, or what a command has set as the attribute `onward`."""
    return f"{stop if isinstance(stop, Stopped) else 'interrupted'}; {getattr(stop, 'onward', ONWARD)}"


def first_line(error: Exception) -> str:
    """The first non-empty line of an error's message; the name of the error's type if the message is empty.

    A line that ends in a colon says nothing without the next one, which is added to it.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    said = lines[0]
    for line in lines[1:]:
        if not said.endswith(":"):
            break
        said = f"{said} {line}"
    return said
