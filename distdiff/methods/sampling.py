"""Guided denoising of a batch, shared by all methods that sample from the diffusion model."""

import time
from abc import abstractmethod
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager

import torch

from distdiff.energy.images import ImageEnergy
from distdiff.generator.beginnings import Beginning
from distdiff.generator.conditioning import Prompts
from distdiff.generator.latent_diffusion import LatentDiffusion
from distdiff.generator.noise import draw
from distdiff.generator.precision import whole_float32
from distdiff.guidance.base import Guidance
from distdiff.guidance.batch import Aims, GuidedBatch
from distdiff.guidance.schedule import StepSchedule
from distdiff.methods.item import WorkItem
from distdiff.methods.synthesis import Synthesized, Synthesizer


class GuidedSampler(Synthesizer):
    """Denoises latents that a subclass prepares; a guidance method replaces some of the denoising steps."""

    def __init__(
        self, seed: int, generator: LatentDiffusion, prompts: Prompts, guidance: Guidance, image_energy: ImageEnergy
    ) -> None:
        """`prompts` holds one or several prompts for each class."""
        super().__init__()
        self.seed = seed
        self.generator = generator
        self.prompts = prompts
        self.guidance = guidance
        self.image_energy = image_energy
        self._user = object()  # stands for this sampler among those that share beginnings

    @contextmanager
    def alone(self) -> Iterator[None]:
        before, self.generator.beginnings = self.generator.beginnings, None
        try:
            yield
        finally:
            self.generator.beginnings = before

    @abstractmethod
    def first_latents(
        self, items: Sequence[WorkItem], batch: GuidedBatch, generators: list[torch.Generator]
    ) -> torch.Tensor:
        """z_t (B, C, h, w) at the schedule's first step.

        `generators` has one random generator for each item, from which nothing has been drawn yet.
        """

    def group(self, strength: float) -> Hashable:
        """The step schedule of this strength, or the strength itself if it also determines the steps' noise levels.

        Raises `UserError` for a strength that leaves no steps.
        """
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
        aims = self.guidance.aims(items, self.seed)
        batch = self.batch(items, generators, aims)
        latents, energy_before = self.denoise(self.first_latents(items, batch, generators), batch)
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
            | ({} if aims is None else aims.columns)
            | self._sentences(items),
        )

    def batch(
        self, items: Sequence[WorkItem], generators: list[torch.Generator], aims: Aims | None = None
    ) -> GuidedBatch:
        """The batch as the guidance method sees it. All items must have the same schedule.

        `generators` holds one random generator for each item, and `aims` what the guidance method plans for them.
        """
        device, strength = self.generator.device, items[0].strength
        targets = self.image_energy.targets(items, self.seed).to(device)
        return GuidedBatch(
            self.generator.denoiser(self.prompts.select(self.prompt_numbers(items)), strength, generators),
            self.image_energy,
            targets,
            self.schedule(strength),
            self.generators_for(items, "guidance"),
            self.generator.dtype,
            None if aims is None else aims.values.to(device),
        )

    def prompt_numbers(self, items: Sequence[WorkItem]) -> torch.Tensor:
        """The index of each item's prompt, (B,): the only prompt of its class, or one drawn by the item's own seed."""
        of_class = self.prompts.of_class
        if of_class is None:
            return torch.tensor([item.label for item in items])
        numbers = [of_class[item.label] for item in items]
        seeds = [item.seed_for(self.seed, "prompt") for item in items]
        return torch.tensor([own[seed % len(own)] for own, seed in zip(numbers, seeds, strict=True)])

    def _sentences(self, items: Sequence[WorkItem]) -> dict[str, list[str]]:
        """The metadata column of prompts. There is no column if the texts of the prompts are not known."""
        texts = self.prompts.sentences
        return {} if texts is None else {"prompt": [texts[number] for number in self.prompt_numbers(items).tolist()]}

    def denoise(self, latents: torch.Tensor, batch: GuidedBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Denoises `latents` (B, C, h, w) from the first step of the schedule to the end.

        Returns the clean latents (B, C, h, w) and the energies (B,) at the first guided step.
        """
        schedule, energy_before = batch.schedule, None
        guided = self.guidance.guided_steps(schedule)
        first = max(schedule.first, guided.start)
        latents = self._up_to_guidance(latents, batch, range(schedule.first, first))
        for index in range(first, schedule.num_steps):
            self.before_step(index, batch)
            if index in guided:
                latents, energies = self.guidance.step(latents, index, batch)
                energy_before = energies if energy_before is None else energy_before
            else:
                latents = batch.denoiser.advance(latents, batch.denoiser.predict(latents, index), index)
        return latents, energy_before

    def _up_to_guidance(self, latents: torch.Tensor, batch: GuidedBatch, steps: range) -> torch.Tensor:
        """Takes `latents` (B, C, h, w) through the unguided `steps` before the first guided one.

        If the generator keeps beginnings, and has that of this batch, it is used, and the time that it took is added to
        `spared`.
        """
        kept, key = self.generator.beginnings, None
        if kept is not None and steps and type(self).before_step is GuidedSampler.before_step:
            key = kept.key(batch.denoiser, latents, steps)
        if key is None:
            return self._unguided(latents, batch, steps)
        if (found := kept.find(key, self._user)) is not None:
            self.spared += found.seconds
            batch.denoiser.begin_at(steps.stop)
            return found.latents.to(latents.device, copy=True)
        began = time.perf_counter()
        reached = self._unguided(latents, batch, steps)
        on_cpu = reached.to("cpu", copy=True)  # waits for the device, so that the time is that of the steps
        kept.keep(key, Beginning(on_cpu, time.perf_counter() - began, self._user))
        return reached

    def _unguided(self, latents: torch.Tensor, batch: GuidedBatch, steps: range) -> torch.Tensor:
        for index in steps:
            self.before_step(index, batch)
            latents = batch.denoiser.advance(latents, batch.denoiser.predict(latents, index), index)
        return latents

    def before_step(self, index: int, batch: GuidedBatch) -> None:
        """Called before each step; a subclass may change how `batch` is denoised from here on."""

    def generators_for(self, items: Sequence[WorkItem], purpose: str) -> list[torch.Generator]:
        """A random generator for each item, used for this `purpose` only.

        Draws for one purpose therefore do not change the draws for another.
        """
        return [torch.Generator().manual_seed(item.seed_for(self.seed, purpose)) for item in items]

    def noise(self, like: torch.Tensor, generators: list[torch.Generator]) -> torch.Tensor:
        """Gaussian noise in the shape of `like` (B, C, h, w), drawn for each sample from its own generator."""
        return draw(torch.randn, like.shape[1:], generators).to(like)
