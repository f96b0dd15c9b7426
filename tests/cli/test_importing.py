"""Large libraries are imported without looking for garbage in what has been imported so far."""

import gc
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from distdiff.cli.importing import uncollected
from distdiff.cli.performing import perform

TASK = "import gc\nCOLLECTS = gc.isenabled()\n\n\ndef run(config, run_dir):\n    return gc.isenabled()\n"


def test_the_module_of_a_task_is_imported_so_and_the_task_runs_as_usual(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "task_that_asks.py").write_text(TASK, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    gc.enable()
    assert perform("task_that_asks:run", OmegaConf.create(), tmp_path, None) == 1  # it runs with garbage collection
    assert sys.modules.pop("task_that_asks").COLLECTS is False


@pytest.mark.parametrize("was_on", [True, False])
def test_afterwards_it_is_as_before_whatever_happens(was_on: bool) -> None:
    (gc.enable if was_on else gc.disable)()
    try:
        with suppress(ImportError), uncollected():
            raise ImportError
        assert gc.isenabled() == was_on
    finally:
        gc.enable()
