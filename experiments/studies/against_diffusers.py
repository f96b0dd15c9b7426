"""Compares unguided expansion with a bare loop over diffusers' StableDiffusionImg2ImgPipeline.

    python experiments/studies/against_diffusers.py --repeats 5 --images 200

Both make the same number of images from the same sources with the embedded generator, at the same strength, steps, scale and
scheduler, and write PNG files. The loop gets the best of several batch sizes, which are tried first. Expansion also encodes
the sources only once, measures energies and writes metadata. The two take turns. Nothing else may run on the machine.
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import torch
from diffusers import DDIMScheduler, StableDiffusionImg2ImgPipeline

from distdiff.benchmark.measuring import Contender, RowSpeed, measure
from distdiff.benchmark.page import print_speeds
from distdiff.benchmark.results import BenchmarkResults
from distdiff.caching.stages import StageCache
from distdiff.classification.training import few_shot_training_set
from distdiff.commands.configuration import configure
from distdiff.console.quiet import quiet_libraries
from distdiff.data.datasets import load_dataset
from distdiff.data.pixels import to_image
from distdiff.expansion.assembly import Assembly
from distdiff.expansion.plan import ExpansionPlan

BATCH_SIZES = (1, 10, 25, 50, 100)
ASSET = Path(__file__).resolve().parents[2] / "distdiff/assets/tiny_digits"


class BareLoop:
    """diffusers' own pipeline in a loop over batches, with the calls that its documentation shows."""

    def __init__(self, config, data, images: int, place: Path) -> None:
        self.config, self.place = config, place
        self.pipeline = StableDiffusionImg2ImgPipeline.from_pretrained(ASSET, safety_checker=None)
        self.pipeline.scheduler = DDIMScheduler.from_config(self.pipeline.scheduler.config, clip_sample=False)
        self.pipeline.set_progress_bar_config(disable=True)
        train = data.parts[0]
        factor = -(-images // len(train))
        items = list(ExpansionPlan(train, factor, config.expansion.strength, config.seed))[:images]
        self.prompts = [config.dataset.prompt_template.format(item.class_name) for item in items]
        self.sources = [to_image(train.tensor(item.position, config.generator.resolution, data.fit)) for item in items]
        self.speed = RowSpeed("diffusers' loop", [], 1, images)

    def choose_batch_size(self) -> None:
        """Takes the fastest of `BATCH_SIZES`."""
        seconds = {size: self._make(size) for size in BATCH_SIZES if size <= self.speed.images}
        self.speed.batch_size = min(seconds, key=seconds.get)

    def warm_up(self) -> None:
        self.choose_batch_size()

    def time(self) -> None:
        self.speed.rates.append(self.speed.images / self._make(self.speed.batch_size))

    def divide(self) -> None:
        """Its parts are not measured."""

    def _make(self, size: int) -> float:
        self.place.mkdir()
        keys = self.config.generator
        started = time.perf_counter()
        with torch.no_grad():
            for start in range(0, len(self.prompts), size):
                made = self.pipeline(
                    prompt=self.prompts[start : start + size],
                    image=self.sources[start : start + size],
                    strength=self.config.expansion.strength,
                    num_inference_steps=keys.num_steps,
                    guidance_scale=keys.cfg_scale,
                    generator=torch.Generator().manual_seed(start),
                ).images
                for number, image in enumerate(made, start):
                    image.save(self.place / f"{number}.png")
        seconds = time.perf_counter() - started
        shutil.rmtree(self.place)
        return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--images", type=int, default=200)
    options = parser.parse_args()
    quiet_libraries()
    with tempfile.TemporaryDirectory(prefix="distdiff-against-diffusers-") as folder:
        place = Path(folder)
        config = configure("expand", ["guidance=none", f"paths.output_dir={place}/outputs", "logger=none"])
        data = few_shot_training_set(config, load_dataset(config.dataset).train, config.seed)
        loop = BareLoop(config, data, options.images, place / "loop")
        job = Assembly(config, StageCache(config.paths.cache_dir)).job(data, config.seed)
        ours = Contender("guidance=none", [], config, job, options.images, place / "ours")
        measure([loop, ours], options.repeats, parts=False, say=print)
        print_speeds(BenchmarkResults([loop.speed, ours.speed], loop.speed.name, "cpu", config.generator.resolution))


if __name__ == "__main__":
    main()
