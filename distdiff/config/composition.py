"""Composes a command's jobs as Hydra does, before Hydra runs them, so that each mistake is reported in one line."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from distdiff.config.arguments import in_grammar, refuse_sweeps
from distdiff.config.command import Command, schema_keys
from distdiff.config.explanations import explain_composition
from distdiff.config.options import COMPOSING_ERRORS, SearchPath, targets_of
from distdiff.config.signatures import signature_of
from distdiff.errors import UserError


@dataclass(frozen=True)
class Job:
    """One composed job, not checked yet.

    `choices` maps each group to its chosen option. `typed` holds the job's overrides, except overrides of Hydra's own
    keys.
    """

    command: Command
    config: DictConfig
    choices: Mapping[str, str]
    typed: tuple[str, ...] = ()
    search: SearchPath = SearchPath()

    def typed_for(self, full_key: str) -> str | None:
        """The last override of `full_key` or of a key nested in it; None if there is no such override."""
        for override in reversed(self.typed):
            name = override.partition("=")[0].lstrip("+")
            if name == full_key or name.startswith(f"{full_key}."):
                return override.lstrip("+")
        return None


def compose_jobs(command: Command, overrides: list[str], multirun: bool, search: SearchPath | None = None) -> list[Job]:
    """All jobs that `overrides` ask for; there is only one unless `multirun` is set.

    Raises `UserError` if a job cannot be composed.
    """
    overrides = in_grammar(overrides, *special_keys(command))
    search = SearchPath.of(None, overrides) if search is None else search
    parsed = parse(overrides)
    if not multirun:
        refuse_sweeps(parsed, lambda: list_keys(command, search), *special_keys(command))
    command.register()
    jobs = []
    with search.open() as hydra:
        for chosen in _sweep(parsed) if multirun else [tuple(overrides)]:
            try:
                config = compose(command.name, overrides=list(chosen), return_hydra_config=True)
            except (*COMPOSING_ERRORS, ValueError) as error:  # a ValueError if a group is not set to a name
                raise UserError(explain_composition(hydra, command, parse(chosen), error)) from None
            choices = {str(name): str(option) for name, option in config.hydra.runtime.choices.items()}
            typed = tuple(item for item in chosen if not item.lstrip("+").startswith("hydra"))
            jobs.append(Job(command, config, choices, typed, search=search))
    return jobs


def vary(job: Job, overrides: list[str], leaving_out: str) -> Job:
    """The job with further `overrides`, and without those of its own overrides that concern the group `leaving_out`.

    If `overrides` choose another option of a group, the job's own overrides of that group's keys are dropped, since the
    new option may not have these keys. Overrides of keys that every option takes are kept.
    """
    overrides, groups = in_grammar(overrides, *special_keys(job.command)), job.command.groups
    given = parse(overrides)
    changed = {item.key_or_group for item in given}
    other = {
        item.key_or_group for item in given if str(item.value()) != job.choices.get(item.key_or_group)
    } & groups.keys()

    def is_kept(place: str) -> bool:
        group, _, key = place.partition(".")
        if group == leaving_out or place in changed:
            return False
        return group not in other or key in groups[group].taken_everywhere

    kept = [item for item, override in zip(job.typed, parse(job.typed), strict=True) if is_kept(override.key_or_group)]
    (varied,) = compose_jobs(job.command, [*kept, *overrides], multirun=False, search=job.search)
    return varied


def parse(overrides: Iterable[str]) -> list[Override]:
    """Overrides as Hydra's parser reads them."""
    return OverridesParser.create().parse_overrides(list(overrides))


def swept_keys(overrides: Iterable[str]) -> set[str]:
    """The keys and groups to which `overrides` give several values, one per job."""
    given = parse([item for item in overrides if "=" in item and not item.startswith("-")])
    return {override.get_key_element() for override in given if override.is_sweep_override()}


def special_keys(command: Command) -> tuple[set[str], set[str]]:
    """The keys that hold paths, and the keys that hold sentences. Users need not quote the values of either."""
    groups = command.known_groups
    paths = {f"{group.name}.{name}" for group in groups for name in group.paths}
    texts = {f"{group.name}.{name}" for group in groups for name in group.texts}
    return paths | {"hydra.run.dir", "hydra.sweep.dir"}, texts


def list_keys(command: Command, search: SearchPath) -> set[str]:
    """The keys whose value may be a list."""
    found = {name for name, item in schema_keys(command.schema) if _takes_list(item.type, item.metadata)}
    for name, group in command.groups.items():
        for target in set(targets_of(name, search).values()) if group.options_have_keys else ():
            found |= {f"{name}.{own}" for own, item in signature_of(target).keys.items() if item.takes_list}
    return found


def _takes_list(kind: Any, metadata: Mapping[str, Any]) -> bool:
    return "list" in str(kind) or (kind is Any and "words" not in metadata)


def _sweep(parsed: list[Override]) -> Iterator[tuple[str, ...]]:
    choices = []
    for override in parsed:
        name = override.get_key_element()
        if override.is_sweep_override():
            choices.append([f"{name}={value}" for value in override.sweep_string_iterator()])
        else:
            choices.append([override.input_line])
    return itertools.product(*choices)
