"""Makes images from work items: guided img2img, or augmentation for comparison."""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from distdiff.energy.images import ImageEnergy
from distdiff.expansion.plan import WorkItem
from distdiff.generator.conditioning import Prompts
from distdiff.generator.latent_diffusion import LatentDiffusion, Posterior
from distdiff.generator.noise import draw, image_seed
from distdiff.generator.precision import whole_float32
from distdiff.guidance.base import Guidance
from distdiff.guidance.batch import GuidedBatch
from distdiff.guidance.schedule import StepSchedule

NOT_FINITE, CONSTANT = "the sample holds values that are not finite", "all pixels of the sample are equal"


@dataclass(frozen=True)
class Synthesized:
    """A batch of results: images (B, 3, H, W) in [0, 1], and columns of metadata, a list of B values each.

    `failures`: by position, why an image is none to keep.
    """

    images: torch.Tensor
    columns: dict[str, list]
    failures: dict[int, str] = field(default_factory=dict)

    def judged(self) -> "Synthesized":
        """The same, with samples that are not finite, or of a single colour once in 255 levels, among the failures."""
        finite = self.images.isfinite().flatten(1).all(1)
        levels = self.images.nan_to_num().clamp(0, 1).mul(255).round().flatten(2)
        constant = (levels.amax(2) == levels.amin(2)).all(1)
        found = {place: CONSTANT for place in constant.nonzero().flatten().tolist()}
        found |= {place: NOT_FINITE for place in (~finite).nonzero().flatten().tolist()}
        return replace(self, failures=dict(sorted((found | self.failures).items())))


class Synthesizer(nn.Module, ABC):
    """Makes one image an item; all items of a batch share one denoising schedule."""

    def group(self, strength: float) -> Hashable:
        """Items with equal values may share a batch."""
        return 0

    @abstractmethod
    def forward(self, items: Sequence[WorkItem]) -> Synthesized: ...


class GuidedImg2Img(Synthesizer):
    """SDEdit (Meng et al., 2022) with some denoising steps replaced by a guidance method."""

    def __init__(
        self,
        generator: LatentDiffusion,
        guidance: Guidance,
        image_energy: ImageEnergy,
        posterior: Posterior,
        prompts: Prompts,
        seed: int,
    ) -> None:
        """`posterior` holds all sources' latents, `prompts` one or several a class."""
        super().__init__()
        self.generator = generator
        self.guidance = guidance
        self.image_energy = image_energy
        self.posterior = posterior
        self.prompts = prompts
        self.seed = seed

    def group(self, strength: float) -> Hashable:
        """All that is counted of the steps; where their noise levels depend on the strength too, the strength."""
        self.generator.check_strength(strength)
        if self.generator.counting == "all":
            return strength
        return self.schedule(strength)

    def schedule(self, strength: float) -> StepSchedule:
        return self.guidance.schedule(self.generator.num_steps, strength, self.generator.counting)

    def forward(self, items: Sequence[WorkItem]) -> Synthesized:
        with torch.no_grad(), whole_float32(self.generator.dtype):
            return self._sampled(items)

    def _sampled(self, items: Sequence[WorkItem]) -> Synthesized:
        generators = [torch.Generator().manual_seed(item.seed) for item in items]
        batch = self.batch(items, generators)
        source = self.source_latents(items, generators)
        noise = draw(torch.randn, source.shape[1:], generators).to(source)
        latents = batch.denoiser.add_noise(source, noise, batch.schedule.first)
        latents, energy_before = self.denoise(latents, batch)
        images = self.generator.decode(latents).clamp(0, 1)
        features = self.image_energy.features(images)
        return Synthesized(
            images,
            {
                "energy_before": energy_before.tolist(),
                "energy_after": self.image_energy.of_features(features, batch.targets).tolist(),
                "gradient_finite": batch.guided.tolist(),
            }
            | self.image_energy.columns(features, batch.targets)
            | self._sentences(items),
        )

    def batch(self, items: Sequence[WorkItem], generators: list[torch.Generator]) -> GuidedBatch:
        """The items as guidance sees them; all have one schedule. `generators` are the sampler's."""
        device, strength = self.generator.device, items[0].strength
        targets = self.image_energy.targets(items, self.seed).to(device)
        return GuidedBatch(
            self.generator.denoiser(self.prompts.select(self.prompt_numbers(items)), strength, generators),
            self.image_energy,
            targets,
            self.schedule(strength),
            self.generators_for(items, "guidance"),
            self.generator.dtype,
        )

    def prompt_numbers(self, items: Sequence[WorkItem]) -> torch.Tensor:
        """Which of the prompts each item is made with, (B,): its class's only one, or one that its own seed draws."""
        of_class = self.prompts.of_class
        if of_class is None:
            return torch.tensor([item.label for item in items])
        seeds = [image_seed(self.seed, item.class_name, item.source, item.copy, "prompt") for item in items]
        choices = [of_class[item.label] for item in items]
        return torch.tensor([numbers[seed % len(numbers)] for numbers, seed in zip(choices, seeds, strict=True)])

    def _sentences(self, items: Sequence[WorkItem]) -> dict[str, list[str]]:
        """The metadata's column of the prompts, where their texts are known."""
        texts = self.prompts.sentences
        return {} if texts is None else {"prompt": [texts[number] for number in self.prompt_numbers(items).tolist()]}

    def denoise(self, latents: torch.Tensor, batch: GuidedBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """From z at the first step to the clean latent, and the energy (B,) at the first guided step."""
        schedule, energy_before = batch.schedule, None
        guided = self.guidance.guided_steps(schedule)
        for index in range(schedule.first, schedule.num_steps):
            if index in guided:
                latents, energies = self.guidance.step(latents, index, batch)
                energy_before = energies if energy_before is None else energy_before
            else:
                latents = batch.denoiser.advance(latents, batch.denoiser.predict(latents, index), index)
        return latents, energy_before

    def source_latents(self, items: Sequence[WorkItem], generators: list[torch.Generator]) -> torch.Tensor:
        """One VAE sample a copy, or a source where the guidance method wants so, (B, C, h, w)."""
        if self.guidance.preparation.one_latent_per_source:
            generators = [
                torch.Generator().manual_seed(image_seed(self.seed, item.class_name, item.source, "source"))
                for item in items
            ]
        chosen = self.posterior.select(torch.tensor([item.position for item in items]))
        noise = draw(torch.randn, chosen.mean.shape[1:], generators)
        return chosen.sample(noise.to(chosen.mean)).to(self.generator.device, self.generator.latent_dtype)

    def generators_for(self, items: Sequence[WorkItem], purpose: str) -> list[torch.Generator]:
        """A stream of its own for each item and purpose, so that drawing from it shifts nothing else."""
        seeds = (image_seed(self.seed, item.class_name, item.source, item.copy, purpose) for item in items)
        return [torch.Generator().manual_seed(seed) for seed in seeds]


class Augmentation(Synthesizer):
    """Copies made by an augmentation policy alone: what a user would do without a diffusion model."""

    def __init__(self, policy: nn.Module, originals: torch.Tensor) -> None:
        """`originals` (n, 3, H, W) in [0, 1]."""
        super().__init__()
        self.policy = policy
        self.originals = originals

    @torch.no_grad()
    def forward(self, items: Sequence[WorkItem]) -> Synthesized:
        images = []
        for item in items:  # kornia draws from the global generator, so one image at a time under its own seed
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(item.seed)
                images.append(self.policy(self.originals[item.position : item.position + 1])[0])
        return Synthesized(torch.stack(images).clamp(0, 1), {})
