"""Finds the commands of the command line, and makes their entry points."""

import ast
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from distdiff.cli.command import launched
from distdiff.cli.job import Tasks
from distdiff.commands.groups import GROUPS
from distdiff.config.command import command_names

RETURN_FIGURES = ("run", "train")
FETCH = "distdiff.commands.fetching:fetch"


def command(name: str, task: str | None = None) -> Callable[[], None]:
    """The command `name`, which is configured by `conf/<name>.yaml` and runs `distdiff/commands/<name>.py`.

    It runs `task` (`module:function`) instead if that is given.
    """
    return launched(name, Tasks(task or f"{_module(name)}:{name}", FETCH, name in RETURN_FIGURES), GROUPS, about(name))


def abouts() -> dict[str, str]:
    """Every command by name, with a sentence that says what it does."""
    return {name: about(name) for name in command_names()}


def about(name: str) -> str:
    """What a command does: the first line of the docstring of its module, which is read without importing the module."""
    source = Path(find_spec(_module(name)).origin).read_text(encoding="utf-8")
    return ast.get_docstring(ast.parse(source)).splitlines()[0].rstrip(".")


def _module(name: str) -> str:
    return f"distdiff.commands.{name}"
