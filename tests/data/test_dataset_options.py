"""A dataset is one loader and one YAML file, and what is wrong with its keys is found before anything loads."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from hydra.utils import get_object
from layouts import picture
from omegaconf import DictConfig, OmegaConf
from sources import sizes

from distdiff.data.config import DatasetKeys, check
from distdiff.data.datasets import load_dataset
from distdiff.errors import UserError

FOLDER = ROOT / "conf/dataset"
OPTIONS = sorted(path.stem for path in FOLDER.glob("*.yaml"))
COMMON = OmegaConf.to_container(OmegaConf.structured(DatasetKeys))


def option(file: Path, tmp_path: Path, **keys: object) -> DictConfig:
    """A dataset's YAML file over the keys that every dataset has, with some set; its paths below `tmp_path`."""
    paths = {"data_dir": str(tmp_path / "data"), "cache_dir": str(tmp_path / "cache"), "image_cache_gb": 1}
    dataset = OmegaConf.merge(COMMON, OmegaConf.load(file), keys)
    return OmegaConf.create({"paths": paths, "dataset": dataset}).dataset


@pytest.mark.parametrize("name", OPTIONS)
def test_the_keys_of_a_yaml_file_are_those_that_its_loader_takes(name: str) -> None:
    own = set(OmegaConf.load(FOLDER / f"{name}.yaml")) - {"_target_", "defaults"}
    taken = inspect.signature(get_object(OmegaConf.load(FOLDER / f"{name}.yaml")._target_)).parameters
    assert {parameter.kind for parameter in taken.values()} == {inspect.Parameter.KEYWORD_ONLY}
    assert own - set(COMMON) <= set(taken)
    without_default = {key for key, parameter in taken.items() if parameter.default is parameter.empty}
    assert without_default <= own | set(COMMON)


def test_keys_and_checks_of_datasets_load_nothing_heavy() -> None:
    heavy = ("torch", "sklearn", "datasets", "numpy", "pandas", "pyarrow", "scipy")
    code = f"import sys, distdiff.data.config; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


NOTHING_THERE = {
    "imagefolder": "dataset.root=/nowhere: no such folder or archive",
    "parquet": "dataset.root=/nowhere: no such file or folder",
    "expanded": "dataset.root=/nowhere: no such folder or archive",
    "dtd": "dataset.root=/nowhere: no such folder; get dtd from https://www.robots.ox.ac.uk/~vgg/data/dtd, or "
    "dataset.root=null reads tanganke/dtd from the hub",
    "pathmnist": "dataset.root=/nowhere: no such folder; get pathmnist from https://zenodo.org/records/10519652",
}


@pytest.mark.parametrize("name", NOTHING_THERE)
def test_a_root_that_is_not_there_is_found_before_anything_loads(name: str, tmp_path) -> None:
    with pytest.raises(UserError) as caught:
        check(option(FOLDER / f"{name}.yaml", tmp_path, root="/nowhere"))
    assert str(caught.value) == NOTHING_THERE[name]


def test_of_several_directories_each_must_be_there(tmp_path) -> None:
    (tmp_path / "one").mkdir()
    check(option(FOLDER / "expanded.yaml", tmp_path, root=[str(tmp_path / "one")]))
    with pytest.raises(UserError, match=r"two: no such folder"):
        check(option(FOLDER / "expanded.yaml", tmp_path, root=[str(tmp_path / "one"), str(tmp_path / "two")]))


def test_a_dataset_that_is_read_from_the_hub_needs_no_folder(tmp_path) -> None:
    check(option(FOLDER / "hub.yaml", tmp_path, hub_id="someone/photos", root="/nowhere"))
    check(option(FOLDER / "dtd.yaml", tmp_path, root=None))
    check(option(FOLDER / "digits.yaml", tmp_path))


MISTAKES = {
    "list": ({"root": ["a", "b"]}, "a list of directories is for dataset=expanded"),
    "mapping": ({"root": {"a": "b"}}, "is not allowed: a directory"),
    "truth": ({"root": True}, "dataset.root=True is not allowed: a directory"),
    "template": ({"prompt_template": "a photo"}, "it needs {} where the class name goes"),
    "fold": ({"fold": 1}, "dataset.fold=1 is not allowed without dataset.num_folds"),
    "last fold": ({"fold": 5, "num_folds": 5}, "dataset.fold=5 is not allowed: an integer from 0 to 4"),
    "names": ({"class_names": "/nowhere.txt"}, "dataset.class_names=/nowhere.txt: there is no such file"),
    "prompts": ({"prompts_file": "p.yaml"}, "dataset.prompts_file=p.yaml is not allowed"),
    "background": ({"background": "reddish"}, "dataset.background=reddish is not allowed: a colour"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_value_that_cannot_be_is_one_line(mistake: str, tmp_path) -> None:
    keys, said = MISTAKES[mistake]
    with pytest.raises(UserError) as caught:
        check(option(FOLDER / "imagefolder.yaml", tmp_path, **keys))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("root", "where", "said"),
    [
        ([], None, "dataset.root=[] is not allowed: a directory, or a list of them"),
        (["a", None], None, "is not allowed: a directory, or a list of them"),
        (None, "copy == 0", "dataset.where='copy == 0' is not allowed without dataset.root"),
    ],
)
def test_directories_of_expanded_data_are_one_or_several(root: object, where: str | None, said: str, tmp_path) -> None:
    with pytest.raises(UserError) as caught:
        check(option(FOLDER / "expanded.yaml", tmp_path, root=root, where=where))
    assert said in str(caught.value)


def test_a_dataset_without_a_name_is_called_what_its_place_is_called(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("2024").mkdir()
    dataset = option(FOLDER / "imagefolder.yaml", tmp_path, root=2024)
    check(dataset)
    assert (dataset.root, dataset.name) == ("2024", "2024")
    dataset = option(FOLDER / "digits.yaml", tmp_path)
    check(dataset)
    assert dataset.name == "digits"
    dataset = option(FOLDER / "hub.yaml", tmp_path, hub_id="someone/pets")
    check(dataset)
    assert dataset.name == "pets"


def test_a_dataset_of_ones_own_is_one_python_file_and_one_yaml_file(tmp_path, monkeypatch) -> None:
    (tmp_path / "own_pictures.py").write_text(
        "from pathlib import Path\n"
        "from distdiff.data.images import DatasetSplits\n"
        "from distdiff.data.sources.files import from_files\n"
        "from distdiff.data.splits.carving import complete\n"
        "from distdiff.keys import Share\n\n"
        "def load(*, root: str, held_out: Share, name: str, split_seed: int) -> DatasetSplits:\n"
        "    paths = sorted(Path(root).glob('*.png'))\n"
        "    labels = [int(path.stem[0]) for path in paths]\n"
        "    images = from_files(name, ['no', 'yes'], labels, [path.name for path in paths], paths)\n"
        "    return complete({'train': images}, 0, held_out, split_seed)\n"
    )
    (tmp_path / "own.yaml").write_text("_target_: own_pictures.load\nroot: ???\nheld_out: 0.3\nimage_size: 8\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("0a", "0b", "0c", "1a", "1b", "1c"):
        picture(tmp_path / f"photos/{name}.png")
    dataset = option(tmp_path / "own.yaml", tmp_path, root=str(tmp_path / "photos"))
    check(dataset)
    splits = load_dataset(dataset)
    assert (splits.train.name, splits.train.class_names, sizes(splits)) == ("photos", ("no", "yes"), (4, 0, 2))
    folds = load_dataset(OmegaConf.merge(dataset, {"num_folds": 2}))
    assert sizes(folds) == (2, 2, 2)
