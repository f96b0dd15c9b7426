"""The commands from the command line, each a script of a few lines in `experiments/`."""

from collections.abc import Callable

from distdiff.commands.groups import GROUPS
from distdiff.launching.command import launched
from distdiff.launching.job import Tasks

FETCH = "distdiff.commands.fetching:fetch"


def command(name: str, task: str, about: str) -> Callable[[], None]:
    """The command `name`, which runs `task` (`module:function`); `about` heads its `--help`."""
    return launched(name, Tasks(run=task, fetch=FETCH), GROUPS, about)
