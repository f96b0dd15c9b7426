"""Trains one classifier and tests it: python experiments/train.py train.expanded=outputs/expanded/<dir>"""

from omegaconf import DictConfig

from distdiff.config.launch import command, run_directory


@command("train")
def main(config: DictConfig) -> None:
    from distdiff.classification.command import train

    train(config, run_directory())


if __name__ == "__main__":
    main()
