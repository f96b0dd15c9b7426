"""What commands print: the text of `--help` and of `--cfg job`, and one-line messages.

Hydra's own output is not used, because it lacks the keys that only some options have, and because making it copies
Hydra's whole configuration store once for each group.
"""

import copy
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from distdiff.config.command import WITHOUT_KEYS, Command
from distdiff.config.composing import Job
from distdiff.errors import UserError

HYDRA_GROUPS = ("hydra/launcher", "hydra/sweeper")


def say(message: object) -> None:
    """Prints one line for the user to stderr; stdout holds the command's own output."""
    text = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in str(message))
    print(f"distdiff: {text}", file=sys.stderr)


@contextmanager
def ending_with_the_pipe() -> Iterator[None]:
    """Within the block, a write to a pipe that is closed ends the process without a word, as for `--help | head`.

    Afterwards such a write raises `BrokenPipeError` again: a process that goes on, such as a notebook, must not be
    ended by a peer that closes a socket. In a thread other than the main thread, the block changes nothing.
    """
    if not hasattr(signal, "SIGPIPE") or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        yield
        sys.stdout.flush()
    finally:
        signal.signal(signal.SIGPIPE, before)


def help_text(command: Command, about: str, job: Job) -> str:
    """The help text of a command: what it does (`about`), the options of its groups, and its configuration."""
    config = OmegaConf.masked_copy(job.config, [name for name in job.config if name != "hydra"])
    groups = (*sorted(command.groups), *[name for name in WITHOUT_KEYS if name in job.choices], *HYDRA_GROUPS)
    lines = [f"{group}: {', '.join(job.search.options(group))}" for group in groups]
    return f"""{about.strip()}

Change a value with group=option or group.key=value; sweep with -m key=a,b,c. --cfg job prints the configuration.

Groups and their options:

{chr(10).join(lines)}

Configuration:

{OmegaConf.to_yaml(config)}"""


def in_yaml(job: Job, config: DictConfig, part: str, package: str | None, resolve: bool) -> str:
    """A `part` (job, hydra or all) of the composed configuration of a job as YAML.

    If `resolve` is set, it is resolved, and the job's own part is complete: `config`.

    If `package` is given, only the part of the configuration with this name is returned. Raises `UserError` if there is
    no such part.
    """
    shown = copy.deepcopy(job.config)
    if resolve and part == "job":
        shown = config
    elif resolve:
        HydraConfig.instance().set_config(shown)  # for `${hydra:...}`
        OmegaConf.set_readonly(shown.hydra, None)
        OmegaConf.resolve(shown)
    shown = OmegaConf.masked_copy(
        shown, [name for name in shown if part == "all" or (name == "hydra") == (part == "hydra")]
    )
    if package not in (None, "_global_"):
        shown = OmegaConf.select(shown, package)
        if shown is None:
            raise UserError(f"--package={package} is not allowed: there is no such part of the configuration")
    return OmegaConf.to_yaml(shown) if OmegaConf.is_config(shown) else f"{shown}\n"
