"""An option of the user's own is one Python file and one YAML file, found through `--config-dir`; nothing else is touched."""

import json
import sys
from pathlib import Path

import forked
import numpy as np
import pyarrow.parquet
import pytest
from conftest import ROOT
from PIL import Image
from scripts import Ended, run_here

QUICK = ["generator.num_steps=6", "expansion.factor=1", "encoder.guide.steps=3", "logger=none"]
OWN = {
    "guidance/sign": (
        """
from distdiff.guidance.base import Guidance
from distdiff.keys import NonNegative, Positive


class SignGuidance(Guidance):
    \"\"\"Follows the sign of the energy's gradient.\"\"\"

    def __init__(self, *, rho: NonNegative, power: Positive, **keys):
        super().__init__(**keys)
        self.rho, self.power = rho, power

    def step(self, latents, index, batch):
        at = self.latent_gradient(latents, index, batch)
        following = batch.denoiser.advance(latents, at.output, index)
        return following - self.rho**self.power * at.gradient.sign(), at.values
""",
        "_target_: own.SignGuidance\nrho: 0.05\npower: 1.0\n",
    ),
    "energy/farthest": (
        """
import torch

from distdiff.energy.base import Energy
from distdiff.keys import NonNegative
from distdiff.prototypes.hierarchical import Prototypes


class Farthest(Energy):
    \"\"\"Distance to the class prototype beyond a margin.\"\"\"

    def __init__(self, prototypes: Prototypes, *, margin: NonNegative):
        super().__init__()
        self.register_buffer("classes", prototypes.classes, persistent=False)
        self.margin = margin

    @property
    def dtype(self):
        return self.classes.dtype

    def forward(self, features, targets):
        return (torch.linalg.vector_norm(features - self.classes[targets], dim=-1) - self.margin).clamp(min=0)

    def columns(self, features, targets):
        return {"nearest_class": torch.cdist(features, self.classes).argmin(1).tolist()}
""",
        "_target_: own.Farthest\nmargin: 0.1\n",
    ),
    "metric/mean_shift": (
        """
import torch

from distdiff.metrics.base import Features, Metric


class MeanShift(Metric):
    \"\"\"Distance of the means.\"\"\"

    higher_is_better = False
    needs_labels = False

    def __init__(self, *, scale: float):
        self.scale = scale

    def __call__(self, real: Features, generated: Features) -> float:
        return self.scale * float(torch.linalg.vector_norm(real.features.mean(0) - generated.features.mean(0)))
""",
        "_target_: own.MeanShift\nscale: 2.0\n",
    ),
    "dataset/stripes": (
        """
import numpy as np
from PIL import Image

from distdiff.data.images import DatasetSplits, LabelledImages
from distdiff.data.splits.carving import complete
from distdiff.keys import PositiveInt


def load(*, name: str, num_images: PositiveInt, validation_fraction: float, test_fraction: float) -> DatasetSplits:
    def read(index: int) -> Image.Image:
        pixels = np.zeros((32, 32, 3), np.uint8)
        pixels[:: 2 + index % 2] = 55 + index
        return Image.fromarray(pixels)

    labels = np.arange(num_images) % 2
    keys = tuple(f"{index:03d}" for index in range(num_images))
    images = LabelledImages(name, ("even", "odd"), labels, keys, read=read, indices=np.arange(num_images))
    return complete({"train": images}, validation_fraction, test_fraction)
""",
        "_target_: own.load\nname: stripes\nimage_size: 32\nnum_images: 20\nvalidation_fraction: 0.2\ntest_fraction: 0.2\n",
    ),
    "classifier/linear": (
        """
from torch import nn

from distdiff.classification.networks import ImageClassifier
from distdiff.keys import PositiveInt


def linear(num_classes: int, *, input_size: int, width: PositiveInt) -> ImageClassifier:
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(3 * input_size**2, width))
    return ImageClassifier(backbone, width, num_classes, input_size, mean=0.5, std=0.5)
""",
        "_target_: own.linear\ninput_size: 16\nwidth: 8\n",
    ),
    "augmentation/dim": (
        """
from torch import nn

from distdiff.keys import Share


class Dim(nn.Module):
    def __init__(self, *, least: Share):
        super().__init__()
        self.least = least

    def forward(self, images):
        return images * self.least
""",
        "_target_: own.Dim\nleast: 0.5\n",
    ),
    "method/middle": (
        """
import torch

from distdiff.data.pixels import to_floats
from distdiff.data.soft_labels import soft_label
from distdiff.keys import Share
from distdiff.methods.base import Method
from distdiff.methods.synthesis import Synthesized, Synthesizer


class Middle(Method):
    \"\"\"The upper part of one image over the lower part of another, of any class.\"\"\"

    num_sources, keeps_class, columns = 2, False, {"rows": int, "from_classes": list[str]}

    def __init__(self, *, share: Share):
        self.share = share

    def strength(self, planned):
        return None

    def partners(self, item, sources, seed):
        label = sources.labels[item.position]
        return (sources.outside(label, item.seed_for(seed, "partner") % sources.num_outside(label)),)

    def label(self, item, sources, seed):
        own, other = (sources.labels[position] for position in (item.position, *item.partners))
        return soft_label({own: self.share, other: 1 - self.share})

    def synthesizer(self, squares):
        return Stacked(squares, self.share)


class Stacked(Synthesizer):
    def __init__(self, squares, share):
        super().__init__()
        self.squares, self.share = squares, share

    def forward(self, items):
        images = []
        for item in items:
            upper, lower = (to_floats(self.squares[p]) for p in (item.position, *item.partners))
            cut = round(self.share * upper.shape[1])
            images.append(torch.cat([upper[:, :cut], lower[:, cut:]], dim=1))
        columns = {"rows": [cut] * len(items), "from_classes": [[s.split("/")[0] for s in i.sources] for i in items]}
        return Synthesized(torch.stack(images), columns)
""",
        "_target_: own.Middle\nshare: 0.25\n",
    ),
    "selection/brightest": (
        """
import numpy as np

from distdiff.keys import NonNegative
from distdiff.selection.base import Selection


class Brightest(Selection):
    \"\"\"Those farthest along the mean of the real images' features.\"\"\"

    def __init__(self, *, bonus: NonNegative = 0.0, **keys):
        super().__init__(**keys)
        self.bonus = bonus

    def choose(self, candidates, wanted, last):
        scores = candidates.features @ candidates.real.mean(0) + self.bonus
        return np.argsort(-scores.numpy(), kind="stable")[:wanted]
""",
        "_target_: own.Brightest\nratio: 3\n",
    ),
}


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Writes an option's two files into an empty folder, and runs a command from there: in this process, or in its own."""

    def write(option: str) -> None:
        code, yaml = OWN[option]
        (tmp_path / "own.py").write_text(code)
        (tmp_path / "conf" / option).with_suffix(".yaml").parent.mkdir(parents=True)
        (tmp_path / "conf" / option).with_suffix(".yaml").write_text(yaml)

    def typed(overrides: tuple[str, ...]) -> list[str]:
        return ["--config-dir", "conf", *overrides, "hydra.run.dir=run", "paths.output_dir=outputs"]

    def run(command: str, *overrides: str) -> Ended:
        monkeypatch.delitem(sys.modules, "own", raising=False)  # of the test before
        monkeypatch.chdir(tmp_path)
        return run_here(command, typed(overrides), capsys)

    def start(command: str, *overrides: str) -> Ended:
        done = forked.run([sys.executable, f"{ROOT}/experiments/{command}.py", *typed(overrides)], tmp_path)
        return Ended(done.returncode, done.stdout, done.stderr)

    write.run, write.start = run, start
    return write


def succeed(ended: Ended) -> None:
    assert ended.status == 0, ended.err + ended.out


def expanded(folder: Path) -> list[dict]:
    return pyarrow.parquet.read_table(folder / "run" / "expanded" / "metadata.parquet").to_pylist()


def pixels(folder: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(file)) for file in sorted((folder / "run" / "expanded").glob("*/*.png"))])


def test_a_guidance_method_with_a_key_of_its_own(own, tmp_path: Path) -> None:
    own("guidance/sign")
    succeed(own.run("expand", "guidance=sign", *QUICK))
    weak = pixels(tmp_path)
    succeed(own.run("expand", "guidance=sign", "guidance.power=0.2", *QUICK))
    assert (pixels(tmp_path) != weak).any()
    refused = own.run("expand", "guidance=sign", "guidance.power=0", *QUICK)
    assert refused.err.strip() == "distdiff: guidance.power=0.0 is not allowed: a number above 0"
    refused = own.run("expand", "guidance=direct", "guidance.power=1", *QUICK)
    assert "guidance=direct does not read guidance.power; it is for guidance=sign" in refused.err
    refused = own.run("expand", "guidance=sign", "guidance.powr=1", *QUICK)
    assert "did you mean guidance.power?" in refused.err


def test_a_guidance_method_in_a_study(own, tmp_path: Path) -> None:
    own("guidance/sign")
    study = ["study.methods=[original,sign,none]", "study.seeds=1", "train.steps=3", "measure.judge_steps=3"]
    succeed(own.run("run", "guidance=direct", *study, *QUICK))
    rows = json.loads((tmp_path / "run" / "results.json").read_text())["rows"]
    assert [row["method"] for row in rows] == ["original", "sign", "none"]


def test_a_guidance_method_on_two_ranks(own, tmp_path: Path) -> None:
    own("guidance/sign")
    succeed(own.start("expand", "guidance=sign", "trainer=ddp_cpu", "expansion.batch_size=10", *QUICK))
    assert len(expanded(tmp_path)) == 20


def test_a_method_with_two_sources_a_soft_label_and_columns_of_its_own(own, tmp_path: Path) -> None:
    own("method/middle")
    given = ["expansion.factor=1", "logger=none"]
    succeed(own.run("expand", "method=middle", "method.share=0.75", *given))
    rows = expanded(tmp_path)
    assert {row["rows"] for row in rows} == {24}
    for row in rows:
        assert row["soft_weights"] == [0.75, 0.25]
        assert row["from_classes"] == [source.split("/")[0] for source in row["sources"]]
    refused = own.run("expand", "method=middle", "method.share=2", *given)
    assert refused.err.strip() == "distdiff: method.share=2.0 is not allowed: a number at least 0, at most 1"
    study = ["study.methods=[original,middle]", "study.seeds=1", "train.steps=3", "measure.judge_steps=3"]
    succeed(own.run("run", "options.method.middle.share=0.4", *study, *given))
    found = json.loads((tmp_path / "run" / "results.json").read_text())["rows"]
    assert [row["method"] for row in found] == ["original", "middle"]
    folder = Path(found[1]["expanded"][0])
    rows = pyarrow.parquet.read_table(folder / "metadata.parquet").to_pylist()
    assert {tuple(row["soft_weights"]) for row in rows} == {(0.6, 0.4)}  # the partner's class weighs more now
    assert all(row["class_name"] == row["from_classes"][1] for row in rows)


def test_a_selection_in_a_study(own, tmp_path: Path) -> None:
    own("selection/brightest")
    study = ["study.methods=[original,none+brightest]", "study.seeds=1", "train.steps=3", "measure.judge_steps=3"]
    succeed(own.run("run", "options.selection.brightest.bonus=1", *study, *QUICK))
    (_, row) = json.loads((tmp_path / "run" / "results.json").read_text())["rows"]
    assert (row["method"], row["num_train"]) == ("none+brightest", 40)
    (folder,) = row["expanded"]
    assert len(list((Path(folder) / ".candidates").glob("*/*.png"))) == 40
    refused = own.run("expand", "selection=brightest", "selection.bonus=-1", *QUICK)
    assert refused.err.strip() == "distdiff: selection.bonus=-1.0 is not allowed: a number at least 0"


def test_an_energy_that_needs_prototypes_and_brings_a_column(own, tmp_path: Path) -> None:
    own("energy/farthest")
    succeed(own.run("expand", "energy=farthest", "energy.margin=0.2", "guidance=direct", *QUICK))
    rows = expanded(tmp_path)
    assert {type(row["nearest_class"]) for row in rows} == {int}
    assert min(row["energy_after"] for row in rows) >= 0


def test_a_metric(own, tmp_path: Path) -> None:
    own("metric/mean_shift")
    succeed(own.run("expand", "guidance=none", *QUICK))
    expanded_dir = (tmp_path / "run" / "expanded").resolve()
    chosen = ["measure.metrics=[mean_shift,coverage]", "options.metric.mean_shift.scale=0", "measure.judge_steps=3"]
    result = own.run("measure", f"measure.expanded={expanded_dir}", *chosen, "logger=none")
    succeed(result)
    found = json.loads((tmp_path / "run" / "results.json").read_text())
    assert found["mean_shift"] == 0
    assert found["coverage"] >= 0
    assert "mean shift" in result.out


def test_a_dataset(own, tmp_path: Path) -> None:
    own("dataset/stripes")
    succeed(own.start("train", "dataset=stripes", "dataset.num_images=30", "train.steps=3", "logger=none"))
    assert json.loads((tmp_path / "run" / "results.json").read_text())["num_train"] == 20


def test_a_classifier_downstream_and_as_guide(own, tmp_path: Path) -> None:
    own("classifier/linear")
    succeed(own.run("train", "classifier=linear", "classifier.width=4", "train.steps=3", "logger=none"))
    guided = ["encoder.guide.classifier=linear", "guidance=direct", *QUICK]
    succeed(own.run("expand", *guided))
    assert len(expanded(tmp_path)) == 20


def test_an_augmentation_downstream_and_as_a_row_of_a_study(own, tmp_path: Path) -> None:
    own("augmentation/dim")
    succeed(own.run("train", "augmentation=dim", "augmentation.least=0.9", "train.steps=3", "logger=none"))
    study = ["study.methods=[original,dim]", "study.seeds=1", "train.steps=3", "measure.judge_steps=3"]
    succeed(own.run("run", *study, *QUICK))
    rows = json.loads((tmp_path / "run" / "results.json").read_text())["rows"]
    assert [row["method"] for row in rows] == ["original", "dim"]


def test_hydra_searchpath_finds_options_too(own, tmp_path: Path) -> None:
    own("guidance/sign")
    (tmp_path / "conf").rename(tmp_path / "elsewhere")
    (tmp_path / "conf").mkdir()
    succeed(own.run("expand", f"hydra.searchpath=[file://{tmp_path}/elsewhere]", "guidance=sign", *QUICK))
    assert len(expanded(tmp_path)) == 20
