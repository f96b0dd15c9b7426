"""Time and memory of prototypes at scale: python experiments/studies/prototype_scale.py

Every case runs in a fresh process on synthetic features: each class has four loose clusters of unit vectors in float32.
The time is that of `fit_prototypes` alone. The peak is that of the whole process, including libraries and features.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CASES = [  # images, classes, seconds allowed, gigabytes allowed
    (100_000, 1_000, 60, 2.0),
    (50_000, 1, 120, 4.0),
]
DIMENSIONS = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "experiments" / "results" / "prototype_scale.md")
    parser.add_argument("--max-clustered", type=int, default=5_000)
    parser.add_argument("--linkage", default="average")
    parser.add_argument(
        "--case", nargs=3, metavar=("IMAGES", "CLASSES", "GROUPS"), help="one case in this process; prints JSON"
    )
    options = parser.parse_args()
    if options.case:
        images, classes, groups = options.case
        groups = groups if groups == "auto" else int(groups)
        print(json.dumps(measure(int(images), int(classes), groups, options.linkage, options.max_clustered)))
        return
    rows = []
    for images, classes, seconds, gigabytes in CASES:
        for groups in (3, "auto"):
            measured = in_fresh_process(images, classes, groups, options)
            fits = measured["seconds"] <= seconds and measured["peak"] <= gigabytes
            rows.append(
                f"| {images:,} | {classes:,} | {groups} | {measured['groups']:,} | {measured['seconds']:.1f} | {seconds} "
                f"| {measured['peak']:.2f} | {gigabytes:.0f} | {measured['before']:.2f} | {measured['features']:.2f} "
                f"| {'yes' if fits else 'NO'} |"
            )
            print(rows[-1], flush=True)
    options.output.write_text(page(rows, options), encoding="utf-8")


def in_fresh_process(images: int, classes: int, groups: int | str, options: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, __file__, "--case", str(images), str(classes), str(groups)]
    command += ["--max-clustered", str(options.max_clustered), "--linkage", options.linkage]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)


def measure(images: int, classes: int, groups: int | str, linkage: str, max_clustered: int) -> dict[str, float]:
    import numpy as np
    import torch
    from torch.nn import functional as F

    from distdiff.prototypes.hierarchical import fit_prototypes

    generator = torch.Generator().manual_seed(0)
    labels = np.random.default_rng(0).permutation(np.arange(images) % classes)
    centres = torch.randn(classes, 4, DIMENSIONS, generator=generator)
    features = torch.randn(images, DIMENSIONS, generator=generator)
    for start in range(0, images, 10_000):  # in place and in parts, so that the test data do not set the peak
        part = slice(start, start + 10_000)
        picked = torch.randint(4, (len(features[part]),), generator=generator)
        features[part] += centres[torch.from_numpy(labels[part]), picked]
        F.normalize(features[part], dim=1, out=features[part])
    before = peak_gigabytes()
    started = time.perf_counter()
    fitted = fit_prototypes(features, labels, classes, groups, linkage, max_clustered=max_clustered)
    return {
        "seconds": time.perf_counter() - started,
        "peak": peak_gigabytes(),
        "before": before,
        "features": features.numel() * features.element_size() / 1e9,
        "groups": int(fitted.present.sum()),
    }


def peak_gigabytes() -> float:
    """The largest resident size so far, in units of 10^9 bytes (`ru_maxrss` is in KiB on Linux)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def page(rows: list[str], options: argparse.Namespace) -> str:
    import scipy
    import sklearn
    import torch

    threads = os.environ.get("OMP_NUM_THREADS", "unset")
    versions = f"torch {torch.__version__}, scikit-learn {sklearn.__version__}, SciPy {scipy.__version__}"
    return "\n".join(
        [
            "# Prototypes at scale",
            "",
            f"Output of `OMP_NUM_THREADS={threads} python {' '.join([str(Path(__file__).relative_to(ROOT)), *sys.argv[1:]])}` on "
            f"{os.cpu_count()} cores ({processor()}), Python {platform.python_version()}, {versions}.",
            "",
            f"The features are synthetic unit vectors of {DIMENSIONS} dimensions in float32, and each class has four loose "
            f"clusters. The linkage is `{options.linkage}`.",
            "`seconds` is the time of `fit_prototypes` alone. `peak GB` is the peak resident memory of the whole process (10^9 "
            "bytes), `before` is the peak before",
            "`fit_prototypes` began (libraries and features), and `features` is the size of the features alone. Each column "
            "`allowed` holds the limit for the column to its left,",
            "and `within` says whether both limits were kept. Of the class of 50,000 images, only "
            f"{options.max_clustered:,} images are clustered; they are drawn at random with a fixed seed.",
            "Each of the other images joins the group nearest to it. `groups` is the number of groups of all classes together.",
            "",
            "| images | classes | `num_groups` | groups | seconds | allowed | peak GB | allowed | before | features | within |",
            "|---|---|---|---|---|---|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


if __name__ == "__main__":
    main()
