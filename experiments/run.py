"""The whole study on one dataset: python experiments/run.py dataset=digits guidance=direct guidance.rho=1"""

from omegaconf import DictConfig

from distdiff.config.launch import command, run_directory


@command("run")
def main(config: DictConfig) -> None:
    from distdiff.study.study import Study

    Study(config, run_directory()).run()


if __name__ == "__main__":
    main()
