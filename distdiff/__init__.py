"""DistDiff: expand an image dataset with a pretrained diffusion model, guided by the real data's prototypes."""

import importlib

__version__ = "0.1.0"
__all__ = [
    "ImageExpander",
    "fit_exemplars",
    "fit_prototypes",
    "load_encoder",
    "load_expanded",
    "load_generator",
    "load_images",
    "register_configs",
    "train_guide",
]


def __getattr__(name: str) -> object:
    """The function or class `name` of `distdiff.api`, imported when first used: commands must start in one second."""
    if name in __all__:
        module = "distdiff.commands.configuration" if name == "register_configs" else "distdiff.api"
        return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module 'distdiff' has no attribute {name!r}")
