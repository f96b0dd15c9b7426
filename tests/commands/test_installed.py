"""What `pip install` puts into an environment works from an empty folder, without this repository."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

from distdiff.commands.launch import abouts

SOURCES = ("distdiff", "conf", "pyproject.toml", "setup.py", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds what the wheel installs."""
    place = tmp_path_factory.mktemp("wheel")
    (place / "source").mkdir()
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, place / "source" / name)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", ".", "./source"]
    subprocess.run(command, cwd=place, check=True, capture_output=True)
    (wheel,) = place.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place / "site")
    return place / "site"


@pytest.fixture
def python(installed: Path, tmp_path: Path):
    """Runs Python in an empty folder with the installed package; returns what it printed."""

    def run(*arguments: str) -> str:
        ours = {"PYTHONPATH": str(installed), "WANDB_MODE": "offline", "HYDRA_FULL_ERROR": "0"}
        environment = os.environ | ours
        done = subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_a_wheel_carries_the_configuration_and_the_embedded_generator(python, installed: Path) -> None:
    for option in ROOT.glob("conf/*/*.yaml"):
        assert (installed / "distdiff/conf" / option.relative_to(ROOT / "conf")).is_file()
    said = python("-c", "import distdiff; print(distdiff.__file__, distdiff.load_generator('tiny_digits').resolution)")
    assert said.split() == [str(installed / "distdiff/__init__.py"), "32"]


def test_an_installed_command_runs_and_writes_below_the_folder_in_which_it_was_started(python, tmp_path: Path) -> None:
    python("-m", "distdiff", "train", "train.steps=1", "logger=none")
    (results,) = (tmp_path / "outputs/train").glob("*/results.json")
    assert results.is_file()


def test_every_script_is_a_subcommand_and_every_subcommand_a_script(python) -> None:
    scripts = {path.stem for path in (ROOT / "experiments").glob("*.py")}
    assert abouts().keys() == scripts
    listed = python("-m", "distdiff", "--help")
    assert all(f"\n  {name} " in listed for name in scripts)
    shown = yaml.safe_load(python("-m", "distdiff", "expand", "--cfg", "job", "guidance=direct", "guidance.rho=7"))
    assert (shown["command"], shown["guidance"]["rho"]) == ("expand", 7.0)


def test_another_application_composes_the_installed_options(python, tmp_path: Path) -> None:
    (tmp_path / "theirs.yaml").write_text(
        "hydra: {searchpath: ['pkg://distdiff.conf']}\ndefaults: [guidance: direct]\n"
    )
    script = (
        "import hydra\n"
        "@hydra.main(version_base='1.3', config_path='.', config_name='theirs')\n"
        "def main(config): print('rho', config.guidance.rho)\n"
        "main()\n"
    )
    (tmp_path / "app.py").write_text(script)
    assert python("app.py", "guidance.rho=3").split() == ["rho", "3"]


def test_in_another_application_our_callback_does_nothing(python, tmp_path: Path) -> None:
    (tmp_path / "theirs.yaml").write_text(
        "defaults: [run, _self_]\nhydra: {searchpath: ['pkg://distdiff.conf']}\nmine: 3\n"
    )
    script = (
        "import distdiff, hydra\n"
        "distdiff.register_configs()\n"
        "@hydra.main(version_base='1.3', config_path='.', config_name='theirs')\n"
        "def main(config):\n"
        "    from distdiff.errors import UserError\n"
        "    print('mine', config.mine, config.guidance.rho)\n"
        "    raise UserError('theirs')\n"
        "try: main()\n"
        "except SystemExit as ending: print('status', ending.code)\n"
    )
    (tmp_path / "app.py").write_text(script)
    assert python("app.py", "guidance.rho=3").split() == ["mine", "3", "3", "status", "1"]


def test_a_subcommand_that_does_not_exist_is_one_line() -> None:
    done = subprocess.run([sys.executable, "-m", "distdiff", "expnad"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == f"distdiff: expnad is no command: one of {', '.join(abouts())}; did you mean expand?\n"
