"""Every configuration key: its type, its default where a YAML file gives none, and the values it may take.

The YAML files under `conf/` choose values; this file says what a value may be. `validation.py` compares the two before
any model loads.
"""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from distdiff.generator.kinds import AUTO, SCHEDULERS

RESERVED_BY_HYDRA = "_target_"


def allowed(
    default: Any = MISSING,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    choices: tuple[Any, ...] | None = None,
    words: tuple[str, ...] | None = None,
) -> Any:
    """A dataclass field together with the values it may take (checked element by element when the value is a list).

    `words`: what may stand in place of an integer; such a field is `Any` to OmegaConf, and takes no list and no null.
    """
    limits = {"at_least": at_least, "above": above, "at_most": at_most, "choices": choices, "words": words}
    metadata = {name: limit for name, limit in limits.items() if limit is not None}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: default, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class PathsConfig:
    data_dir: str = MISSING
    output_dir: str = MISSING
    expanded_dir: str = MISSING
    cache_dir: str = MISSING
    image_cache_gb: float = allowed(4, at_least=0)  # of decoded images below cache_dir; 0: none


@dataclass
class DatasetConfig:
    _target_: str = MISSING
    name: str | None = None  # in titles and directories' names; null: what `root` or `hub_id` is called
    subject: str | None = None  # what is on the images, where it is what a generator `draws` alone
    reads: list[str] | None = None  # the keys that not every loader reads but this one does; null: any
    root: Any = None  # a folder or file; for `expanded` also a list of folders
    where: str | None = None  # for `expanded`: a condition on its metadata
    per_class: int | None = allowed(None, at_least=1)  # few-shot images a class; null takes all
    # Renders have it, and describe.py counts images below it; all else sees `generator.resolution` or `classifier.input_size`.
    image_size: int = allowed(at_least=8)
    fit: str = allowed("crop", choices=("crop", "squash", "pad"))
    prompt_template: str = "a photo of a {}."
    class_names: Any = None  # the words a prompt uses: {class: words}, or a .json, .csv or .txt file of them
    prompts_file: str | None = None  # several sentences a class, .json or .csv: one is drawn for each new image
    train_split: str = "train"
    validation_split: str = "validation"
    test_split: str = "test"
    validation_fraction: float = allowed(0.2, at_least=0, at_most=0.9)  # where there is no validation split; 0: none
    test_fraction: float = allowed(0.2, above=0, at_most=0.9)  # where there is no test split
    split_seed: int = allowed(0, at_least=0, at_most=2**32 - 1)  # draws validation images and folds, never test images
    num_folds: int | None = allowed(None, at_least=2)  # the training images in folds, of which `fold` validates
    fold: int = allowed(0, at_least=0)
    fraction: float = allowed(1.0, above=0, at_most=1)  # of every class's training images
    max_images: int | None = allowed(None, at_least=1)  # training images in all, in proportion to the classes
    indices: list[int] | None = allowed(None, at_least=0)  # positions in the training images that are used
    split: str = allowed("official", choices=("official", "published"))  # the authors', or that of the published code
    url: str | None = None  # where the set's authors, or the published code's, have it
    counts: Any = None  # what is in a whole copy, by split: classes, and images of each part
    check_counts: bool = True
    hub_id: str | None = None  # owner/name of a dataset on the Hugging Face hub
    hub_config: str | None = None
    hub_data_dir: str | None = None  # a folder in the hub's repository
    revision: str | None = None
    image_column: str | None = None  # null: the only column of images
    label_column: str | None = None  # null: the only column of class labels
    background: Any = "white"  # what shows through transparency: a colour, or [red, green, blue]
    num_workers: int | None = allowed(None, at_least=1)  # threads that read images; null: a fair share of the cores
    cache_dir: str = "${paths.cache_dir}"  # where archives are unpacked, and what was decoded is kept
    image_cache_gb: float = allowed("${paths.image_cache_gb}", at_least=0)
    horizontal_flip: bool = True  # may a mirrored image keep its label?
    num_images: int | None = allowed(None, at_least=1)  # for datasets that are rendered


@dataclass
class GeneratorConfig:
    model: str = MISSING  # a folder, a hub id or one .safetensors checkpoint
    revision: str | None = None
    variant: str | None = None  # of the weight files, such as fp16
    checkpoint_config: str | None = None  # for a checkpoint: a pipeline's folder or hub id; null: its kind's on the hub
    use_t5: bool = True  # Stable Diffusion 3: with its third and largest text encoder?
    lora: list[str] = allowed([])  # path:scale
    textual_inversion: list[str] = allowed([])
    draws: str | None = None  # the only subject that it can draw; null: whatever a prompt says
    resolution: int = allowed(at_least=8)
    num_steps: int = allowed(50, at_least=1)
    cfg_scale: float = allowed(7.5, at_least=0)
    negative_prompt: str = ""
    scheduler: str = allowed(AUTO, choices=(AUTO, *SCHEDULERS))
    dtype: str = allowed("float32", choices=("float32", "float64", "bfloat16", "float16"))
    guidance_decoder: str | None = None  # an AutoencoderTiny that decodes for the energy alone
    gradient_checkpointing: bool = False  # less memory in guided steps, for about a third more time there
    usual_strength: float = allowed(0.5, above=0, at_most=1)  # what `expansion.strength` is where nothing else is said
    usual_batch_size: int = allowed(4, at_least=1)  # likewise `expansion.batch_size`


@dataclass
class EncoderConfig:
    _target_: str = MISSING
    name: str = MISSING
    model: str | None = None
    revision: str | None = None
    checkpoint: str | None = None
    guide: Any = None


@dataclass
class PrototypeConfig:
    name: str = MISSING
    num_groups: Any = allowed(3, at_least=1, words=("auto",))  # K; auto: by silhouette, class by class
    max_groups: int = allowed(10, at_least=2)  # the most that auto tries
    linkage: str = allowed("average", choices=("average", "complete", "single", "ward"))
    max_clustered: int = allowed(5000, at_least=100)  # of a larger class this many are clustered, the rest assigned
    class_level: bool = True
    group_level: bool = True


@dataclass
class GuidanceConfig:
    _target_: str = MISSING
    name: str = MISSING
    rho: float = allowed(10.0, at_least=0)
    epsilon: float = allowed(0.2, at_least=0)
    start_step: int | None = allowed(None, at_least=1)
    period: int | None = allowed(None, at_least=1)
    class_weight: float = allowed(1.0, at_least=0)
    group_weight: float = allowed(1.0, at_least=0)
    init: str = allowed("random", choices=("random", "identity"))
    rho_schedule: str = allowed("constant", choices=("constant", "increasing", "decreasing"))
    gradient_norm: str = allowed("none", choices=("none", "unit"))
    recurrence: int = allowed(1, at_least=1)  # freedom, tfg: how often a guided step is done
    mu: float = allowed(0.0, at_least=0)  # tfg: strength on the clean latent
    iterations: int = allowed(1, at_least=1)  # tfg: steps on the clean latent
    gamma: float = allowed(0.0, at_least=0)  # tfg: width of the energy's smoothing
    num_samples: int = allowed(1, at_least=1)  # tfg: samples of the smoothing


@dataclass
class ExpansionConfig:
    factor: int = allowed(5, at_least=1)
    balance: bool = False  # more copies in small classes, so that with the originals all have equally many images
    strength: Any = allowed(0.5, above=0, at_most=1)  # a number, a list (one per copy, repeating) or {low: , high: }
    batch_size: int = allowed(8, at_least=1)
    output_dir: str | None = None
    format: str = allowed("imagefolder", choices=("imagefolder", "webdataset", "parquet"))
    image_format: str = allowed("png", choices=("png", "jpeg", "webp"))
    quality: int | None = allowed(None, at_least=1, at_most=100)  # null: 95 for jpeg, lossless for webp
    save_size: int | None = allowed(None, at_least=8)  # null: the generator's resolution
    shard_size: int = allowed(1000, at_least=1)  # images a shard, for webdataset and parquet
    split: int | None = allowed(None, at_least=0)  # this process's part of an array job, from 0
    total_split: int = allowed(1, at_least=1)
    # Unreadable sources, or failed images, that do not end a run: below 1 a share, from 1 on a number; null: any.
    max_failures: float | None = allowed(0.25, at_least=0)


@dataclass
class PreviewConfig:
    sources: int = allowed(4, at_least=1)
    strengths: list[float] | None = allowed(None, above=0, at_most=1)
    rhos: list[float] | None = allowed(None, at_least=0)


@dataclass
class DescribeConfig:
    images_per_class: int = allowed(24, at_least=1)
    tile_size: int = allowed(128, at_least=8, at_most=1024)
    near_distance: int = allowed(6, at_least=0, at_most=32)
    near_difference: float = allowed(4, at_least=0, at_most=255)


@dataclass
class ClassifierConfig:
    _target_: str = MISSING
    name: str = MISSING
    input_size: int = allowed(at_least=8)


@dataclass
class AugmentationConfig:
    _target_: str = MISSING
    name: str = MISSING
    horizontal_flip: bool = False
    num_ops: int = allowed(2, at_least=1)
    magnitude: int = allowed(9, at_least=0, at_most=30)


@dataclass
class TrainConfig:
    steps: int = allowed(400, at_least=1)
    batch_size: int = allowed(32, at_least=2)
    learning_rate: float = allowed(1e-3, above=0)
    weight_decay: float = allowed(5e-4, at_least=0)
    label_smoothing: float = allowed(0.0, at_least=0, at_most=1)
    synthetic_probability: float | None = allowed(None, at_least=0, at_most=1)  # null: every image equally often
    expanded: Any = None  # a directory of expanded data, or a list of them
    where: str | None = (
        None  # a condition on the metadata of `expanded`, such as energy_after < 1.1 and strength >= 0.5
    )


@dataclass
class ExportConfig:
    source: Any = None  # a directory of expanded data, or a list of them
    output_dir: str | None = None
    where: str | None = None  # a condition on the metadata of the images that are exported
    format: str = allowed("imagefolder", choices=("imagefolder", "parquet", "webdataset"))
    shard_size: int = allowed(1000, at_least=1)  # images a shard, for webdataset and parquet
    repo_id: str | None = None  # owner/name of a dataset on the Hugging Face hub, to which it is uploaded then
    private: bool = True


@dataclass
class MeasureConfig:
    expanded: str | None = None
    where: str | None = None  # a condition on the metadata of `expanded`
    num_neighbours: int = allowed(5, at_least=1)
    judge_steps: int = allowed(600, at_least=1)


@dataclass
class TrainerConfig:
    accelerator: str = "auto"
    devices: Any = "auto"
    num_nodes: int = allowed(1, at_least=1)
    strategy: str = "auto"
    precision: str = "32-true"


@dataclass
class LoggerConfig:
    _target_: str | None = None
    name: str = MISSING
    project: str = "distdiff"
    entity: str | None = None
    group: str | None = None
    tags: list[str] = field(default_factory=list)


@dataclass
class StudyConfig:
    methods: list[str] = allowed([])
    seeds: int = allowed(3, at_least=1)
    split: str = allowed("test", choices=("test", "validation"))


@dataclass
class PretrainConfig:
    output_dir: str | None = None  # null: `pipeline` in the run's directory
    image_size: int = allowed(32, at_least=16)
    latent_channels: int = allowed(4, at_least=1)
    autoencoder_channels: list[int] = allowed([16, 32, 32], at_least=4)
    autoencoder_steps: int = allowed(1200, at_least=1)
    autoencoder_batch_size: int = allowed(32, at_least=1)
    autoencoder_learning_rate: float = allowed(1e-3, above=0)
    kl_weight: float = allowed(1e-3, at_least=0)
    unet_channels: list[int] = allowed([48, 96], at_least=8)
    unet_layers_per_block: int = allowed(1, at_least=1)
    text_width: int = allowed(64, at_least=8)
    text_layers: int = allowed(2, at_least=1)
    denoiser_steps: int = allowed(4500, at_least=1)
    denoiser_batch_size: int = allowed(48, at_least=1)
    denoiser_learning_rate: float = allowed(1e-3, above=0)
    ema_decay: float = allowed(0.999, at_least=0, at_most=1)
    prompt_dropout: float = allowed(0.1, at_least=0, at_most=1)
    grid_every: int = allowed(1000, at_least=1)


@dataclass
class BareCommand:
    """What every command has."""

    command: str = MISSING
    seed: int = allowed(0, at_least=0)
    fetch_only: bool = False  # download what the command will need, for nodes without a network, and end
    paths: PathsConfig = field(default_factory=PathsConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)


@dataclass
class CommandConfig(BareCommand):
    """What every command has that works on a dataset."""

    dataset: DatasetConfig = field(default_factory=DatasetConfig)


@dataclass
class ExpandCommand(CommandConfig):
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    encoder: Any = None  # each option has keys of its own
    options: dict[str, Any] = field(default_factory=dict)  # those that others refer to by name
    prototype: PrototypeConfig = field(default_factory=PrototypeConfig)
    guidance: GuidanceConfig = field(default_factory=GuidanceConfig)
    expansion: ExpansionConfig = field(default_factory=ExpansionConfig)
    classifier: ClassifierConfig = field(default_factory=ClassifierConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)


@dataclass
class PreviewCommand(ExpandCommand):
    preview: PreviewConfig = field(default_factory=PreviewConfig)


@dataclass
class DescribeCommand(CommandConfig):
    describe: DescribeConfig = field(default_factory=DescribeConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)


@dataclass
class RunCommand(ExpandCommand):
    measure: MeasureConfig = field(default_factory=MeasureConfig)
    study: StudyConfig = field(default_factory=StudyConfig)


@dataclass
class TrainCommand(CommandConfig):
    classifier: ClassifierConfig = field(default_factory=ClassifierConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)


@dataclass
class MeasureCommand(TrainCommand):
    measure: MeasureConfig = field(default_factory=MeasureConfig)


@dataclass
class PretrainCommand(CommandConfig):
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)


@dataclass
class ExportCommand(BareCommand):
    export: ExportConfig = field(default_factory=ExportConfig)


COMMANDS: dict[str, type[BareCommand]] = {
    "run": RunCommand,
    "expand": ExpandCommand,
    "preview": PreviewCommand,
    "describe": DescribeCommand,
    "train": TrainCommand,
    "measure": MeasureCommand,
    "pretrain": PretrainCommand,
    "export": ExportCommand,
}
GROUPS: dict[str, type] = {
    "dataset": DatasetConfig,
    "generator": GeneratorConfig,
    "encoder": EncoderConfig,
    "prototype": PrototypeConfig,
    "guidance": GuidanceConfig,
    "classifier": ClassifierConfig,
    "augmentation": AugmentationConfig,
    "trainer": TrainerConfig,
    "logger": LoggerConfig,
    "paths": PathsConfig,
}
