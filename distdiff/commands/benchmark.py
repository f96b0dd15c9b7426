"""Measures how fast images are made, and where the time goes: distdiff benchmark benchmark.repeats=5."""

import json
import shlex
import shutil
import sys
from pathlib import Path

from omegaconf import DictConfig

from distdiff.benchmark.config import rows_of
from distdiff.benchmark.measuring import Contender, measure
from distdiff.benchmark.page import benchmark_figure, benchmark_page, print_speeds
from distdiff.benchmark.results import BenchmarkResults
from distdiff.caching.stages import StageCache
from distdiff.classification.training import few_shot_training_set
from distdiff.commands.enlarging import say_enlarged_images
from distdiff.config.command import OPTIONS, ROWS
from distdiff.console.progress import console
from distdiff.data.datasets import load_dataset
from distdiff.errors import Stopped
from distdiff.expansion.assembly import Assembly
from distdiff.expansion.generators import Generators
from distdiff.expansion.naming import row_name, run_columns, run_name
from distdiff.ranks.trainer import trainer_device
from distdiff.ranks.world import world
from distdiff.tracking.loggers import log_image, summarize, tracked


def benchmark(config: DictConfig, run_dir: Path) -> None:
    """Measures the rows of `benchmark.rows` and writes `benchmark.json`, `benchmark.md` and `benchmark.png` into `run_dir`.

    The images that are made for the measurement are removed again.
    """
    device = trainer_device(config.trainer)  # fails now if there is no such device
    data = few_shot_training_set(config, load_dataset(config.dataset).train, config.seed)
    say_enlarged_images(config, data.parts[0])
    overrides = rows_of(config) or {row_name(config): []}
    configs = config[OPTIONS].get(ROWS) or {row_name(config): config}
    cache, generators, contenders = StageCache(config.paths.cache_dir), Generators(), []
    keys = config.benchmark
    with tracked(config, run_dir, run_name(config), run_columns(config)) as logger:
        for name, row in configs.items():
            job = Assembly(row, cache, generators).job(data, config.seed, name)
            contenders.append(Contender(name, overrides[name], row, job, keys.images, run_dir / "images"))
        try:
            measure(contenders, keys.repeats, keys.parts, console.print)
        except (Stopped, KeyboardInterrupt) as stop:
            if world().leads:
                shutil.rmtree(run_dir / "images", ignore_errors=True)
            stop.onward = "no measurement is kept, and the same command begins anew"
            raise
        if not world().leads:
            return
        results = BenchmarkResults(
            [each.speed for each in contenders],
            keys.baseline or contenders[0].speed.name,
            str(device),
            config.generator.resolution,
        )
        (run_dir / "benchmark.json").write_text(json.dumps(results.as_dict(), indent=2) + "\n", encoding="utf-8")
        command = shlex.join(["distdiff", "benchmark", *sys.argv[1:]])
        (run_dir / "benchmark.md").write_text(benchmark_page(results, command), encoding="utf-8")
        benchmark_figure(results, run_dir / "benchmark.png")
        log_image(logger, "benchmark", run_dir / "benchmark.png")
        summarize(logger, results.summary())
        print_speeds(results)
        console.print(f"benchmark  {run_dir / 'benchmark.md'}")
