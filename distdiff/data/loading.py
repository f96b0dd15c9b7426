"""From a dataset's configuration to its splits."""

from omegaconf import DictConfig

from distdiff.config.instantiation import build
from distdiff.data.images import DatasetSplits


def load_dataset(config: DictConfig) -> DatasetSplits:
    """Calls the loader that `config._target_` names with the dataset's keys."""
    return build(config)


def prompts(config: DictConfig, class_names: tuple[str, ...]) -> list[str]:
    """One prompt a class: `prompt_template` with the class's words (`class_names`, or the name with its `_` as spaces)."""
    words = config.class_names or {}
    return [config.prompt_template.replace("{}", words.get(name, name.replace("_", " "))) for name in class_names]
