"""Says in which places a command enlarges a dataset's images a lot, which costs time and memory but adds no detail."""

from omegaconf import DictConfig

from distdiff.data.enlarging import say_enlarged
from distdiff.data.images import LabelledImages
from distdiff.methods.config import needs_of


def say_enlarged_images(config: DictConfig, images: LabelledImages) -> None:
    """Notes each key of a command's configuration that enlarges `images` more than twice."""
    say_enlarged(images, config.dataset.fit, _sizes(config))


def _sizes(config: DictConfig) -> dict[str, int]:
    """The sizes to which the command brings images, by the key that sets each of them."""
    sizes = {}
    if "generator" in config:
        sizes["generator.resolution"] = config.generator.resolution
    if "classifier" in config:
        key, size = (
            ("train.resize", config.train.resize)
            if "train" in config and config.train.resize
            else ("classifier.input_size", config.classifier.input_size)
        )
        sizes[key] = size
    if "measure" in config:
        judge = config.measure.judge_classifier
        sizes[f"options.classifier.{judge}.input_size"] = config.options.classifier[judge].input_size
    guide = config.encoder.get("guide") if "encoder" in config else None
    if guide is not None and config.encoder.get("checkpoint") is None and "image_energy" in needs_of(config.method):
        own = guide.input_size or config.options.classifier[guide.classifier].input_size
        sizes["encoder.guide.input_size"] = own
    return sizes
