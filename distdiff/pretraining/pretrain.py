"""Trains a small Stable Diffusion pipeline from scratch and saves it as a diffusers folder with a model card."""

import hashlib
import shlex
from collections.abc import Sequence
from copy import deepcopy
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning as L
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf
from torch.utils.data import DataLoader, TensorDataset

from distdiff.caching.fingerprint import plain
from distdiff.console.bar import with_progress
from distdiff.console.progress import StageProgress, console
from distdiff.data.datasets import prompts
from distdiff.data.images import LabelledImages
from distdiff.data.pixels import to_image
from distdiff.expansion.naming import run_name
from distdiff.grids import grid
from distdiff.pretraining.autoencoder import AutoencoderTraining
from distdiff.pretraining.config import PretrainKeys
from distdiff.pretraining.denoiser import DenoiserTraining
from distdiff.pretraining.images import image_size, pretraining_images
from distdiff.pretraining.networks import build_autoencoder, build_scheduler, build_text_encoder, build_unet
from distdiff.pretraining.progress import Progress
from distdiff.pretraining.randomness import OTHER, RandomBatches, SeedSteps
from distdiff.pretraining.tokenizer import build_tokenizer
from distdiff.ranks.stopping import StopBetweenBatches, stopping_at_once
from distdiff.ranks.trainer import build_trainer
from distdiff.seeds import seed_of
from distdiff.tracking.lineage import MODEL, Stored, log_made
from distdiff.tracking.loggers import log_image, stage_logger, tracked

REVISION = 1  # increase when a change here changes the trained weights, so that old checkpoints are not used
STAGES = AUTOENCODER, DENOISER = "autoencoder", "denoiser"
NO_INGREDIENTS = ("output_dir", "grid_every", "images")  # keys that do not change the weights, given the images
ENCODE_BATCH = 250
GRID_STEPS = 25


def pretrain(config: DictConfig, run_dir: Path) -> Path:
    """Trains both stages of a latent diffusion pipeline, and returns the pipeline's folder.

    A signal raises `Stopped`. The same configuration then goes on from the last training step.
    """
    with stopping_at_once():
        config = deepcopy(config)
        train, validation = pretraining_images(config)
        config.pretrain.image_size = image_size(config, train)
        class_prompts = prompts(config.dataset, train.class_names)
        progress = Progress(config.paths.cache_dir, _ingredients(config, train, validation, class_prompts))
        with progress.claimed(), tracked(config, run_dir, run_name(config)) as logger:
            return Pretraining(config, run_dir, progress, logger).run(train, validation, class_prompts)


def _ingredients(
    config: DictConfig, train: LabelledImages, validation: LabelledImages, class_prompts: list[str]
) -> dict[str, Any]:
    """Everything that can change the pipeline."""
    keys = plain(config.pretrain)
    return {
        "revision": REVISION,
        "keys": {name: value for name, value in keys.items() if name not in NO_INGREDIENTS},
        "data": [train.identity, validation.identity],
        "fit": config.dataset.fit,
        "prompts": class_prompts,
        "precision": config.trainer.precision,
        "seed": config.seed,
    }


class Pretraining:
    """Trains a pipeline stage by stage. Each stage draws random numbers of its own, however often it is stopped."""

    def __init__(self, config: DictConfig, run_dir: Path, progress: Progress, logger: Logger | None) -> None:
        self.config, self.run_dir, self.progress, self.logger = config, run_dir, progress, logger
        self.options: PretrainKeys = config.pretrain

    def run(self, train: LabelledImages, validation: LabelledImages, class_prompts: list[str]) -> Path:
        """Trains the pipeline on `train`, with one of `class_prompts` for each class, and saves it."""
        config, options, run_dir = self.config, self.options, self.run_dir
        tokenizer = build_tokenizer(class_prompts)
        found = {"train": train, "validation": validation}
        images = {name: part.tensors(options.image_size, config.dataset.fit) for name, part in found.items()}
        self._seed(AUTOENCODER)
        autoencoder = build_autoencoder(options)
        first = AutoencoderTraining(autoencoder, options.autoencoder_learning_rate, options.kl_weight)
        losses = self._fit(
            AUTOENCODER,
            first,
            options.autoencoder_steps,
            options.autoencoder_batch_size,
            TensorDataset(images["train"]),
            TensorDataset(images["validation"]),
        )
        autoencoder.eval().requires_grad_(False)
        latents = {name: _encode(autoencoder, pixels) for name, pixels in images.items()}
        scale = 1 / latents["train"][0].std().item()
        autoencoder.register_to_config(scaling_factor=scale)

        self._seed(DENOISER)
        unet, text_encoder = build_unet(options), build_text_encoder(options, tokenizer)
        tokens = [_tokens(tokenizer, texts) for texts in (class_prompts, [""])]
        second = DenoiserTraining(
            unet, text_encoder, build_scheduler(), *tokens, options.denoiser_learning_rate, options.prompt_dropout
        )
        pipeline = StableDiffusionPipeline(
            autoencoder,
            text_encoder,
            tokenizer,
            unet,
            second.scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipeline.set_progress_bar_config(disable=True)
        sampler = SampleGrids(pipeline, class_prompts, run_dir, options.grid_every, self.logger)
        losses |= self._fit(
            DENOISER,
            second,
            options.denoiser_steps,
            options.denoiser_batch_size,
            _latent_dataset(latents["train"], scale, train),
            _latent_dataset(latents["validation"], scale, validation),
            callbacks=[EMAWeightAveraging(decay=options.ema_decay), sampler],
        )
        target = Path(options.output_dir or run_dir / "pipeline")
        pipeline.save_pretrained(target, safe_serialization=True)
        sampler.draw(target / "samples.png")
        card = model_card(config, losses, target, images["train"].shape[0], overrides_of(run_dir))
        (target / "README.md").write_text(card, encoding="utf-8")
        console.print(f"pipeline  {target}")
        files = sorted(path for pattern in ("*.json", "*/*.json", "*/*.safetensors") for path in target.glob(pattern))
        log_made(self.logger, Stored(MODEL, f"{run_name(config)}-pipeline", target, tuple(files), losses))
        return target

    def _fit(
        self,
        stage: str,
        module: L.LightningModule,
        steps: int,
        batch_size: int,
        train: TensorDataset,
        validation: TensorDataset,
        callbacks: Sequence[L.Callback] = (),
    ) -> dict[str, float]:
        seed = (self.config.seed, STAGES.index(stage))
        trainer = build_trainer(
            self.config.trainer,
            max_steps=steps,
            logger=stage_logger(self.logger, stage),
            callbacks=[
                SeedSteps(seed),
                StageProgress(f"pretrain {stage}"),
                *callbacks,
                StopBetweenBatches(),
                self.progress.callback(stage),
            ],
            enable_checkpointing=True,
            limit_val_batches=0,
            gradient_clip_val=1.0,
            log_every_n_steps=20,
        )
        batches = RandomBatches(len(train), batch_size, steps, seed, lambda: trainer.global_step)
        loader = DataLoader(train, batch_sampler=batches)
        # The averaged weights of the last stage are known only at its end, so its end cannot be a checkpoint.
        self.progress.fit(stage, trainer, module, loader, keep=stage != STAGES[-1])
        self._seed(stage)
        evaluator = build_trainer(self.config.trainer, enable_progress_bar=False, callbacks=[StopBetweenBatches()])
        (measured,) = evaluator.validate(module, DataLoader(validation, ENCODE_BATCH), verbose=False)
        return measured

    def _seed(self, stage: str) -> None:
        torch.manual_seed(seed_of(self.config.seed, STAGES.index(stage), OTHER))


@torch.no_grad()
def _encode(autoencoder: AutoencoderKL, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    parts = with_progress(pixels.split(ENCODE_BATCH), "encode the images", "batches")
    posteriors = [autoencoder.encode(part * 2 - 1).latent_dist for part in parts]
    return torch.cat([p.mean for p in posteriors]), torch.cat([p.std for p in posteriors])


def _latent_dataset(latents: tuple[torch.Tensor, torch.Tensor], scale: float, images: LabelledImages) -> TensorDataset:
    mean, std = latents
    return TensorDataset(mean * scale, std * scale, torch.from_numpy(images.labels))


def _tokens(tokenizer: object, texts: list[str]) -> torch.Tensor:
    return tokenizer(
        texts, padding="max_length", truncation=True, max_length=tokenizer.model_max_length, return_tensors="pt"
    ).input_ids


class SampleGrids(L.Callback):
    """Draws grids of text-to-image samples during training, with one column per class (see `draw`)."""

    def __init__(
        self, pipeline: StableDiffusionPipeline, texts: list[str], run_dir: Path, every: int, logger: object
    ) -> None:
        self.pipeline, self.texts, self.run_dir, self.every, self.logger = pipeline, texts, run_dir, every, logger

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        if trainer.global_step % self.every == 0 and trainer.is_global_zero:
            path = self.draw(self.run_dir / f"samples-{trainer.global_step:06d}.png")
            log_image(self.logger, "samples", path)

    def draw(self, path: Path, rows: int = 5, columns: int = 10) -> Path:
        """Writes a grid with a column of `rows` samples for each of the first `columns` classes."""
        generator = torch.Generator().manual_seed(0)
        texts = self.texts[:columns] * rows
        # `eval()` is not called, since drawing samples must not change the mode of the networks during training.
        samples = self.pipeline(
            texts, num_inference_steps=GRID_STEPS, guidance_scale=2.0, generator=generator, output_type="pt"
        )
        grid([to_image(sample) for sample in samples.images], columns=min(columns, len(self.texts))).save(path)
        return path


def overrides_of(run_dir: Path) -> list[str]:
    """The command-line overrides that Hydra saved in `run_dir`."""
    noted = run_dir / ".hydra" / "overrides.yaml"
    return list(OmegaConf.load(noted)) if noted.is_file() else []


def model_card(
    config: DictConfig, losses: dict[str, float], folder: Path, num_images: int, overrides: Sequence[str]
) -> str:
    """A model card that lists the data, the command, the seed, the losses and the hash of every weight file."""
    options = config.pretrain
    weights = sorted(folder.rglob("*.safetensors"))
    hashes = "\n".join(
        f"| `{path.relative_to(folder)}` | {path.stat().st_size:,} | `{hashlib.sha256(path.read_bytes()).hexdigest()}` |"
        for path in weights
    )
    measured = "\n".join(f"| {name} | {value:.5f} |" for name, value in losses.items())
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "diffusers", "transformers", "lightning"))
    return f"""---
license: apache-2.0
library_name: diffusers
pipeline_tag: text-to-image
---
# A small latent diffusion pipeline, trained from scratch

- **Data**: {config.dataset.name}, {num_images:,} training images of {options.image_size}x{options.image_size}.
- **Prompts**: `{config.dataset.prompt_template}`, dropped with probability {options.prompt_dropout:g} (for CFG).
- **Command**, with seed {config.seed}:

```bash
{shlex.join(["python", "experiments/pretrain.py", *overrides])}
```

- **Autoencoder**: {options.autoencoder_steps:,} steps of {options.autoencoder_batch_size} images.
- **UNet and text encoder**: {options.denoiser_steps:,} steps of {options.denoiser_batch_size} latents, weights averaged \
with decay {options.ema_decay:g}.
- **Versions**: {versions}.

| loss on held-out images | value |
|---|---|
{measured}

| file | bytes | SHA-256 |
|---|---|---|
{hashes}

![samples](samples.png)

```python
from diffusers import StableDiffusionImg2ImgPipeline

pipeline = StableDiffusionImg2ImgPipeline.from_pretrained("{folder.name}")
```
"""
