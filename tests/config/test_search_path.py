"""Of the YAML files that Hydra composes, those that no process changes are read once."""

from pathlib import Path

from conftest import compose
from counting import calls_of

from distdiff.option_files.search_path import OURS, SearchPath

READ = "FileConfigSource.load_config"
TYPED = ["guidance=direct", "guidance.rho=3", "dataset.per_class=7"]


def test_our_own_files_are_read_once_however_often_they_are_composed() -> None:
    SearchPath.loader.cache_clear()
    assert calls_of(lambda: compose("expand", TYPED))[READ] > 0
    assert calls_of(lambda: compose("expand", TYPED))[READ] == 0
    assert calls_of(lambda: OURS.compose("expand", TYPED))[READ] == 0


def test_what_is_composed_of_kept_files_is_what_is_composed_of_files() -> None:
    """Neither the overrides of a composition nor a change of its result are seen by the next one."""

    def composed() -> dict[str, object]:
        config = OURS.compose("expand", ["guidance=direct"])
        return {name: config._get_node(name) for name in config if name != "hydra"}

    changed = compose("expand", TYPED)
    changed.guidance.rho, changed.dataset.per_class = 4, 8
    once_more = OURS.compose("expand", TYPED)
    once_more.generator.lora.append("added")
    kept = composed()
    SearchPath.loader.cache_clear()
    assert kept == composed()


def test_files_of_other_folders_are_read_whenever_they_are_composed(tmp_path: Path) -> None:
    option = tmp_path / "guidance/mine.yaml"
    option.parent.mkdir()
    typed = [f"hydra.searchpath=['file://{tmp_path}']", "guidance=mine"]
    for rho in (1.0, 2.0):
        option.write_text(f"defaults: [direct]\nrho: {rho}\n", encoding="utf-8")
        assert compose("expand", typed).guidance.rho == rho
    assert compose("expand", ["guidance=direct"]).guidance.rho not in (1.0, 2.0)
