"""How long each metric takes, alone and with its interval: python experiments/studies/measure_speed.py

Random features of 10,000 real and 10,000 generated images in ten classes, on two threads. Each metric starts from
features of which nothing is known yet, as if it were the only one of `measure.metrics`. In use, metrics share the
distances to neighbours, so that all of them together take less than the sum.
"""

import argparse
import time

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from distdiff.commands.configuration import load_option
from distdiff.keys import build
from distdiff.metrics.base import Features
from distdiff.metrics.comparing import compare
from distdiff.option_files.search_path import OURS


def features(images: int, dimensions: int, seed: int) -> Features:
    rng = np.random.default_rng(seed)
    labels = torch.as_tensor(np.arange(images) % 10)
    points = rng.normal(size=(images, dimensions)) @ rng.normal(size=(dimensions, dimensions)) / dimensions**0.5
    return Features(torch.as_tensor(points.clip(min=0), dtype=torch.float32), labels, labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("metrics", nargs="*", default=OURS.options("metric"))
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--dimensions", type=int, default=512)
    parser.add_argument("--bootstrap", type=int, default=200)
    options = parser.parse_args()
    torch.set_num_threads(2)
    print("| metric | seconds | with its interval | value |\n|---|---:|---:|---|")
    with threadpool_limits(2):
        for name in options.metrics:
            seconds, found = [], None
            for bootstrap in (0, options.bootstrap):
                real, generated = (features(options.images, options.dimensions, seed) for seed in (0, 1))
                metric, began = build(load_option("metric", name)), time.perf_counter()
                found = compare({name: metric}, real, generated, bootstrap=bootstrap)
                seconds.append(time.perf_counter() - began)
            low, high = found.intervals.get(name, (float("nan"),) * 2)
            value = f"{found.values[name]:.4g} ({low:.4g} to {high:.4g})"
            print(f"| {name} | {seconds[0]:.1f} | {seconds[1]:.1f} | {value} |", flush=True)


if __name__ == "__main__":
    main()
