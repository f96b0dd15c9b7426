"""Stable Diffusion 3."""

import math

from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import calculate_shift

from distdiff.generator.conditioning import Conditioning
from distdiff.generator.families.base import Family
from distdiff.generator.kinds import STABLE_DIFFUSION_3

T5_TOKENS = 256  # the most tokens for Stable Diffusion 3's third text encoder; the pipeline's own default


class StableDiffusion3(Family):
    """Stable Diffusion 3.x: a transformer trained by flow matching, with three text encoders (T5 can be left out)."""

    kind = STABLE_DIFFUSION_3
    network_name = "transformer"
    text_encoders = ("text_encoder", "text_encoder_2", "text_encoder_3")
    pooling_encoders = ("text_encoder", "text_encoder_2")
    optional_encoders = ("text_encoder_3",)

    @property
    def size_multiple(self) -> int:
        return self.pipeline.vae_scale_factor * self.network.config.patch_size

    def embed(self, prompts, device):
        encode = self.pipeline.encode_prompt
        tokens, _, pooled, _ = encode(
            prompts, None, None, device=device, do_classifier_free_guidance=False, max_sequence_length=T5_TOKENS
        )
        return Conditioning(tokens, pooled)

    def embed_negative(self, prompt, device):
        negative = {"negative_prompt": [prompt]} if prompt else {}
        _, tokens, _, pooled = self.pipeline.encode_prompt(
            [""], None, None, device=device, max_sequence_length=T5_TOKENS, **negative
        )
        return Conditioning(tokens, pooled)

    def widths(self):
        config = self.network.config
        both = [self._encoder_config(name) for name in self.text_encoders[:2]]
        yield "pooled text", config.pooled_projection_dim, sum(encoder.projection_dim for encoder in both)
        side_by_side = sum(encoder.hidden_size for encoder in both)  # filled up with zeros to the width of T5
        third = getattr(self.pipeline, "text_encoder_3", None)
        yield (
            "text",
            config.joint_attention_dim,
            max(side_by_side, config.joint_attention_dim if third is None else third.config.d_model),
        )

    def _token_limit(self, encoder, tokenizer):
        # The pipeline gives both CLIP encoders as many tokens as the first one takes.
        return T5_TOKENS if encoder == "text_encoder_3" else self.pipeline.tokenizer_max_length

    def output(self, latents, timestep, condition):
        return self.network(
            hidden_states=latents,
            timestep=timestep.expand(len(latents)),
            encoder_hidden_states=condition.tokens,
            pooled_projections=condition.pooled,
            return_dict=False,
        )[0]

    def second_half(self):
        blocks = self.network.transformer_blocks
        return blocks[len(blocks) // 2]

    def middle_shape(self, latent_side):
        return self.network.inner_dim, latent_side // self.network.config.patch_size

    def middle_map(self, hidden):
        side = math.isqrt(hidden.shape[1])  # the image's tokens, row by row
        return hidden.transpose(1, 2).unflatten(2, (side, side))

    def set_timesteps(self, scheduler, num_steps, strength, resolution):
        options = {}
        if scheduler.config.use_dynamic_shifting:
            tokens = (resolution // self.size_multiple) ** 2
            names = ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift")
            options["mu"] = calculate_shift(tokens, *(scheduler.config[name] for name in names))
        scheduler.set_timesteps(num_steps, **options)
