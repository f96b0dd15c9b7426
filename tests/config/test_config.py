"""Every configuration composes; every mistake is one line that names key, value and what is allowed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, compose

from distdiff.commands.configuration import configure_jobs
from distdiff.commands.groups import GROUPS
from distdiff.config.command import NOT_COMMANDS, Command
from distdiff.errors import UserError
from distdiff.option_files.search_path import CONFIG_DIR

COMMANDS = [path.stem for path in CONFIG_DIR.glob("*.yaml") if path.stem not in NOT_COMMANDS]

GIVEN = {
    "encoder=hf": ["encoder.model=facebook/dinov2-small"],
    "generator=local": [f"generator.model={ROOT}/distdiff/assets/tiny_digits"],
}


MISTAKES = {
    "guidance=drect": "guidance=drect is not allowed: one of chamfer,",
    "guidance.roh=3": "did you mean guidance.rho?",
    "guidance.rho=abc": "guidance.rho=abc is not allowed: a number",
    "guidance.rho=nan": "guidance.rho=nan is not allowed: a number at least 0",
    "guidance.rho=null": "guidance.rho=null is not allowed: a number",
    "guidance.rho_schedule=null": "guidance.rho_schedule=null is not allowed: one of constant,",
    "guidance.rho=inf": "guidance.rho=inf is not allowed: a number at least 0",
    "guidance.rho=-1": "guidance.rho=-1.0 is not allowed: a number at least 0",
    "expansion.strength=0": "expansion.strength=0 is not allowed: a number above 0, at most 1",
    "expansion.strength=1.5": "expansion.strength=1.5 is not allowed: a number above 0, at most 1",
    "expansion.strength=[0.5,2]": "expansion.strength[1]=2 is not allowed",
    "expansion.strength=[]": "a number above 0 and at most 1, a list of them",
    "expansion.strength={low:0.9,high:0.5}": "low at most high",
    "expansion.strength=0.01": "of 30 steps it leaves none",
    "prototype.num_groups=0": "prototype.num_groups=0 is not allowed: an integer at least 1, or auto",
    "prototype.num_groups=1.5": "prototype.num_groups=1.5 is not allowed: an integer at least 1, or auto",
    "prototype.num_groups=many": "prototype.num_groups=many is not allowed: an integer at least 1, or auto",
    "prototype.num_groups=[2,3]": "prototype.num_groups=[2, 3] is not allowed: an integer at least 1, or auto",
    "prototype.num_groups=null": "prototype.num_groups=null is not allowed: an integer at least 1, or auto",
    "prototype.num_groups=true": "prototype.num_groups=True is not allowed: an integer at least 1, or auto",
    "prototype.num_groups=nan": "prototype.num_groups=nan is not allowed: an integer at least 1, or auto",
    "prototype.max_groups=1": "prototype.max_groups=1 is not allowed: a number at least 2",
    "prototype.max_clustered=99": "prototype.max_clustered=99 is not allowed: a number at least 100",
    "expansion.format=zip": "expansion.format=zip is not allowed: one of imagefolder, webdataset, parquet",
    "expansion.image_format=gif": "expansion.image_format=gif is not allowed: one of png, jpeg, webp",
    "expansion.quality=90": "expansion.quality=90 is not allowed: png is lossless",
    "expansion.quality=-1": "expansion.quality=-1 is not allowed: a number at least 0, at most 100",
    "expansion.save_size=0": "expansion.save_size=0 is not allowed: a number at least 8",
    "expansion.shard_size=0": "expansion.shard_size=0 is not allowed: a number at least 1",
    "expansion.factor=0": "expansion.factor=0 is not allowed: a number at least 1",
    "expansion.factor=1.5": "expansion.factor=1.5 is not allowed: an integer",
    "guidance.start_step=26": "strength 0.85 leaves 25 of 30 steps, so a number from 1 to 25",
    "guidance.period=25": "guidance.period=25 is not allowed",
    "generator.num_inference_steps=3": "here it is called generator.num_steps",
    "generator.guidance_scale=3": "here it is called generator.cfg_scale",
    "generator.torch_dtype=float16": "here it is called generator.dtype",
    "expansion.total_split=2": "splits are for experiments/expand.py",
    "generator.lora=a.safetensors": "generator.lora=a.safetensors is not allowed: a list, [a, b]",
    "generator.lora=['']": "generator.lora='' is not allowed: it is empty",
    "generator.lora=[':0.5']": "generator.lora='' is not allowed: it is empty",
    "generator.lora=[{path: x}]": "generator.lora[0]={'path': 'x'} is not allowed: a text",
    "generator.lora=[a,[b]]": "generator.lora[1]=['b'] is not allowed: a text",
    "generator.lora=[null]": "generator.lora[0]=null is not allowed: a text",
    "generator.lora=null": "generator.lora=null is not allowed: a list, [a, b]",
    "generator.lora={a: b}": "generator.lora={a: b} is not allowed: a list, [a, b]",
    "generator.textual_inversion=['']": "generator.textual_inversion='' is not allowed: it is empty",
    "generator.textual_inversion=[{a: b}]": "generator.textual_inversion[0]={'a': 'b'} is not allowed: a text",
    "generator.guidance_decoder=''": "generator.guidance_decoder='' is not allowed: it is empty",
    "generator.model='asset:'": "generator.model=asset: is not allowed: there is no such asset",
    "generator.model='random:sd9'": "there is no such architecture; one of random:sd14, random:sdxl, random:toy",
    "generator.architecture=sd9": "generator.architecture=sd9 is not allowed: one of sd14, sdxl, toy, null",
    "generator.architecture=toy": "only generator=random reads generator.architecture",
    "generator.resolution={a: 1}": "generator.resolution={'a': 1} is not allowed: an integer",
    "generator.lora=['x.safetensors:abc']": "generator.lora=x.safetensors:abc is not allowed: a number behind the colon",
    "generator.lora=['x.safetensors:']": "generator.lora=x.safetensors: is not allowed: a number behind the colon",
    "generator.lora=['x.safetensors:1_0']": "generator.lora=x.safetensors:1_0 is not allowed: a number behind the colon",
    "generator.lora=['https://huggingface.co/a/b/resolve/main/c/x.safetensors?download=true']": "it is the address of a page; "
    "write a/b/c/x.safetensors",
    "generator.lora=['https://example.org/x.safetensors']": "it is the address of a page; give a file, a folder or a hub id",
    "generator.model='https://huggingface.co/a/b'": "is not allowed: it is the address of a page; write a/b",
    "generator.draws=[1]": "generator.draws=[1] is not allowed: a text",
    "generator.scheduler=flow_euler": "for a Stable Diffusion model, one of auto, ddim,",
    "generator.dtype=int8": "generator.dtype=int8 is not allowed: one of float32,",
    "generator.model=/nowhere": "generator.model=/nowhere: no such file or folder",
    f"generator.model={ROOT}": "it has no model_index.json",
    "generator=local": "generator.model has no value",
    "encoder.model=null": "encoder=guide does not read encoder.model; it is for encoder=clip, hf",
    "encoder=clp": "encoder=clp is not allowed: one of clip, efficientnet_lite0, generator, guide, hf; did you mean clip?",
    "encoder.checkpoint=/nowhere": "encoder.checkpoint=/nowhere: no such file or folder",
    f"encoder.checkpoint={ROOT}": "is no checkpoint: a folder holds config.json",
    "study.methods=[magic]": "study.methods=magic is not allowed: one of original,",
    "dataset.per_class=x": "dataset.per_class=x is not allowed: an integer",
    "dataset.prompt_template=photo": "it needs {} where the class name goes",
    "dataset.class_names=names.yaml": "dataset.class_names=names.yaml is not allowed: a file .json or .csv or .txt",
    "dataset.class_names=/nowhere.txt": "dataset.class_names=/nowhere.txt: there is no such file",
    "dataset.class_names=[a,b]": "is not allowed: {class: words}, or a .json, .csv, .txt file of them",
    "dataset.prompts_file=/nowhere.json": "dataset.prompts_file=/nowhere.json: there is no such file",
    "dataset.split=theirs": "dataset.split=theirs is not allowed: one of authors, published",
    "dataset.fraction=0": "dataset.fraction=0.0 is not allowed: a number above 0, at most 1",
    "dataset.indices=[-1]": "dataset.indices[0]=-1 is not allowed: a number at least 0",
    "dataset.indices=[[1],2]": "dataset.indices[0]=[1] is not allowed: an integer",
    "dataset.indices=[null]": "dataset.indices[0]=null is not allowed: an integer",
    "dataset.root=[a,b]": "dataset.root=['a', 'b'] is not allowed: a list is for dataset=expanded",
    "dataset.where='copy == 0'": "did you mean dataset=expanded \"dataset.where='copy == 0'\"?",
    "dataset.root=/x": "dataset=digits does not read dataset.root; did you mean dataset=imagefolder dataset.root=/x?",
    "dataset.hub_id=a/b": "dataset=imagefolder does not read dataset.hub_id; did you mean dataset=hub dataset.hub_id=a/b?",
    "dataset.num_images=5": "dataset=digits does not read dataset.num_images; it is for dataset=font_digits",
    "dataset.check_counts=false": "it is for dataset=bloodmnist, breastmnist, caltech101,",
    "guidance.rho=0.1,1": "guidance.rho=0.1,1 has several values: a sweep needs -m: -m guidance.rho=0.1,1;",
    "expansion.strength=0.5,1": "-m expansion.strength=0.5,1; a list has brackets: 'expansion.strength=[0.5,1]';",
    "train.expanded=a,b": """a text is quoted: "train.expanded='a,b'\"""",
    "expansion.strength=[0.5": "a bracket is not closed",
    "preview.rhos=[1]": "the command run has no preview.rhos; it is a key of preview",
    "export.source=a": "the command run has no export.source; it is a key of export",
    "guidance.foo=1": "there is no such key; its keys: guidance.",
    "expansion.angle=9": "there is no such key; its keys: expansion.factor",
    "train.where='copy == 0'": "train.where='copy == 0' is not allowed without train.expanded",
    "train.where='copy = 0'": "train.where='copy = 0' is not allowed: a condition on columns of metadata.parquet, made of <",
    "+foo=1": "foo=1 is not allowed: there is no such key",
    "rho=1": "did you mean guidance.rho?",
    "guidance=null": "guidance=null is not allowed: one of chamfer,",
    "guidance.name=mine": "an option has the name of its YAML file; guidance=<option> chooses one",
    "encoder.guide=3": "encoder.guide=3 is not allowed: give keys, encoder.guide.<key>=...",
    "encoder.guide.stesp=3": "there is no such key; did you mean encoder.guide.steps?",
    "encoder.guide.classifier=resnet5": "encoder.guide.classifier=resnet5 is not allowed: one of efficientnet_lite0, resnet18,",
    "encoder.guide.steps=3": "encoder=clip does not read encoder.guide; it is for encoder=guide",
    "options.guidance=3": "options.guidance=3 is not allowed: give keys, options.guidance.<key>=...",
    "options.guidance.freedom.rho=3": "there is no such key; its keys: options.guidance.none, options.guidance.transform",
    "options.metric.coverage.num_neighbors=3": "did you mean options.metric.coverage.num_neighbours?",
    "study.methods=[original,dirct]": "did you mean direct?",
    "guidance.rho=many": "guidance.rho=many is not allowed: a number",
    "trainer.devices=null": "trainer.devices=None is not allowed: a number, a list of indices,",
    "guidance": "write key=value",
}


WITH = {
    "dataset.split=theirs": ["dataset=dtd"],
    "dataset.root=[a,b]": ["dataset=imagefolder"],
    "dataset.hub_id=a/b": ["dataset=imagefolder"],
    "encoder.guide.steps=3": ["encoder=clip"],
    "guidance.rho=many": ["guidance=none"],
}


@pytest.mark.parametrize("override", MISTAKES)
def test_a_mistake_is_one_line_with_what_is_allowed(override: str) -> None:
    with pytest.raises(UserError) as caught:
        compose("run", [*WITH.get(override, []), override])
    assert MISTAKES[override] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_jobs_of_a_multirun_are_checked() -> None:
    with pytest.raises(UserError, match=r"guidance.rho=-2"):
        configure_jobs("run", ["guidance.rho=1,-2"])


def test_a_key_that_no_job_of_a_multirun_reads_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"guidance=none does not read guidance.epsilon; it is for guidance=gif, transform"
    ):
        configure_jobs("expand", ["guidance=none,direct", "guidance.epsilon=0.1"])


def test_the_chosen_guidance_as_a_row_of_a_study_has_the_keys_that_were_typed() -> None:
    config = compose("run", ["guidance=transform", "guidance.epsilon=0.1", "study.methods=[none,transform]"])
    assert config.guidance.epsilon == 0.1
    assert list(config.options.guidance) == ["none"]


def test_the_steps_of_a_studys_rows_are_checked() -> None:
    with pytest.raises(UserError, match=r"guidance.period=400 is not allowed"):
        compose("run", ["study.methods=[tfg,none]", "options.guidance.tfg.period=400"])


def test_rho_is_taken_by_every_guidance_so_that_sweeps_mix() -> None:
    jobs = configure_jobs("run", ["guidance=none,direct,transform", "guidance.rho=1,3"])
    assert [(job.guidance.name, job.guidance.get("rho")) for job in jobs] == [
        *(("none", None), ("none", None), ("direct", 1.0), ("direct", 3.0), ("transform", 1.0), ("transform", 3.0))
    ]
    assert "rho" not in compose("expand", ["guidance=none", "guidance.rho=3"]).guidance


@pytest.mark.parametrize("typed", ["guidance.rho=3", "guidance.rho=1,3"])
def test_rho_is_refused_where_nobody_chose_the_guidance_that_ignores_it(typed: str) -> None:
    told = "not allowed: guidance=none does not read guidance.rho; it is for guidance=chamfer, deviation, direct"
    with pytest.raises(UserError, match=told):
        configure_jobs("expand", [typed])
    with pytest.raises(UserError, match=told):  # no job is guided, though one's method is never guided
        configure_jobs("expand", ["method=img2img,mix", typed])
    assert compose("run", ["guidance.rho=3"]).guidance.rho == 3


def test_rho_goes_to_the_guided_rows_of_a_search_without_a_chosen_guidance() -> None:
    search = ["expansion.tune=true", "guidance.rho=3", "tune.rows=[none,direct]", "tune.strengths=[0.5]"]
    rows = compose("expand", search).options.rows.values()
    assert [row.guidance.get("rho") for row in rows] == [None, 3.0]


def test_a_key_that_some_jobs_of_a_multirun_read_is_taken_by_all() -> None:
    jobs = configure_jobs("expand", ["guidance=direct,transform", "guidance.epsilon=0.1"])
    assert [job.guidance.get("epsilon") for job in jobs] == [None, 0.1]
    with pytest.raises(
        UserError, match=r"guidance=direct does not read guidance.epsilon; it is for guidance=gif, transform,"
    ):
        configure_jobs("expand", ["guidance=direct,none", "guidance.epsilon=0.1"])


def test_a_key_that_the_chosen_option_does_not_read_goes_to_the_rows_of_a_study_that_do() -> None:
    config = compose("run", ["guidance.epsilon=0.1"])
    assert "epsilon" not in config.guidance
    assert config.options.guidance.transform_official.epsilon == 0.1
    with pytest.raises(UserError, match=r"guidance=direct does not read guidance.epsilon"):
        compose("run", ["guidance.epsilon=0.1", "study.methods=[original,none,direct]"])


def test_keys_of_options_that_are_referred_to_can_be_overridden() -> None:
    config = compose("run", ["options.metric.coverage.num_neighbours=3", "options.guidance.transform_official.rho=2"])
    assert config.options.metric.coverage.num_neighbours == 3
    assert config.options.guidance.transform_official.rho == 2.0
    assert config.options.guidance.transform_official.epsilon == 0.2


def test_further_rows_of_a_study_ignore_the_keys_of_options_to_which_only_other_rows_refer() -> None:
    rows = "study.rows={weak: [guidance.rho=0.1]}"
    config = compose("run", ["study.methods=[none,tfg]", rows, "options.guidance.tfg.rho=2"])
    assert config.options.guidance.tfg.rho == 2
    assert "guidance" not in config.options.rows.weak.options
    assert config.options.rows.weak == compose("run", ["study.methods=[none,tfg]", rows]).options.rows.weak
    with pytest.raises(UserError, match=r"options.guidance.tfg=.* is not allowed"):
        compose("run", ["study.methods=[none]", rows, "options.guidance.tfg.rho=2"])


def test_the_number_of_groups_may_be_a_number_or_auto() -> None:
    jobs = configure_jobs("expand", ["prototype.num_groups=1,7,auto"])
    assert [job.prototype.num_groups for job in jobs] == [1, 7, "auto"]


def run_cli(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, timeout=120, env=os.environ, check=False
    )


def test_a_mistake_exits_2_without_traceback_before_anything_is_written(tmp_path) -> None:
    result = run_cli("experiments/run.py", "guidance.rho=-1", f"paths.output_dir={tmp_path}/out")
    assert result.returncode == 2
    assert result.stderr.strip() == "distdiff: guidance.rho=-1.0 is not allowed: a number at least 0"
    assert not (tmp_path / "out").exists()


def test_a_place_that_cannot_be_written_to_is_one_line(tmp_path) -> None:
    (tmp_path / "file").touch()
    result = run_cli("experiments/run.py", f"paths.output_dir={tmp_path}/file")
    assert result.returncode == 2
    assert result.stderr.startswith(f"distdiff: paths.output_dir: cannot write to {tmp_path}/file/run/")
    assert result.stderr.endswith("(Not a directory)\n")


HEAVY = {"torch", "diffusers", "lightning", "transformers", "sklearn", "kornia", "datasets", "torchmetrics", "wandb"}
REFUSED = {
    "dataset.root=/nowhere": ("expand", "dataset=imagefolder"),
    "guidance.rho=-1": ("expand", "guidance=direct"),
    "guidance.epsilon=-1": ("run", "guidance=transform"),
    "study.methods=[magic]": ("run", "seed=1"),
}


@pytest.mark.parametrize("override", REFUSED)
def test_a_value_is_refused_before_anything_heavy_is_imported(override: str, tmp_path: Path) -> None:
    command, other = REFUSED[override]
    script = (
        f"import runpy, sys; sys.argv = ['{command}.py', {other!r}, {override!r}]\n"
        f"try: runpy.run_path('{ROOT}/experiments/{command}.py', run_name='__main__')\n"
        "except SystemExit as ending: assert ending.code == 2\n"
        f"heavy = {HEAVY} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    result = run_cli("-c", script, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stderr.startswith(f"distdiff: {override.partition('=')[0]}"), result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("flag", [["--help"], ["--cfg", "job"]])
def test_help_and_cfg_import_nothing_heavy(flag: list[str]) -> None:
    """One process runs all commands in turn."""
    script = (
        "import runpy, sys\n"
        f"for command in {COMMANDS}:\n"
        f"    sys.argv = [f'{{command}}.py', *{flag}]\n"
        "    print('asked', command)\n"
        "    try: runpy.run_path(f'experiments/{command}.py', run_name='__main__')\n"
        "    except SystemExit: pass\n"
        f"    heavy = {HEAVY} & set(sys.modules)\n"
        "    assert not heavy, (command, heavy)\n"
    )
    result = run_cli("-c", script)
    assert result.returncode == 0, result.stderr
    said = result.stdout.split("asked ")[1:]
    assert [each.split("\n", 1)[0] for each in said] == COMMANDS
    for command, each in zip(COMMANDS, said, strict=True):
        assert command in each.split("\n", 1)[1]


def test_a_sweep_over_datasets_may_have_a_key_for_one_of_them() -> None:
    jobs = configure_jobs("describe", ["dataset=digits,imagefolder", "dataset.root=/tmp"])
    assert [job.dataset.get("root") for job in jobs] == [None, "/tmp"]


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["dataset=imagefolder", "dataset.root='/data/my pets (1)/'"], "my_pets_1"),
        (["dataset=imagefolder", "dataset.root=photos.v2.tar.gz"], "photos.v2"),
        (["dataset=imagefolder", "dataset.root=/data/photos.v2"], "photos.v2"),
        (["dataset=imagefolder", "dataset.root=."], Path.cwd().name),
        (["dataset=parquet", "dataset.root=/data/pets.parquet"], "pets"),
        (["dataset=hub", "dataset.hub_id=someone/pets"], "pets"),
        (["dataset=expanded", "dataset.root=[/a/one]"], "one"),
        (["dataset=expanded", "dataset.root=[/a/one,/a/two]"], "expanded"),
        (["dataset=imagefolder", "dataset.root=/data/pets", "dataset.name=mine"], "mine"),
        (["dataset=dtd", "dataset.root=/data/other"], "dtd"),
        ([], "digits"),
    ],
)
def test_a_dataset_is_called_what_its_place_is_called(overrides: list[str], name: str, monkeypatch) -> None:
    monkeypatch.setattr("distdiff.data.config.check_root_is_there", lambda dataset: None)
    assert compose("describe", overrides).dataset.name == name


def test_the_embedded_generator_says_that_it_draws_digits_alone(monkeypatch) -> None:
    monkeypatch.setattr("distdiff.data.config.check_root_is_there", lambda dataset: None)
    photos = ["dataset=imagefolder", "dataset.root=/data/photos"]
    said = "generator=tiny_digits draws nothing but digits: choose another, such as generator=sd15, for dataset photos"
    assert said in Command("preview", GROUPS).warnings(compose("preview", photos))
    for allowed in ([], ["dataset=font_digits"], [*photos, "generator=sd15"], [*photos, "dataset.subject=digits"]):
        assert said not in Command("expand", GROUPS).warnings(compose("expand", allowed))


def test_a_small_guide_for_photos_is_said_where_it_shapes_images(monkeypatch) -> None:
    monkeypatch.setattr("distdiff.data.config.check_root_is_there", lambda dataset: None)

    def says(command: str, *overrides: str) -> bool:
        photos = compose(command, ["dataset=imagefolder", "dataset.root=/data/photos", "generator=sd15", *overrides])
        return any("encoder=guide sees images of 512" in said for said in Command(command, GROUPS).warnings(photos))

    commands = ("expand", "preview")
    for steering in ("guidance=direct", "selection=coverage", "expansion.sources=hard"):
        assert all(says(command, steering) for command in commands)
        assert not says("expand", steering, "encoder.guide.classifier=resnet50")
    assert all(says(command) for command in ("run", "benchmark"))
    assert says("expand", "expansion.tune=true")
    assert not says("run", "study.methods=[original,randaugment,none,none_best]")
    assert says("run", "study.methods=[original,none,none+coverage]")
    assert says("run", "study.methods=[none]", "study.rows={strong: [guidance=direct]}")
    assert not says("run", "study.methods=[none]", "study.rows={strong: [guidance=direct, encoder=efficientnet_lite0]}")
    assert not any(says(command) for command in commands)
    assert not says("expand", "selection=clip")


def test_help_into_a_pipe_that_closes_ends_quietly() -> None:
    script = f"set -o pipefail; {sys.executable} experiments/export.py --help | true"
    result = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 128 + signal.SIGPIPE
    assert result.stderr == ""


@pytest.mark.parametrize("trainer", ["gpu", "ddp"])
def test_a_gpu_that_is_not_there_is_said_with_what_is(trainer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from distdiff.ranks.trainer import build_trainer, torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UserError, match=r"^trainer.accelerator=gpu is not allowed: there is no GPU here; trainer=cpu"):
        build_trainer(compose("train", [f"trainer={trainer}"]).trainer)
