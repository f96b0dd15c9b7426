"""Trains a small latent diffusion pipeline from an image dataset: python experiments/pretrain.py dataset=font_digits"""

from omegaconf import DictConfig

from distdiff.config.launch import command, run_directory


@command("pretrain")
def main(config: DictConfig) -> None:
    from distdiff.pretraining.pretrain import pretrain

    pretrain(config, run_directory())


if __name__ == "__main__":
    main()
