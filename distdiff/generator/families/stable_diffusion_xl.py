"""Stable Diffusion XL."""

from distdiff.constants import constant
from distdiff.generator.conditioning import Conditioning
from distdiff.generator.families.stable_diffusion import StableDiffusion, text_width
from distdiff.generator.kinds import STABLE_DIFFUSION_XL


class StableDiffusionXL(StableDiffusion):
    """Stable Diffusion XL: two text encoders, a pooled embedding, and the image's sizes as extra conditions."""

    kind = STABLE_DIFFUSION_XL
    text_encoders = ("text_encoder", "text_encoder_2")
    pooling_encoders = ("text_encoder_2",)
    added_condition = "text_time"
    decodes_in_float32 = True

    def _odd_network(self, config):
        if reason := super()._odd_network(config):
            return reason
        if config.addition_time_embed_dim is None:
            return "its network has no addition_time_embed_dim, the width of the numbers about sizes"
        return None

    def misfit(self):
        if reason := super().misfit():
            return reason
        first, second = (reader.limit for reader in self.tokenizers())
        return None if first == second else f"its tokenizers give {first} and {second} tokens, not equally many"

    def widths(self):
        config = self.network.config
        encoders = [self._encoder_config(name) for name in self.text_encoders]
        yield "text", text_width(config), sum(encoder.hidden_size for encoder in encoders)
        # The network's second input holds the pooled text, and six numbers about sizes.
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        yield "pooled text", pooled, encoders[1].projection_dim

    def embed(self, prompts, device):
        tokens, _, pooled, _ = self.pipeline.encode_prompt(prompts, device=device, do_classifier_free_guidance=False)
        return Conditioning(tokens, pooled)

    def embed_negative(self, prompt, device):
        negative = {"negative_prompt": [prompt]} if prompt else {}
        _, tokens, _, pooled = self.pipeline.encode_prompt([""], device=device, **negative)
        return Conditioning(tokens, pooled)

    def _added(self, latents, condition):
        height, width = (side * self.pipeline.vae_scale_factor for side in latents.shape[-2:])
        numbers = (height, width, 0, 0, height, width)  # original size, crop's corner, target size
        sizes = constant(numbers, latents.device, latents.dtype)
        return {"text_embeds": condition.pooled, "time_ids": sizes.expand(len(latents), -1)}
