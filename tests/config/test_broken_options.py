"""Whatever becomes of a YAML file in `--config-dir`, one line says which file is broken, and why."""

from collections.abc import Callable
from pathlib import Path

import pytest
from damages import Reader, cases, check_said, whole

from distdiff.commands.groups import GROUPS
from distdiff.config.checking import validate_jobs
from distdiff.config.command import Command
from distdiff.config.composing import compose_jobs, search_path_of
from distdiff.errors import UserError


def option(group: str, text: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / "conf" / group).mkdir(parents=True)
        (folder / "conf" / group / "mine.yaml").write_text(text)

    return make


def composes(command: str, *overrides: str) -> Callable[[Path], None]:
    """Composes and checks a command's jobs, as `--config-dir <folder>/conf` does."""

    def read(folder: Path) -> None:
        search = search_path_of(str(folder / "conf"), list(overrides))
        validate_jobs(compose_jobs(Command(command, GROUPS), list(overrides), False, search))

    return read


DATASET = "defaults: [digits]\nper_class: 9\n"
GUIDANCE = "defaults: [direct]\nrho: 2\n"
EXPERIMENT = "# @package _global_\nseed: 3\n"
OTHER = ("other table", "missing")  # other keys are answered by their names, and what is missing with what there is
DIRECT, ROW = "conf/guidance/mine.yaml", "study.methods=[original,mine]"
READERS = {
    "dataset": Reader(option("dataset", DATASET), "conf/dataset/mine.yaml", composes("train", "dataset=mine"), OTHER),
    "guidance": Reader(option("guidance", GUIDANCE), DIRECT, composes("expand", "guidance=mine"), OTHER),
    "row of a study": Reader(option("guidance", GUIDANCE), DIRECT, composes("run", ROW), OTHER),
    "experiment": Reader(
        option("experiment", EXPERIMENT),
        "conf/experiment/mine.yaml",
        composes("train", "+experiment=mine"),
        ("cut short", *OTHER),  # the first line, cut, is another comment
    ),
}


@pytest.mark.parametrize("name", READERS)
def test_a_whole_option_is_read(name: str, tmp_path: Path) -> None:
    whole(READERS[name], tmp_path / "given")
    READERS[name].read(tmp_path / "given")


@pytest.mark.parametrize(("name", "damage"), cases(READERS))
def test_a_broken_option_is_one_line_with_its_path_and_the_cause(
    name: str, damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check_said(READERS[name], damage, tmp_path, capsys)


def test_a_broken_option_that_nothing_names_hinders_nobody(tmp_path: Path) -> None:
    option("dataset", DATASET)(tmp_path)
    (tmp_path / "conf" / "dataset" / "other.yaml").write_bytes(b"\xff\xfe")
    composes("train", "dataset=mine")(tmp_path)


def test_a_broken_option_that_an_option_builds_on_is_named(tmp_path: Path) -> None:
    option("dataset", "defaults: [other]\n")(tmp_path)
    broken = tmp_path / "conf" / "dataset" / "other.yaml"
    broken.write_text("a: [\n")
    with pytest.raises(UserError, match=f"^{broken}: it is no YAML \\(line 2: "):
        composes("train", "dataset=mine")(tmp_path)
