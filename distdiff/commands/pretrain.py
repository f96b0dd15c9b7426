"""Trains a small latent diffusion pipeline from an image dataset: distdiff pretrain dataset=font_digits."""

from distdiff.pretraining.pretrain import pretrain

__all__ = ["pretrain"]
