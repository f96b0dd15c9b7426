"""The precision that a preset runs in where nobody chose one."""

from pathlib import Path

import pytest
import torch
from conftest import compose

from distdiff.caching.stages import StageCache
from distdiff.commands.expand import expand
from distdiff.expansion import assembly as assembly_module
from distdiff.expansion.assembly import Assembly
from distdiff.option_files.search_path import OURS
from distdiff.store.directory import ExpandedDirectory


def dtype_of(*overrides: str) -> str:
    config = compose("expand", ["generator=sd15", *overrides])
    return Assembly(config, StageCache(Path(config.paths.cache_dir))).config.generator.dtype


def test_a_preset_is_float32_on_the_processor_and_float16_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert dtype_of("trainer=cpu") == dtype_of("trainer=ddp_cpu") == "float32"
    assert dtype_of("trainer=gpu") == dtype_of("trainer=ddp") == "float16"
    for device, dtype in (("cpu", "float32"), ("cuda", "float16")):
        monkeypatch.setattr(assembly_module, "trainer_device", lambda config, device=device: torch.device(device))
        assert dtype_of("trainer=cpu", "trainer.accelerator=auto") == dtype


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_a_dtype_that_was_typed_is_kept(dtype: str) -> None:
    for trainer in ("cpu", "gpu"):
        assert dtype_of(f"trainer={trainer}", f"generator.dtype={dtype}") == dtype


def test_no_preset_is_in_half_precision_wherever_it_runs() -> None:
    for name in OURS.options("generator"):
        model = ["generator.model=a/b"] if name == "local" else []
        assert compose("expand", [f"generator={name}", *model]).generator.dtype in ("auto", "float32"), name


def test_auto_and_the_dtype_that_it_means_are_one_expansion(
    small_run: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = [*small_run, "trainer=cpu", "guidance=none", "dataset.per_class=1", "expansion.factor=1"]
    said = "generator.dtype=auto is float32 on the processor"
    for dtype, is_said in (("auto", True), ("float32", False)):
        path = expand(compose("expand", [*short, f"generator.dtype={dtype}"]), tmp_path / dtype)
        assert (said in capsys.readouterr().out) is is_said
        assert ExpandedDirectory(path).manifest()["ingredients"]["generator"]["dtype"] == "float32"
    assert len(list((tmp_path / "outputs" / "expanded").iterdir())) == 1
