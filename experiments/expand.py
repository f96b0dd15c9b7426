"""Expands a dataset: python experiments/expand.py dataset=digits guidance=direct expansion.factor=5"""

from omegaconf import DictConfig

from distdiff.config.launch import command, run_directory


@command("expand")
def main(config: DictConfig) -> None:
    from distdiff.expansion.command import expand

    expand(config, run_directory())


if __name__ == "__main__":
    main()
