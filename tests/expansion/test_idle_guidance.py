"""Guidance whose strength of 0 leaves it without effect makes the unguided expansion, which is made once."""

import json
from pathlib import Path

import pytest
from conftest import compose

from distdiff.commands.expand import expand
from distdiff.guidance.direct import Direct
from distdiff.guidance.none import Unguided

IDLE = ["direct", "mpgd", "freedom"]


class OwnDirect(Direct):
    """A user's method, which may do more than its base class at ρ = 0."""


def made(small_run: list[str], place: Path, *typed: str) -> Path:
    place.mkdir()
    data = ["dataset.per_class=null", "dataset.max_images=10", "expansion.factor=1"]
    return Path(expand(compose("expand", [*small_run, *data, *typed]), place))


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of the images and of their metadata."""
    files = [path for path in folder.rglob("*") if path.suffix in (".png", ".parquet")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_a_strength_of_zero_makes_the_bytes_of_the_unguided_expansion(
    small_run: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The methods themselves at ρ = 0, which commands do not let run."""
    unguided = contents(made(small_run, tmp_path / "none", "guidance=none"))
    assert len(unguided) == 11
    monkeypatch.setattr("distdiff.expansion.assembly.in_place_of", lambda option: option)
    for name in IDLE:
        folder = made(small_run, tmp_path / name, f"guidance={name}", "guidance.rho=0")
        assert f"-{name}-" in folder.name
        assert contents(folder) == unguided, name


def test_an_expansion_of_strength_zero_is_the_unguided_one_and_says_so(small_run: list[str], tmp_path: Path) -> None:
    folder = made(small_run, tmp_path / "none", "guidance=none")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")}
    for name in IDLE:
        assert made(small_run, tmp_path / name, f"guidance={name}", "guidance.rho=0").samefile(folder)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")} == before
    assert json.loads((folder / "manifest.json").read_text())["ingredients"]["guidance"]["_target_"].endswith(
        Unguided.__qualname__
    )
    assert "expanded by `none`" in (folder / "README.md").read_text()


@pytest.mark.parametrize(
    "typed",
    [
        ["guidance=transform", "guidance.rho=0"],  # a random start moves latents whatever the strength
        ["guidance=tfg", "guidance.rho=0"],  # has a strength of its own for clean latents
        ["guidance=direct", "guidance.rho=0.001"],
        ["guidance=direct", "guidance.rho=0", f"guidance._target_={__name__}.OwnDirect"],
        ["guidance=direct", "guidance.rho=0", "guidance.start_step=2"],  # measures the energy at another step
    ],
)
def test_other_expansions_are_not_the_unguided_one(typed: list[str], small_run: list[str], tmp_path: Path) -> None:
    folder = made(small_run, tmp_path / "none", "guidance=none")
    assert not made(small_run, tmp_path / "other", *typed).samefile(folder)
