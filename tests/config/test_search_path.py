"""Composing does not repeat what cannot have changed, and gives what Hydra gives."""

from itertools import count
from pathlib import Path

import pytest
from conftest import compose
from counting import calls_of
from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_store import ConfigStore
from hydra.core.utils import setup_globals
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from distdiff.commands.configuration import register_configs
from distdiff.option_files.overrides import parse
from distdiff.option_files.search_path import OURS, HydraLoader, SearchPath

READ, CHOOSE = "FileConfigSource.load_config", "create_defaults_list"
TYPED = ["guidance=direct", "guidance.rho=3", "dataset.per_class=7"]


def composed_by_hydra(command: str, overrides: list[str], mode: RunMode = RunMode.RUN) -> object:
    """What Hydra's own function gives, with a loader that has kept nothing."""
    loader = SearchPath.loader.__wrapped__(OURS)
    config = loader.load_configuration(command, overrides, mode, from_shell=False)
    return OmegaConf.to_container(config, resolve=False)


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        TYPED,
        ["guidance.rho=3", "guidance=transform", "guidance.rho=4"],
        ["+guidance.added=1", "++guidance.rho=2", "++dataset.added={a: [1, b]}"],
        ["~guidance.rho", "expansion.strength={low: 0.3, high: 0.5}", "expansion.strength.low=0.4"],
        ["dataset={per_class: 3}", "generator.lora=[a, b]", "study.methods=[original,'none']", "seed='7'"],
        ["hydra.job.chdir=true", "hydra.job.config.override_dirname.exclude_keys=[seed]", "seed=5", "guidance.rho=1"],
        ["experiment=published", "dataset=imagefolder", "dataset.root=${paths.output_dir}/images"],
        ["~logger", "hydra.run.dir=here"],
        ["hydra.verbose=true", "seed=5", "hydra.job.env_copy=[HOME]", "hydra/hydra_help=default", "+hydra.env.own=1"],
        ["hydra.job.config_name=x", "hydra.runtime.version=x", "hydra.job.override_dirname=x", "seed=5"],
        [
            "hydra.overrides.task=['seed=3']",
            "+hydra.runtime.choices.guidance=direct",
            "hydra.runtime.config_sources=[]",
        ],
        ["hydra.sweeper.max_batch_size=2", "hydra.sweep.subdir=${hydra.job.override_dirname}", "hydra.mode=MULTIRUN"],
    ],
)
def test_a_configuration_is_the_one_that_hydra_composes(overrides: list[str], monkeypatch, tmp_path: Path) -> None:
    compose("run", [])  # registers the schema
    OURS.compose("run", overrides)
    monkeypatch.chdir(tmp_path)  # which Hydra notes
    assert OmegaConf.to_container(OURS.compose("run", overrides), resolve=False) == composed_by_hydra("run", overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["seed=1,2", *TYPED, "classifier=small_cnn,small_resnet", "guidance.rho=range(1,3)"],
        ["hydra/sweeper=basic", "seed=5", "seed=choice(1,2)", "hydra.sweep.dir=here", "hydra.mode=MULTIRUN"],
        ["experiment=published,default", "+guidance.added=1,2", "expansion.strength={low: 0.3, high: 0.5}"],
    ],
)
def test_so_is_that_of_a_sweep(overrides: list[str]) -> None:
    compose("run", [])
    for _ in range(2):
        ours = OURS.compose("run", overrides, RunMode.MULTIRUN)
        assert OmegaConf.to_container(ours, resolve=False) == composed_by_hydra("run", overrides, RunMode.MULTIRUN)


def test_hydras_loader_gives_the_jobs_of_a_sweep_as_hydra_does_and_makes_no_list_of_defaults_twice(monkeypatch) -> None:
    compose("run", [])
    monkeypatch.setenv("OWN_VARIABLE", "copied")
    typed = [*TYPED, "hydra.sweep.dir=here", "hydra.job.env_copy=[OWN_VARIABLE]", "hydra.mode=MULTIRUN", "seed=1,2,3"]
    jobs = [[*TYPED, f"seed={seed}"] for seed in (1, 2, 3)]

    def composed(loader: ConfigLoaderImpl) -> list[object]:
        sweep = loader.load_configuration("run", typed, RunMode.MULTIRUN)
        found = [sweep, *(loader.load_sweep_config(sweep, job) for job in jobs)]
        return [OmegaConf.to_container(config, resolve=False) for config in found]

    loader = HydraLoader(None)
    ours = composed(loader)
    assert ours[2]["hydra"]["job"]["env_set"] == {"OWN_VARIABLE": "copied"}
    assert ours == composed(ConfigLoaderImpl(loader.config_search_path))
    assert calls_of(lambda: composed(loader))[CHOOSE] == 0


def test_each_configuration_has_its_own_time() -> None:
    """Of the patterns, also those that Hydra resolves itself while it composes."""
    typed = ["hydra.run.dir=${now:%Y-%m-%d}/${now:%H-%M-%S}"]
    compose("run", [])
    OURS.compose("run", typed)
    times = count()
    try:
        OmegaConf.register_new_resolver("now", lambda pattern: str(next(times)), use_cache=True, replace=True)
        for expected in ("0/1", "2/3"):
            config = OURS.compose("run", typed)
            assert config.hydra.run.dir == config.hydra.run.dir == expected
    finally:
        setup_globals()  # Hydra's resolver


def test_an_override_is_parsed_once() -> None:
    parse(["seed=1", "seed=2"])
    assert calls_of(lambda: parse(["seed=1", "seed=2", "seed=1"]))["OverridesParser.parse_rule"] == 0


def test_only_hydra_refuses_a_sweep_over_its_own_keys() -> None:
    compose("run", [])
    for _ in range(2):
        with pytest.raises(HydraException, match="Sweeping over Hydra's configuration is not supported"):
            OURS.compose("run", ["hydra.verbose=true,false"], RunMode.MULTIRUN)


def test_a_configuration_names_the_version_that_the_application_of_the_process_asked_for(monkeypatch) -> None:
    compose("run", [])
    for base in ("1.2", "1.3"):
        monkeypatch.setattr(version.VersionBase.instance(), "version_base", version.Version(base))
        assert OmegaConf.to_container(OURS.compose("run", []), resolve=False) == composed_by_hydra("run", [])
        assert OURS.compose("run", []).hydra.runtime.version_base == base


@pytest.mark.parametrize(
    "override",
    ["guidance=nobody", "~guidance.none", "seed=1,2", "+seed=3", "study.seeds=[", "other=3"],
)
def test_a_mistake_is_the_one_that_hydra_reports(override: str) -> None:
    compose("run", [])
    for overrides in ([override], [*TYPED, override]):
        with pytest.raises(HydraException) as ours:
            OURS.compose("run", overrides)
        with pytest.raises(type(ours.value)) as theirs:
            composed_by_hydra("run", overrides)
        assert str(ours.value) == str(theirs.value)


def test_options_are_read_once_and_chosen_once_for_all_values_of_keys() -> None:
    compose("expand", TYPED)
    again = calls_of(lambda: compose("expand", ["guidance=direct", "guidance.rho=4", "dataset.per_class=8"]))
    assert again[CHOOSE] == again[READ] == 0
    other = calls_of(lambda: OURS.compose("expand", ["guidance=direct", "generator=sd15", "encoder=hf"]))
    assert other[CHOOSE] == 1
    assert other[READ] <= 2


def test_a_configuration_that_is_changed_changes_no_other() -> None:
    compose("expand", [])  # registers the schema
    untouched = composed_by_hydra("expand", TYPED)
    changed = compose("expand", TYPED)
    changed.guidance.rho, changed.dataset.per_class = 4, 8
    OURS.compose("expand", TYPED).generator.lora.append("added")
    assert OmegaConf.to_container(OURS.compose("expand", TYPED), resolve=False) == untouched


def test_options_that_others_name_are_as_they_were_for_the_next_configuration() -> None:
    """One that a job has changed in place, and one of which a job sets a key."""
    typed = ["study.methods=[original,randaugment]", "study.rows={}"]
    first = compose("run", typed).options
    untouched = OmegaConf.to_container(first, resolve=False)
    group, (option, *_) = next((group, [*first[group]]) for group in first if first[group] and group != "rows")
    key = next(key for key, value in first[group][option].items() if isinstance(value, int | float))
    first[group][option][key] = -1
    assert OmegaConf.to_container(compose("run", typed).options, resolve=False) == untouched
    other = compose("run", [*typed, "options.classifier.small_cnn.input_size=48"]).options
    assert other.classifier.small_cnn.input_size == 48
    assert OmegaConf.to_container(compose("run", typed).options, resolve=False) == untouched


def test_files_of_other_folders_are_read_whenever_they_are_composed(tmp_path: Path) -> None:
    option = tmp_path / "guidance/mine.yaml"
    option.parent.mkdir()
    typed = [f"hydra.searchpath=['file://{tmp_path}']", "guidance=mine"]
    for rho in (1.0, 2.0):
        option.write_text(f"defaults: [direct]\nrho: {rho}\n", encoding="utf-8")
        assert compose("expand", typed).guidance.rho == rho
    assert compose("expand", ["guidance=direct"]).guidance.rho not in (1.0, 2.0)


def test_a_folder_on_the_command_line_is_looked_into_each_time(tmp_path: Path) -> None:
    option = tmp_path / "own/mine.yaml"
    option.parent.mkdir()
    for number in (1, 2):
        option.write_text(f"number: {number}\n", encoding="utf-8")
        assert OURS.compose(None, [f"hydra.searchpath=['file://{tmp_path}']", "+own=mine"]).own.number == number


def test_a_schema_is_registered_again_only_if_another_one_is() -> None:
    def registered() -> DictConfig:
        return ConfigStore.instance().repo["train_schema.yaml"].node

    compose("train", [])
    ours = registered()
    compose("train", ["seed=3"])
    assert registered() is ours
    register_configs()  # for other applications, which may add keys
    theirs = registered()
    assert (ours._get_flag("struct"), theirs._get_flag("struct")) == (None, False)
    compose("train", [])
    assert registered() == ours
    assert registered()._get_flag("struct") is None
