"""Latent consistency models."""

from distdiff.errors import UserError
from distdiff.generator.families.stable_diffusion import StableDiffusion
from distdiff.generator.kinds import LATENT_CONSISTENCY

DISTILLED_STEPS = 50  # LCMScheduler's own default


class LatentConsistency(StableDiffusion):
    """Latent consistency models (Luo et al., 2023).

    All steps run at any strength; the strength sets only the noise level of the first step.
    """

    kind = LATENT_CONSISTENCY

    def _odd_network(self, config):
        if reason := super()._odd_network(config):
            return reason
        if config.time_cond_proj_dim is None:
            return "its network has no time_cond_proj_dim, so it does not take the guidance scale as this kind of model does"
        return None

    @property
    def classifier_free(self) -> bool:
        return False

    def set_timesteps(self, scheduler, num_steps, strength, resolution):
        steps = int(scheduler.config.get("original_inference_steps", DISTILLED_STEPS) * strength)
        if num_steps > steps:
            raise UserError(
                f"generator.num_steps={num_steps} is not allowed: at strength {strength:g} this latent consistency model has "
                f"{steps} steps, so a number from 1 to {steps}"
            )
        scheduler.set_timesteps(num_steps, strength=strength)
