"""Makes configurations as the command line does, for a notebook, a study's script or a test."""

from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from distdiff.cli.directories import register_directories
from distdiff.commands.groups import GROUPS
from distdiff.config.checking import complete_option, validate, validate_jobs
from distdiff.config.command import Command, command_names
from distdiff.config.composing import compose_jobs, load_options


def configure(command: str, overrides: Sequence[str] = ()) -> DictConfig:
    """The checked configuration of a command with these overrides.

    Raises `UserError` if the configuration is not valid.
    """
    (job,) = compose_jobs(Command(command, GROUPS), list(overrides), multirun=False)
    return validate(job)


def configure_jobs(command: str, overrides: Sequence[str] = ()) -> list[DictConfig]:
    """The checked configurations of all jobs of a multirun with these overrides.

    Raises `UserError` if a configuration is not valid.
    """
    return validate_jobs(compose_jobs(Command(command, GROUPS), list(overrides), multirun=True))


def register_configs() -> None:
    """Lets another Hydra application compose the configuration of a DistDiff command, `defaults: [run, …]`.

    Call it before Hydra composes. The application needs `pkg://distdiff.conf` in its `hydra.searchpath`.
    """
    for name in command_names():
        Command(name, GROUPS).register(takes_more=True)
    register_directories(make=True)


def load_option(group: str, option: str, **keys: Any) -> DictConfig:
    """The option `option` of the group `group` of `conf/`, complete and checked.

    `keys` replace the values of some of the option's keys. References to other parts of a configuration
    (`${dataset.horizontal_flip}`) are left as they are. Raises `UserError` if a key or a value is not allowed.
    """
    (known,) = [known for known in GROUPS if known.name == group]
    node = load_options({(group, option): group})[group][option]
    OmegaConf.set_struct(node, False)
    return complete_option(known, option, OmegaConf.merge(node, keys))
