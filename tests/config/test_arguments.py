"""What is typed means what it says; what cannot be read is answered with what to type."""

import re
import subprocess
from pathlib import Path

import pytest
from conftest import compose
from omegaconf import OmegaConf

from distdiff.commands.configuration import configure_jobs
from distdiff.config.arguments import read_flags
from distdiff.errors import UserError
from distdiff.keys.suggesting import as_typed


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("'~/pictures'", f"{Path.home()}/pictures"),
        ("'~'", str(Path.home())),
        ("my pictures", "my pictures"),
        ("'/a/b (1)/c=d'", "/a/b (1)/c=d"),
        ("'~co/x'", "~co/x"),
        ("['~/a (1)','/b, c']", [f"{Path.home()}/a (1)", "/b, c"]),
        ('[~/a (1), "/b, c", /d\'s]', [f"{Path.home()}/a (1)", "/b, c", "/d's"]),
        ("C:\\pictures\\x", "C:\\pictures\\x"),
        ("2024", "2024"),
    ],
)
def test_a_path_means_what_it_says(typed: str, meant: str | list[str]) -> None:
    assert compose("export", [f"export.source={typed}"]).export.source == meant


AWKWARD = (
    *("/a/b (1)/c=d", "~/x", "/a,b", "it's", 'say "no"', "/a/[old] {x}", "a & b; c | d > e", "$HOME/`x`!", "/ü/é#"),
    *("'quoted'", "'half", "back\\slash", "trailing\\", "[1, 2", "copy == 0", "a: b", "\\'", "*?", "(x"),
)


@pytest.mark.parametrize("value", AWKWARD)
def test_what_a_hint_says_typed_into_a_shell_means_what_was_meant(value: str) -> None:
    """Every value that Hydra's grammar cannot read is answered with an argument that a shell and Hydra read as it."""
    shell = ["bash", "-c", f"printf %s {as_typed('generator.negative_prompt', value)}"]
    argument = subprocess.run(shell, capture_output=True, text=True, check=True).stdout
    assert compose("expand", [argument, "generator.cfg_scale=2"]).generator.negative_prompt == value


@pytest.mark.parametrize(
    "value", ["/a/b (1)/c=d", "~/x", "it's", "a & b; c | d > e", "/ü/é#", "copy == 0", "(x", "'half"]
)
def test_a_value_that_hydra_cannot_read_is_answered_with_the_argument_to_type(value: str) -> None:
    with pytest.raises(UserError) as caught:
        compose("expand", [f"generator.negative_prompt={value}"])
    words = f"cannot be read: quote the value: {as_typed('generator.negative_prompt', value)}"
    assert str(caught.value).endswith(words)


def test_home_is_found_in_every_key_that_takes_a_path_and_in_sweeps(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("x", "y z"):
        (tmp_path / name).mkdir()
    jobs = configure_jobs("describe", ["dataset=imagefolder", "dataset.root='~/x','~/y z'"])
    assert [job.dataset.root for job in jobs] == [f"{tmp_path}/x", f"{tmp_path}/y z"]
    assert compose("train", ["train.expanded=['~/a','~/b']"]).train.expanded == [f"{tmp_path}/a", f"{tmp_path}/b"]


SWEPT = {  # the values of a W&B sweep, which its agent writes as Python does
    "guidance.start_step": None,
    "guidance.rho": 1e-05,
    "expansion.balance": True,
    "expansion.strength": {"low": 0.5, "high": 0.9},
    "prototype.num_groups": "auto",
    "dataset.class_names": {"cat": "a cat", "dog": "it's one: (1)"},
    "dataset.indices": [1, 2],
    "generator.lora": [],
    "generator.negative_prompt": "",
    "encoder.guide": {"steps": 7, "batch_size": 3},
}


@pytest.mark.parametrize("spelling", ["args_no_hyphens", "args_override_hydra"])
def test_what_a_wandb_agent_types_means_what_it_says(spelling: str) -> None:
    from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

    arguments = create_sweep_command_args({"args": {key: {"value": value} for key, value in SWEPT.items()}})[spelling]
    config = compose("run", arguments)
    for key, value in SWEPT.items():
        found = OmegaConf.select(config, key)
        if key == "encoder.guide":
            assert {name: found[name] for name in value} == value
        else:
            assert found == value, key


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("expansion={'factor': 3}", "expansion takes the name of an option; type its keys: expansion.factor=3"),
        ("guidance={'rho': 0.3, 'name': 'x y'}", "type its keys: guidance.rho=0.3 \"guidance.name='x y'\""),
    ],
)
def test_a_mapping_in_place_of_an_option_is_answered_with_the_keys_to_type(argument: str, words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        compose("expand", [argument])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["expansion.strength=[0.5,", "0.7]"], "a bracket is not closed; a list with spaces is quoted"),
        (["dataset.root=my", "pictures"], "'pictures' is not an override: write key=value"),
        (["train.steps=a&b"], """quote the value: "train.steps='a&b'\""""),
        (["train.where=copy == 0"], """quote the value: "train.where='copy == 0'\""""),
    ],
)
def test_what_the_shell_cut_or_hydra_cannot_read_is_answered_with_the_quotes_it_takes(arguments, words: str) -> None:
    with pytest.raises(UserError) as caught:
        compose("train", arguments)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--dataset", "imagefolder"], "keys have no dashes: dataset=imagefolder"),
        (["seed=1", "--seed=3", "-m"], "keys have no dashes: seed=3"),
        (["--batch-size", "seed=1"], "keys have no dashes: batch_size=..."),
        (["--config", "conf/expand.yaml"], "there is no --config: a command reads conf/<command>.yaml"),
        (["--cfg", "all of it"], "invalid choice"),
        (["--config-name", "expand"], "--config-name is not allowed: a command reads conf/<command>.yaml"),
        (["--resolve"], "--resolve is not allowed alone: use --cfg job --resolve"),
    ],
)
def test_a_key_with_dashes_is_answered_with_the_key(arguments: list[str], words: str) -> None:
    with pytest.raises(UserError) as caught:
        read_flags(arguments)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


UNMEANT = {
    "~dataset": "a key or group cannot be taken out; dataset=... sets it",
    "~train.steps": "a key or group cannot be taken out",
    "~hydra/launcher": "Hydra needs one",
    "hydra.sweeper=optuna": "did you mean hydra/sweeper=optuna?",
    "command=run": "the script, or distdiff <command>, says which command is run",
    "dataset=[digits,imagefolder]": "a sweep is -m dataset=digits,imagefolder",
    "seed=choice(1,2)": "seed=choice(1,2) has several values: a sweep needs -m: -m 'seed=choice(1,2)'",
    "dataset={'root': 'a,b', 'name': 'x'}": """type its keys: "dataset.root='a,b'" dataset.name=x""",
    "seed=rnge(0,3)": "it is no list of values, such as choice(1,2), range(1,5), glob(*)",
    "größe=1": "'größe' is no key",
    "train.steps=${nosuch}": "train.steps=${nosuch} is not allowed: Interpolation key 'nosuch' not found",
    "seed={a: 1}": "seed={'a': 1} is not allowed: an integer",
    "train.batch_size=None": "train.batch_size=null is not allowed: an integer",
    "paths.output_dir=": "paths.output_dir='' is not allowed: it is empty",
    "dataset.root='a b'": """did you mean dataset=imagefolder "dataset.root='a b'"?""",
}


@pytest.mark.parametrize("argument", UNMEANT)
def test_what_cannot_be_meant_is_one_line(argument: str) -> None:
    with pytest.raises(UserError) as caught:
        compose("train", [argument])
    assert UNMEANT[argument] in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("argument", ["classifier=glob(nosuch*)", "seed=range(3,0)", "seed=range(0,3,0)"])
def test_a_sweep_without_values_is_one_line(argument: str) -> None:
    with pytest.raises(UserError, match="gives no value"):
        configure_jobs("train", [argument])


@pytest.mark.parametrize("flags", [["--experimental-rerun", "x"], ["--shell-completion"], ["--run", "-m"]])
def test_flags_that_do_nothing_here_or_contradict_each_other_are_refused(flags: list[str]) -> None:
    with pytest.raises(UserError, match="is not allowed"):
        read_flags(flags)
