"""The one exception that means: the user can mend this, and the message says how."""


class UserError(Exception):
    """A mistake in the input. Commands print the message as one line, without a traceback, and exit with status 2."""
