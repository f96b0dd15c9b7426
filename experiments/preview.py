"""Shows what an expansion would make, and what it would take: python experiments/preview.py dataset=digits guidance=direct"""

from omegaconf import DictConfig

from distdiff.config.launch import command, run_directory


@command("preview")
def main(config: DictConfig) -> None:
    from distdiff.preview.command import preview

    preview(config, run_directory())


if __name__ == "__main__":
    main()
