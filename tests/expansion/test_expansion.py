"""Expanded datasets: readable by `datasets`, independent of batch size, never overwritten by another."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet
import pytest
import torch
from conftest import compose
from PIL import Image
from small_expansion import contents, pixels, small_jobs

from distdiff.data.pixels import to_tensor
from distdiff.errors import UserError
from distdiff.expansion.job import ExpansionJob
from distdiff.expansion.plan import ExpansionPlan
from distdiff.generator.latent_diffusion import LatentDiffusion
from distdiff.option_files.search_path import OURS
from distdiff.prototypes.fitting import prototype_identity
from distdiff.store.names import SPLIT_WORDS, safe_name
from distdiff.store.reading import read_expanded


@pytest.fixture
def job(small_run: list[str], image_folder: Path, tmp_path: Path) -> Callable[..., ExpansionJob]:
    return small_jobs(small_run, image_folder, tmp_path)


def test_neither_a_datasets_name_nor_what_a_generator_is_said_to_draw_is_in_the_fingerprint(job) -> None:
    named = job("dataset.name='a photo (1)'", "expansion.output_dir=null")
    drawn = job("generator.draws=cats", "dataset.subject=cats")
    assert named.fingerprint == drawn.fingerprint == job().fingerprint
    assert named.path.name == f"a photo (1)-direct-{named.fingerprint}"


def test_an_expansions_directory_is_called_as_the_datas_folder_is(job, image_folder: Path) -> None:
    assert job("expansion.output_dir=null").path.name.startswith(f"{image_folder.name}-direct-")


@pytest.mark.parametrize("method", OURS.options("guidance"))
def test_datasets_reads_every_image_with_its_label(job, method: str) -> None:
    made = job(f"guidance={method}")
    made.run("test")
    loaded = datasets.load_dataset("imagefolder", data_dir=str(made.path))
    assert list(loaded) == ["train"]
    images = loaded["train"]
    assert len(images) == 2 * len(made.sources)
    assert isinstance(images.features["label"], datasets.ClassLabel)
    assert images.features["label"].names == ["cat", "train"]
    assert {images.features["label"].int2str(row["label"]) for row in images} == {"cat", "train"}
    for row in images:
        assert row["class_name"] == images.features["label"].int2str(row["label"])
    assert set(images["source"]) == set(made.sources.keys)
    assert np.isfinite(images["energy_before"]).all()
    assert np.isfinite(images["energy_after"]).all()
    assert all(images["gradient_finite"])
    assert images["prompt"] == [f"a photo of a {name}." for name in images["class_name"]]


def test_the_published_method_crops_a_source_once_for_all_its_copies(job, tmp_path: Path) -> None:
    """Oracle: Pillow's own resize and crop, tried at every place; the sources here are 36x40 pixels. Prototypes are of the
    whole image, squashed."""
    made = job("guidance=transform_official")
    synthesizer = made.synthesizer("test: expand")
    size, generator, latents, energy = 32, synthesizer.generator, synthesizer.latents, synthesizer.image_energy
    squashed = [made.sources.image(i).resize((32, 32), Image.Resampling.LANCZOS) for i in range(len(made.sources))]
    features = energy.features(torch.stack([to_tensor(image) for image in squashed]))
    means = torch.stack([features[torch.from_numpy(made.sources.labels == label)].mean(0) for label in range(2)])
    expected = means / means.norm(dim=1, keepdim=True)
    torch.testing.assert_close(energy.energy.classes, expected, atol=1e-5, rtol=0)
    for position in range(len(made.sources)):
        scaled = made.sources.image(position).resize((32, round(40 * 32 / 36)), Image.Resampling.BILINEAR)
        places = [scaled.crop((0, top, size, top + size)) for top in range(scaled.height - size + 1)]
        means = generator.encode(torch.stack([to_tensor(place) for place in places])).mean
        distance = (means - latents.select(torch.tensor([position])).mean).flatten(1).abs().amax(1)
        assert distance.min() < 1e-5


def test_batch_size_changes_nothing(job, tmp_path: Path) -> None:
    for method in ("none", "transform", "direct"):
        folders = []
        for batch_size in (1, 5):
            folder = tmp_path / f"{method}-{batch_size}"
            made = job(f"guidance={method}", f"expansion.batch_size={batch_size}", f"expansion.output_dir={folder}")
            made.run("test")
            folders.append(folder)
        one, five = map(pixels, folders)
        assert one.keys() == five.keys()
        assert max(np.abs(one[name] - five[name]).max() for name in one) <= 1


def test_a_directory_of_another_configuration_is_refused_and_untouched(job) -> None:
    made = job()
    made.run("test")
    before = {path: path.read_bytes() for path in made.path.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=r"^expansion.output_dir=.*\(guidance.rho: 0.3 there, 5.0 here\)"):
        job("guidance.rho=5")
    assert {path: path.read_bytes() for path in made.path.rglob("*") if path.is_file()} == before


def test_prompts_are_embedded_once_for_all_that_need_them(job, monkeypatch, tmp_path: Path) -> None:
    embed, calls = LatentDiffusion.embed, []

    def counting(self, prompts):
        calls.append(prompts)
        return embed(self, prompts)

    monkeypatch.setattr(LatentDiffusion, "embed", counting)
    guided = ["generator.cfg_scale=2", "generator.negative_prompt=blurry"]
    for number, (given, times) in enumerate((([], 1), (["guidance=none"], 1), (guided, 2), (guided, 2))):
        sampler = job(*given, f"expansion.output_dir={tmp_path}/{number}").synthesizer("test")
        assert calls == [["a photo of a cat.", "a photo of a train."]] * times
        fresh = embed(sampler.generator, calls[0])
        assert torch.equal(sampler.prompts.positive.tokens, fresh.positive.tokens)
        if given is guided:
            assert torch.equal(sampler.prompts.negative.tokens, fresh.negative.tokens)
        else:
            assert sampler.prompts.negative is None


def test_images_of_another_dataset_and_of_test_images_are_not_trained_on(job) -> None:
    made = job()
    made.run("test")
    assert len(read_expanded(made.path, made.sources)) == 2 * len(made.sources)
    others = made.sources.select([0, *range(2, len(made.sources))])  # as if one were held out
    with pytest.raises(UserError, match=r"not expanded from the training images .*: 1 of its 6 sources are not among"):
        read_expanded(made.path, others)
    renamed = replace(made.sources, class_names=("cat", "dog"))
    with pytest.raises(UserError, match=r"has classes that dataset \w+ lacks: train"):
        read_expanded(made.path, renamed)


def test_a_directory_with_other_files_is_refused(job, tmp_path: Path) -> None:
    (tmp_path / "expanded").mkdir()
    (tmp_path / "expanded" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="it holds other files"):
        job()


def test_what_cannot_change_the_images_is_not_in_the_fingerprint(job, tmp_path: Path) -> None:
    base = job(f"expansion.output_dir={tmp_path}/a")
    without_effect = ("expansion.batch_size=3", "expansion.factor=7", "trainer.num_nodes=1")
    for override in (*without_effect, "prototype.max_groups=4", "prototype.max_clustered=100"):
        assert job(f"expansion.output_dir={tmp_path}/a", override).fingerprint == base.fingerprint
    for i, override in enumerate(("guidance.rho=9", "seed=3", "generator.num_steps=7", "prototype.num_groups=2")):
        assert job(f"expansion.output_dir={tmp_path}/b{i}", override).fingerprint != base.fingerprint


def test_limits_of_the_clustering_are_in_the_fingerprint_where_they_bind() -> None:
    def identity(*overrides: str, seed: int = 0) -> dict[str, object]:
        labels = np.repeat([0, 1], [150, 5])
        return prototype_identity(compose("expand", list(overrides)).prototype, labels, seed)

    fixed = {"class_level": True, "group_level": True, "num_groups": 3, "linkage": "average"}
    assert identity() == identity("prototype.max_groups=4", "prototype.max_clustered=150", seed=1) == fixed
    assert identity("prototype.num_groups=auto") == fixed | {"num_groups": "auto", "max_groups": 10}
    assert identity("prototype.max_clustered=149", seed=1) == fixed | {"max_clustered": 149, "seed": 1}
    assert identity("prototype.max_clustered=149", "prototype.num_groups=1") == fixed | {"num_groups": 1}


def test_the_samplers_precision_is_the_generators_whatever_the_trainers(job, tmp_path: Path) -> None:
    """`trainer.precision=bf16-mixed` is for classifiers; under its autocast the sampler would make other images."""
    folders = []
    for precision in ("32-true", "bf16-mixed"):
        made = job("guidance=none", f"trainer.precision={precision}", f"expansion.output_dir={tmp_path}/{precision}")
        made.run("test")
        folders.append(contents(made.path))
    assert folders[0] == folders[1]


def test_strengths_can_be_a_list_or_a_range(job, tmp_path: Path) -> None:
    for strength, check in [
        ("[0.5,1.0]", lambda row: row["strength"] == (0.5, 1.0)[row["copy"]]),
        ("{low:0.4,high:0.8}", lambda row: 0.4 <= row["strength"] <= 0.8),
    ]:
        made = job(f"expansion.strength={strength}", f"expansion.output_dir={tmp_path}/{strength[1]}")
        made.run("test")
        rows = pyarrow.parquet.read_table(made.path / "metadata.parquet").to_pylist()
        assert all(map(check, rows))
        assert len({row["strength"] for row in rows}) > 1


def test_metadata_that_points_outside_is_refused(job) -> None:
    made = job()
    made.run("test")
    path = made.path / "metadata.parquet"
    table = pyarrow.parquet.read_table(path)
    escaped = table.set_column(0, "file_name", [["../../secret.png"] * len(table)])
    pyarrow.parquet.write_table(escaped, path)
    with pytest.raises(UserError, match="outside"):
        read_expanded(made.path)


def test_a_plan_is_put_into_batches_of_one_schedule_and_loses_nothing(job) -> None:
    plan = ExpansionPlan(job().sources, 4, [0.3, 0.9], seed=1)
    batches = plan.batches(plan.missing(()), 3, group=lambda strength: int(strength * 10))
    assert sorted(np.concatenate(batches)) == list(range(len(plan)))
    assert all(len({plan[i].strength for i in batch}) == 1 and len(batch) <= 3 for batch in batches)
    assert len({item.seed for item in plan}) == len(plan)
    assert [item.file_name for item in plan] == list(plan.file_names())
    assert plan.missing({plan[3].file_name}).tolist() == [i for i in range(len(plan)) if i != 3]


def test_names_are_distinct_safe_and_free_of_split_words() -> None:
    names = [
        "a/b",
        "a%2Fb",
        "a\\b",
        "..",
        ".hidden",
        "x.",
        "train",
        "train~",
        "Test 1.jpg",
        "é.png",
        "n" * 300,
        "n" * 301,
        "a:b",
    ]
    made = [safe_name(name) for name in names]
    assert len(set(made)) == len(names)
    for name in made:
        assert "/" not in name
        assert not name.startswith(".")
        assert len(name.encode()) <= 180
    for word in SPLIT_WORDS:
        assert safe_name(f"{word}_1.png") == f"{word}~_1.png"
        assert safe_name(f"x{word}y") == f"x{word}y"
