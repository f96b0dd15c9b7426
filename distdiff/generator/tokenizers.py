"""What a tokenizer leaves out of its files, and its text encoder knows."""

from diffusers import DiffusionPipeline
from transformers.tokenization_utils_base import LARGE_INTEGER


def take_lengths(pipeline: DiffusionPipeline) -> None:
    """Gives each tokenizer that sets no limit (`model_max_length`) as many tokens as its text encoder has positions."""
    for name, tokenizer in pipeline.components.items():
        if not name.startswith("tokenizer") or tokenizer is None or tokenizer.model_max_length < LARGE_INTEGER:
            continue
        encoder = getattr(pipeline, name.replace("tokenizer", "text_encoder"), None)
        places = getattr(getattr(encoder, "config", None), "max_position_embeddings", None)
        if places is not None:
            tokenizer.model_max_length = places
            if name == "tokenizer" and hasattr(
                pipeline, "tokenizer_max_length"
            ):  # kept by Stable Diffusion 3's pipeline
                pipeline.tokenizer_max_length = places
