"""Makes the commands of the command line, each of which is a script of a few lines in `experiments/`."""

from collections.abc import Callable

from distdiff.cli.command import launched
from distdiff.cli.job import Tasks
from distdiff.commands.groups import GROUPS

FETCH = "distdiff.commands.fetching:fetch"


def command(name: str, task: str, about: str) -> Callable[[], None]:
    """The command `name`, which runs `task` (`module:function`). The command's `--help` begins with `about`."""
    return launched(name, Tasks(run=task, fetch=FETCH), GROUPS, about)
