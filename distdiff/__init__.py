"""DistDiff: expand an image dataset with a pretrained diffusion model, guided by the real data's prototypes."""

__version__ = "0.1.0"
