"""How often the 95% intervals of metrics hold the mean over many sets: python experiments/studies/interval_calibration.py

150 sets of 120 generated points from one distribution are compared with the same 400 real points, in 8 dimensions and
four classes. A calibrated interval of a set holds the mean of all sets 95% of the time.
"""

import numpy as np
import torch

from distdiff.commands.configuration import load_option
from distdiff.keys import build
from distdiff.metrics.base import Features
from distdiff.metrics.comparing import compare
from distdiff.option_files.search_path import OURS

SETS, REAL, GENERATED, RESAMPLES = 150, 400, 120, 200


def points(rng: np.random.Generator, number: int, shift: float, scale: float) -> Features:
    labels = np.arange(number) % 4
    features = rng.normal(size=(number, 8)) * scale + shift + labels[:, None]
    predicted = np.where(rng.random(number) < 0.8, labels, (labels + 1) % 4)
    return Features(*map(torch.as_tensor, (features, labels, predicted)))


def main() -> None:
    metrics, rng = (
        {name: build(load_option("metric", name)) for name in OURS.options("metric")},
        np.random.default_rng(0),
    )
    real = points(rng, REAL, 0.0, 1.0)
    found = [compare(metrics, real, points(rng, GENERATED, 0.3, 0.8), bootstrap=RESAMPLES) for _ in range(SETS)]
    print(
        "| metric | mean | half width of intervals | 1.96 standard deviations | hold the mean |\n|---|---:|---:|---:|---:|"
    )
    for name in metrics:
        values = np.array([each.values[name] for each in found])
        low, high = np.array([each.intervals[name] for each in found]).T
        held = ((low <= values.mean()) & (values.mean() <= high)).mean()
        half = (high - low).mean() / 2
        print(f"| {name} | {values.mean():.3f} | {half:.3f} | {1.96 * values.std():.3f} | {held:.0%} |")


if __name__ == "__main__":
    main()
