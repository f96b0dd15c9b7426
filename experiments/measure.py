"""Measures an expanded dataset: python experiments/measure.py measure.expanded=outputs/expanded/<dir>"""

from omegaconf import DictConfig

from distdiff.config.launch import command, run_directory


@command("measure")
def main(config: DictConfig) -> None:
    from distdiff.metrics.command import measure_expanded

    measure_expanded(config, run_directory())


if __name__ == "__main__":
    main()
