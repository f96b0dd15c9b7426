"""Every YAML file is an option or a command: it composes, its keys are those of what it names, and that is built from them."""

import copy
from dataclasses import fields
from importlib.util import find_spec

import pytest
import torch
from bench import random_prototypes
from conftest import ROOT, compose
from hydra.errors import HydraException
from omegaconf import MISSING, OmegaConf

from distdiff.caching.stages import StageCache
from distdiff.classification.config import NETWORK_PACKAGE, WEIGHTS_PACKAGE
from distdiff.classification.networks import ImageClassifier
from distdiff.commands.configuration import load_option
from distdiff.commands.groups import GROUPS
from distdiff.config.command import NOT_COMMANDS, WITHOUT_KEYS, Command
from distdiff.config.composing import load_options
from distdiff.data.images import LabelledImages
from distdiff.encoders.source import EncoderContext, EncoderSource
from distdiff.energy.base import Energy
from distdiff.guidance.base import Guidance
from distdiff.guidance.config import needs_of as guidance_needs_of
from distdiff.keys import NAME, TARGET, build, keys_taken_by
from distdiff.keys.schema import schema_keys
from distdiff.keys.signatures import signature_of
from distdiff.methods.base import Method
from distdiff.metrics.base import Metric
from distdiff.option_files.search_path import CONFIG_DIR, OURS, SearchPath
from distdiff.prototypes.exemplars import Exemplars
from distdiff.selection.base import Selection

COMMANDS = sorted(path.stem for path in CONFIG_DIR.glob("*.yaml") if path.stem not in NOT_COMMANDS)
FIRST = ["expand", *(command for command in COMMANDS if command != "expand")]
BY_NAME = {group.name: group for group in GROUPS}
OPTIONS = [(group.name, option) for group in GROUPS if group.options_have_keys for option in OURS.options(group.name)]
GIVEN = {
    "generator=local": [f"generator.model={ROOT}/distdiff/assets/tiny_digits"],
}
FLIP = {"horizontal_flip": True}  # of a dataset, which these ask
IS_THERE = "distdiff.data.config.check_root_is_there"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_composes_with_the_first_command_that_has_its_group(command: str, monkeypatch) -> None:
    monkeypatch.setattr(IS_THERE, lambda dataset: None)
    monkeypatch.setattr("distdiff.classification.config.find_spec", lambda name: name)  # as if all were installed
    # To save time. Every other command is composed with its defaults.
    before = {name for other in FIRST[: FIRST.index(command)] for name in Command(other, GROUPS).groups}
    alone = ["benchmark.rows={}"] if command == "benchmark" else []  # each row is a configuration of its own
    compose(command, alone)
    for group in Command(command, GROUPS).groups.keys() - before:
        for option in OURS.options(group):
            compose(command, [f"{group}={option}", *GIVEN.get(f"{group}={option}", []), *alone])


def test_every_yaml_file_belongs_to_a_command_or_a_group() -> None:
    folders = {path.parent.name for path in CONFIG_DIR.glob("*/*.yaml")}
    assert folders == {*BY_NAME, *WITHOUT_KEYS}
    assert {path.stem for path in CONFIG_DIR.glob("*.yaml")} == {*COMMANDS, *NOT_COMMANDS}


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_an_options_keys_are_what_its_target_takes_each_with_one_default(group: str, option: str) -> None:
    node = load_options({(group, option): group})[group][option]
    if not node.get(TARGET):
        return
    common = {item.name for item in fields(BY_NAME[group].keys)}
    own = signature_of(node[TARGET]).keys
    assert set(node) - common - {TARGET, NAME} <= own.keys(), "the YAML file has a key that nothing reads"
    for name, parameter in own.items():
        given = name in set(node)
        assert given or parameter.default != MISSING or name in common, f"{name} has no default"
        repeats = given and node._get_node(name) == parameter.default != MISSING
        assert not repeats, f"{name} has the same default twice"


@pytest.mark.parametrize("group", BY_NAME)
def test_a_key_that_every_yaml_file_of_its_group_gives_has_no_other_default(group: str) -> None:
    names = OURS.options(group)
    nodes = load_options({(group, option): group for option in names})[group]
    for item in fields(BY_NAME[group].keys):
        if item.name != TARGET and all(item.name in nodes[option] for option in names):
            assert item.default == MISSING, f"{group}.{item.name} has two defaults"


def test_an_option_that_chooses_among_hydras_own_groups_can_be_named(tmp_path) -> None:
    """Hydra's own part, which such a choice needs, is left out when options are loaded by their names."""
    file = tmp_path / "guidance/quiet.yaml"
    file.parent.mkdir()
    file.write_text("defaults: [override /hydra/job_logging@_global_.hydra.job_logging: disabled, _self_]\nrho: 3\n")
    found = load_options({("guidance", "quiet"): "key"}, SearchPath((f"file://{tmp_path}",)))
    assert found == {"guidance": {"quiet": {"rho": 3}}}


def test_a_search_path_is_for_one_composition_alone(tmp_path) -> None:
    file = tmp_path / "guidance/own.yaml"
    file.parent.mkdir()
    file.write_text("rho: 3\n")
    given = [f"hydra.searchpath=['file://{tmp_path}']", "+guidance=own"]
    assert OURS.compose(None, given).guidance == {"rho": 3}
    assert "own" not in OURS.options("guidance")
    with pytest.raises(HydraException):
        OURS.compose(None, given[1:])


def test_no_composition_changes_what_the_next_one_starts_from() -> None:
    """Schemas and their defaults are made once in a process and copied for each configuration."""
    first = compose("run", [])
    unchanged = copy.deepcopy(first)
    first.seed, first.guidance.rho = 5, 0.5
    first.generator.lora.append("added")
    OmegaConf.update(first, "options.added", 1, force_add=True)
    assert first != unchanged
    assert compose("run", []) == unchanged


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_a_signature_that_is_read_from_the_source_is_the_one_that_python_sees(group: str, option: str) -> None:
    target = load_options({(group, option): group})[group][option].get(TARGET)
    if not target:
        return
    from hydra.utils import get_object

    assert signature_of(target).keys.keys() == keys_taken_by(get_object(target))


def test_every_option_is_built_from_its_keys(tmp_path) -> None:
    config = compose("run", [f"paths.output_dir={tmp_path}", "encoder.guide.steps=1"])
    prototypes = random_prototypes(6)
    exemplars = Exemplars(torch.zeros(1, 6), None, ("a",))
    encoder_context = EncoderContext(config.trainer, StageCache(tmp_path), config.options)
    kinds = {
        "classifier": (ImageClassifier, (3,)),
        "augmentation": (torch.nn.Module, ()),
        "optimizer": (dict, ([torch.nn.Parameter(torch.zeros(1))], 3)),
        "metric": (Metric, ()),
        "method": (Method, ()),
        "selection": (Selection, ()),
        "encoder": (EncoderSource, (encoder_context,)),
    }
    lacking = set() if find_spec(NETWORK_PACKAGE) and find_spec(WEIGHTS_PACKAGE) else {"efficientnet_lite0"}
    for group, option in OPTIONS:
        if option in lacking:
            continue
        given = {f"augmentation/{name}": FLIP for name in ("default", "affine", "rotate", "mixup", "cutmix")}
        node = load_option(group, option, **given.get(f"{group}/{option}", {}))
        if group == "energy":
            (need,) = signature_of(node[TARGET]).context
            assert isinstance(build(node, {"prototypes": prototypes, "exemplars": exemplars}[need]), Energy)
        elif group == "guidance":
            assert isinstance(build(node, *(None for _ in guidance_needs_of(node))), Guidance)
        elif group in kinds:
            kind, context = kinds[group]
            assert isinstance(build(node, *context), kind), (group, option)


def test_datasets_that_need_no_files_are_built_from_their_keys() -> None:
    for option, more in (("digits", {}), ("font_digits", {"num_images": 200})):
        config = compose(
            "describe", [f"dataset={option}", *(f"dataset.{name}={value}" for name, value in more.items())]
        )
        assert isinstance(build(config.dataset).train, LabelledImages)


# The keys that every command or option has. A new one is a decision: add it here, and say in conf/ what it does.
SHARED_KEYS = """
command seed fetch_only options
paths.data_dir paths.output_dir paths.expanded_dir paths.cache_dir paths.image_cache_gb
dataset.name dataset.subject dataset.per_class dataset.image_size dataset.fit dataset.prompt_template dataset.class_names
dataset.prompts_file dataset.split_seed dataset.num_folds dataset.fold dataset.fraction dataset.max_images dataset.indices
dataset.drop_leaks dataset.background dataset.value_range dataset.num_workers dataset.cache_dir dataset.image_cache_gb
dataset.horizontal_flip
generator.model generator.architecture generator.revision generator.variant generator.checkpoint_config generator.use_t5
generator.lora
generator.textual_inversion generator.draws generator.resolution generator.num_steps generator.cfg_scale
generator.negative_prompt generator.scheduler generator.dtype generator.guidance_decoder generator.gradient_checkpointing
generator.usual_strength generator.usual_batch_size
encoder.name energy.name guidance.name method.name selection.name
classifier.name classifier.input_size augmentation.name
prototype.name prototype.num_groups prototype.max_groups prototype.linkage prototype.max_clustered prototype.class_level
prototype.group_level
expansion.factor expansion.balance expansion.sources expansion.hard_fraction expansion.strength expansion.batch_size
expansion.output_dir expansion.format expansion.tune
expansion.image_format expansion.quality expansion.save_size expansion.shard_size expansion.split expansion.total_split
expansion.max_failures
optimizer.name
train.steps train.epochs train.budget train.batch_size train.label_smoothing train.class_weights train.mixing
train.synthetic_probability train.synthetic_weight train.resize
train.expanded train.where train.selection train.ckpt_path train.split
callbacks.early_stopping callbacks.checkpoint callbacks.lr_monitor
measure.bootstrap measure.expanded measure.features measure.where measure.metrics
measure.judge_classifier measure.judge_augmentation measure.judge_steps
study.factors study.methods study.rows study.seeds study.training_seeds study.tune_steps study.table study.split study.objective
study.processes study.best study.best.classifiers study.best.augmentations study.best.steps
trainer.accelerator trainer.devices trainer.num_nodes trainer.strategy trainer.precision
trainer.fast_dev_run trainer.min_steps trainer.max_time trainer.limit_train_batches trainer.limit_val_batches
trainer.overfit_batches trainer.val_check_interval trainer.check_val_every_n_epoch trainer.num_sanity_val_steps
trainer.log_every_n_steps trainer.accumulate_grad_batches trainer.gradient_clip_val trainer.gradient_clip_algorithm
trainer.deterministic trainer.benchmark trainer.inference_mode trainer.profiler trainer.detect_anomaly
trainer.sync_batchnorm trainer.enable_model_summary trainer.enable_autolog_hparams
"""


def test_shared_keys_are_those_that_are_listed() -> None:
    groups = Command("run", GROUPS).groups
    found = [name for name, _ in schema_keys(Command("run", GROUPS).schema) if not name.endswith(f".{TARGET}")]
    assert sorted(set(found) - groups.keys()) == sorted(SHARED_KEYS.split())
