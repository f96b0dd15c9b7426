"""Compares guidance methods with what the published code of their papers computes, on fixed tensors with seeds.

    python experiments/studies/fidelity.py

The published updates of DistDiff, GIF, MGD³, feedback guidance and particle guidance are written out below, each for one
step, on the embedded generator in float64 with a random guide, random real images and random latents (seed 0). Both
sides get the same random numbers. The script writes experiments/results/fidelity.md in about a minute.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import distdiff
from distdiff.classification.networks import small_cnn
from distdiff.commands.configuration import load_option
from distdiff.encoders.base import Encoder
from distdiff.encoders.guide import GuideEncoder
from distdiff.energy.hierarchical import HierarchicalEnergy
from distdiff.energy.images import ImageEnergy
from distdiff.generator.latent_diffusion import Posterior
from distdiff.guidance.base import Guidance
from distdiff.guidance.batch import GuidedBatch
from distdiff.guidance.config import REAL_FEATURES, needs_of
from distdiff.guidance.real import RealFeatures, RealLatents
from distdiff.keys import build
from distdiff.prototypes.exemplars import Exemplars
from distdiff.prototypes.hierarchical import Prototypes

RESULT = Path(__file__).resolve().parents[2] / "experiments" / "results" / "fidelity.md"
STEPS, INDEX, CLASSES, IMAGES = 50, 30, 10, 4  # step 30 of 50 is DistDiff's M = 20


@dataclass(frozen=True)
class Image:
    label: int
    class_name: str
    source: str
    copy: int


class Headless(Encoder):
    """φ without a classifier's head, so that probabilities are those of class means, as CLIP's are of class names."""

    def __init__(self, guide: GuideEncoder) -> None:
        super().__init__(guide.classifier.backbone, guide.preprocess, guide.feature_dim)

    def extract(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.network(inputs)


class Bench:
    """One step of four images, whose sources are the first images of four classes of two real images each."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.generator = distdiff.load_generator("tiny_digits", dtype="float64", num_steps=STEPS)
        self.guide = GuideEncoder(small_cnn(CLASSES, input_size=32)).double()
        self.encoder: Encoder = self.guide
        drawn = torch.Generator().manual_seed(0)
        self.latents = torch.randn(IMAGES, 4, 8, 8, generator=drawn, dtype=torch.float64)
        self.labels = torch.arange(IMAGES)
        real = torch.randn(2 * CLASSES, self.guide.feature_dim, generator=drawn, dtype=torch.float64)
        labels, keys = np.repeat(np.arange(CLASSES), 2), tuple(map(str, range(2 * CLASSES)))
        self.features = RealFeatures(Exemplars(F.normalize(real, dim=1), labels, keys))
        means = torch.randn(2 * CLASSES, 4, 8, 8, generator=drawn, dtype=torch.float64)
        self.real_latents = RealLatents(Posterior(means, torch.zeros_like(means)), labels, keys)
        groups = F.normalize(
            torch.randn(CLASSES, 3, self.guide.feature_dim, generator=drawn, dtype=torch.float64), dim=-1
        )
        present = torch.ones(CLASSES, 3, dtype=torch.bool)
        self.prototypes = Prototypes(F.normalize(groups.mean(1), dim=-1), groups, present)
        self.prompts = self.generator.embed([f"digit {label}" for label in range(CLASSES)])
        self.timestep = self.denoiser.scheduler.timesteps[INDEX]
        tables = self.denoiser.scheduler.alphas_cumprod
        before, after = tables[self.timestep], tables[self.denoiser.scheduler.timesteps[INDEX + 1]]
        self.signal, self.noise = before.sqrt(), (1 - before).sqrt()
        self.next_signal, self.next_noise = after.sqrt(), (1 - after).sqrt()
        self.epsilon = self.denoiser.model(self.latents, self.timestep).detach()
        self.clean = (self.latents - self.noise * self.epsilon) / self.signal

    @property
    def denoiser(self):
        return self.generator.denoiser(self.prompts.select(self.labels))

    def method(self, name: str, **keys: object) -> Guidance:
        option = load_option("guidance", name, **keys)
        real = (self.features if need == REAL_FEATURES else self.real_latents for need in needs_of(option))
        return build(option, *real)

    def batch(self, method: Guidance) -> GuidedBatch:
        aims = method.aims([Image(i, str(i), str(2 * i), 0) for i in range(IMAGES)], seed=0)
        energy = HierarchicalEnergy(self.prototypes, class_weight=1.0, group_weight=1.0)
        made = GuidedBatch(
            *(self.denoiser, ImageEnergy(self.encoder, energy), self.labels, method.schedule(STEPS, 1.0)),
            [torch.Generator().manual_seed(100 + i) for i in range(IMAGES)],
        )
        made.aims = None if aims is None else aims.values
        return made

    def step(self, name: str, **keys: object) -> torch.Tensor:
        method = self.method(name, **keys)
        return method.step(self.latents, INDEX, self.batch(method))[0]

    def ddim(self, epsilon: torch.Tensor, latents: torch.Tensor | None = None) -> torch.Tensor:
        """DDIM's z_{t−1} for a noise prediction at z_t."""
        latents = self.latents if latents is None else latents
        return self.next_signal * (latents - self.noise * epsilon) / self.signal + self.next_noise * epsilon

    def start(self) -> tuple[torch.Tensor, torch.Tensor]:
        """ω ~ U(0, 1) and b ~ N(0, 1), which the published code of DistDiff and of GIF draws."""
        generators = [torch.Generator().manual_seed(100 + i) for i in range(IMAGES)]
        drawn = [(torch.rand((4, 1, 1), generator=one), torch.randn((4, 1, 1), generator=one)) for one in generators]
        omega, beta = (torch.stack(parts).double().requires_grad_() for parts in zip(*drawn, strict=True))
        return omega, beta


def distdiff_published(bench: Bench) -> tuple[torch.Tensor, torch.Tensor]:
    """The transform at step M: P = 2 steps of DDIM, raw features, bicubic images in [−1, 1], one image a batch."""
    omega, beta = bench.start()
    denoiser, vae = bench.denoiser, bench.generator.vae
    z, score = bench.latents * (1 + omega) + beta, 0.0
    for t in denoiser.scheduler.timesteps[INDEX : INDEX + 2]:
        result = denoiser.scheduler.step(denoiser.model(z, t), t, z)
        z, picture = result.prev_sample, vae.decode(result.pred_original_sample / vae.config.scaling_factor).sample
        raw = bench.guide.classifier.backbone(F.interpolate(picture, (32, 32), mode="bicubic"))
        groups = bench.prototypes.groups[bench.labels]
        nearest = groups[torch.arange(IMAGES), torch.einsum("bd,bkd->bk", raw, groups).argmax(1)]
        score = (
            score + (raw - bench.prototypes.classes[bench.labels]).norm(dim=1).sum() + (raw - nearest).norm(dim=1).sum()
        )
    slopes = torch.autograd.grad(score / 2, (omega, beta))
    with torch.no_grad():
        moved = bench.latents * (1 + omega - 10 * slopes[0]) + beta - 10 * slopes[1]
        moved = bench.latents + (moved - bench.latents).clamp(-0.2, 0.2)
    method = bench.method("transform_official")
    ours, _ = method.transformed(bench.latents, *(part.detach() for part in (omega, beta)), INDEX, bench.batch(method))
    return moved, ours


def gif_published(bench: Bench) -> tuple[torch.Tensor, torch.Tensor]:
    """One sign step up entropy + kept class + divergence, on a finished latent; all four images are one group."""
    omega, beta = bench.start()
    bench.encoder = Headless(bench.guide)
    pictures = bench.generator.decode(bench.latents * (1 + omega) + beta)
    features = bench.encoder.features(pictures)
    features = features / features.norm(dim=-1, keepdim=True)
    p = (100.0 * features @ bench.features.class_means.T).softmax(dim=-1)
    kl = nn.KLDivLoss(reduction="batchmean", log_target=True)
    mean = features.mean(0, keepdim=True).repeat([IMAGES, 1])
    score = -(p * torch.log(p)).sum(dim=1).mean() + torch.gather(p, 1, bench.labels[:, None]).mean()
    score = score + kl(F.log_softmax(features, dim=1), F.log_softmax(mean, dim=1))
    slopes = torch.autograd.grad(score, (omega, beta))
    with torch.no_grad():
        moved = bench.latents * (1 + omega + 0.1 * slopes[0].sign()) + beta + 0.1 * slopes[1].sign()
        moved = torch.maximum(torch.minimum(moved, bench.latents + 0.8), bench.latents - 0.8)
    method = bench.method("gif")
    ours = method.imagined(bench.latents, bench.batch(method))
    bench.encoder = bench.guide
    return moved, ours


def modes_published(bench: Bench) -> tuple[torch.Tensor, torch.Tensor]:
    """The paper's ε̂ in DDIM's formula, λ = 0.1."""
    mode = bench.batch(bench.method("modes")).aims
    return bench.ddim(bench.epsilon - bench.noise * 0.1 * (mode - bench.clean)), bench.step("modes")


def mode_moves(bench: Bench, index: int) -> tuple[float, float]:
    """By how much of (m − ẑ0) z_{t−1} moves: in the published DDPM sampler, λ σ_t; and here, by DDIM with the paper's ε̂."""
    tables, steps = bench.denoiser.scheduler.alphas_cumprod, bench.denoiser.scheduler.timesteps
    now, then = float(tables[steps[index]]), float(tables[steps[index + 1]])
    deviation = math.sqrt((1 - then) / (1 - now) * (1 - now / then))
    factor = min(0.1 * (1 - now) / math.sqrt(now), 1.0)
    return 0.1 * deviation, factor * (math.sqrt(then) - math.sqrt(1 - then) * math.sqrt(now / (1 - now)))


def feedback_published(bench: Bench, blend: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """The entropy's gradient, scaled to ‖z‖ · 0.03 and added before the step; `blend`: decoded as the published code does."""
    latents = bench.latents.clone().requires_grad_()
    denoiser = bench.denoiser
    noise = denoiser.model(latents, bench.timestep)
    clean = (latents - bench.noise * noise) / bench.signal
    if blend:
        clean = clean * bench.noise + latents * (1 - bench.noise)
    pictures = denoiser.decode(clean)
    if blend:
        low = pictures.amin((1, 2, 3), keepdim=True).detach()
        pictures = (pictures - low) / (pictures - low).amax((1, 2, 3), keepdim=True).detach()
    logits = bench.guide.classifier(pictures)
    (slope,) = torch.autograd.grad(F.cross_entropy(logits, logits.softmax(-1), reduction="none").sum(), latents)
    lengths = 0.03 * bench.latents.flatten(1).norm(dim=1) / slope.flatten(1).norm(dim=1)
    return bench.ddim(bench.epsilon, bench.latents + lengths.view(-1, 1, 1, 1) * slope), bench.step("feedback")


def particles_published(bench: Bench) -> tuple[torch.Tensor, torch.Tensor]:
    """The published force (1 / log(n − 1) and all), of length ρ ‖z‖, subtracted from ε̂; ρ = 0.1."""
    flat = bench.latents.flatten(1)
    apart = flat[:, None] - flat[None]
    apart = apart[~torch.eye(IMAGES, dtype=torch.bool)].view(IMAGES, IMAGES - 1, -1)
    distance = apart.norm(dim=-1, keepdim=True)
    width = distance.median(dim=1, keepdim=True)[0] ** 2 / math.log(IMAGES - 1)
    force = (2 * torch.exp(-(distance**2) / width) * apart / width).sum(1)
    lengths = 0.1 * flat.norm(dim=1) / force.norm(dim=1)
    epsilon = bench.epsilon - (lengths[:, None] * force).view_as(bench.latents)
    return bench.ddim(epsilon), bench.step("particles", min_sigma=0)


def difference(pair: tuple[torch.Tensor, torch.Tensor], start: torch.Tensor) -> str:
    """The largest difference between published and ours, and what share of the published move that is."""
    published, ours = pair
    share = (published - ours).norm() / (published - start).norm()
    return f"{(published - ours).abs().max().item():.1e} | {100 * share.item():.2g} %"


def rows(bench: Bench) -> list[str]:
    plain = bench.ddim(bench.epsilon)
    cases: list[tuple[str, str, Callable[[], tuple[torch.Tensor, torch.Tensor]], torch.Tensor]] = [
        ("DistDiff (`transform_official`)", "as published", lambda: distdiff_published(bench), bench.latents),
        (
            "GIF-SD (`gif`)",
            "as published, with class means for CLIP's text",
            lambda: gif_published(bench),
            bench.latents,
        ),
        ("MGD³ (`modes`)", "the paper's ε̂", lambda: modes_published(bench), plain),
        ("feedback (`feedback`)", "the published step at D(ẑ0)", lambda: feedback_published(bench, False), plain),
        (
            "feedback (`feedback`)",
            "with the published blend and stretch",
            lambda: feedback_published(bench, True),
            plain,
        ),
        ("particles (`particles`)", "the published kernel, log(n − 1)", lambda: particles_published(bench), plain),
    ]
    return [f"| {name} | {what} | {difference(case(), start)} |" for name, what, case, start in cases]


def page(bench: Bench) -> str:
    shares = ((index, *mode_moves(bench, index)) for index in (1, 12, 24))
    lines = [f"| {index + 1} | {100 * theirs:.2g} % | {100 * ours:.2g} % |" for index, theirs, ours in shares]
    return (
        HEAD
        + "\n".join(rows(bench))
        + MIDDLE
        + "\n".join(lines)
        + OF_DEPARTURES
        + "\n".join(map(departure, DEPARTURES))
        + END
    )


def departure(cells: tuple[str, str, str]) -> str:
    return f"| {' | '.join(cells)} |"


HEAD = """# Guidance methods against the published code

`python experiments/studies/fidelity.py` writes out, for one step, what the published code of each paper computes, and
compares it with the method here: step 31 of 50 of the embedded generator in float64, four images, random latents, a random
guide and random real images (seed 0), the same random numbers on both sides. The largest difference is in latents of
unit variance; the share is the difference divided by how far the published step moves the latents, both in Euclidean norm.
Rows whose share is not tiny are departures, which the table below and
[conf/guidance](../../conf/guidance/README.md#methods-of-other-papers) name.

| method | compared with | largest difference | share of the move |
|---|---|---|---|
"""
MIDDLE = """

The published code of MGD³ does not use the paper's ε̂. Its DDPM sampler adds λ σ_t (m − ẑ0) to the result of a step, where
σ_t is the step's own deviation (here the smaller of the two that DDPM knows; the published DiT learns one between them).
The embedded generator's schedule at 50 steps moves z_{t−1} by these shares of (m − ẑ0), so that the published λ = 0.1
corresponds to `guidance.rho` of about 0.5 here:

| step of 50 | published code, λ σ_t | here, the paper's ε̂ under DDIM |
|---|---|---|
"""
DEPARTURES = (
    (
        "`transform_official`",
        "energies averaged over the batch",
        "each image's own energy (the same for the published batch of one)",
    ),
    (
        "`transform`",
        "raw features of images in [−1, 1], resized bicubically; start from random ω and b",
        "unit features, with the encoder's own preparation; start from ω = b = 0",
    ),
    (
        "`gif`",
        "CLIP and class names; pixels clamped to [0, 1] before CLIP (left out of the table above); the class that CLIP "
        "predicts for the source; augmented sources, random words in prompts",
        "the guide or class means; pixels as they are decoded; the source's label; the data set's sources and prompts",
    ),
    (
        "`modes`",
        "λ σ_t (m − ẑ0) added to a DDPM step; as many modes as images; samples of posteriors",
        "the paper's ε̂ under any scheduler, at most up to m; a fixed number of modes; means of posteriors",
    ),
    (
        "`feedback`",
        "a blend of ẑ0 and z_t, decoded and stretched to [0, 1]; the gradient of a second, conditional prediction",
        "ẑ0, decoded as images are; the gradient of the prediction that the step uses",
    ),
    (
        "`particles`",
        "strength `coeff` times noise / signal; log(n − 1), which is 0 for two copies",
        "length ρ ‖z‖; log n",
    ),
)
OF_DEPARTURES = """

## Departures

| method | the published code computes | here |
|---|---|---|
"""
END = """

The blend and the stretch of `feedback` change the direction of a step completely under a random guide: their row's share is
above 100 %. How much they change under a trained guide was not measured.

## What could not be compared

- `chamfer`: no code of the paper was at hand. Its test computes the paper's distance with SciPy.
- `deviation`: the published sampler of IGD was not at hand, only its scripts, which give γ = 100, the guided steps 45 to 30
  of 50 and a memory of 64. Its test computes the gradient of γ cos(z, m) by automatic differentiation; whether the published
  sampler multiplies it by a factor of the step is not known.

Sources: DistDiff, github.com/haoweiz23/DistDiff; GIF, github.com/Vanint/DatasetExpansion; feedback guidance,
github.com/facebookresearch/Feedback-guided-Data-Synthesis; particle guidance, github.com/gcorso/particle-guidance; MGD³, as
described by others who use its sampler (its own repository could not be had).
"""


def main() -> None:
    RESULT.write_text(page(Bench()), encoding="utf-8")


if __name__ == "__main__":
    main()
