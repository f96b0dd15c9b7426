"""Measures how the final energy of guided images depends on ρ, for every guidance on the embedded generator.

    python experiments/studies/energy_against_rho.py

Each method makes the same 100 images (20 real digits, 5 copies each, seed 0) at each ρ. A row gives the median of
E(final image) and how many of the 100 images have less energy than the same image made without guidance. The script
writes energy_against_rho.json, .md and .png to experiments/results. It takes about 10 minutes on two cores.
"""

import json
import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from distdiff.caching.stages import StageCache
from distdiff.classification.training import few_shot_training_set
from distdiff.commands.configuration import configure, load_option
from distdiff.console.quiet import quiet_environment
from distdiff.data.datasets import load_dataset
from distdiff.expansion.assembly import Assembly
from distdiff.expansion.plan import ExpansionPlan

RESULTS = Path(__file__).resolve().parents[1] / "results"
NAME = "energy_against_rho"
COPIES = 5
RHOS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
# curve -> (method, the key that is varied, other keys that are set)
CURVES: dict[str, tuple[str, str, dict[str, object]]] = {
    "direct": ("direct", "rho", {}),
    "freedom": ("freedom", "rho", {}),
    "mpgd": ("mpgd", "rho", {}),
    "tfg (rho = mu)": ("tfg", "rho", {}),
    "transform, identity": ("transform", "rho", {"init": "identity"}),
    "transform, random": ("transform", "rho", {"init": "random"}),
    "transform_official": ("transform_official", "rho", {}),
}


def main() -> None:
    quiet_environment()
    with tempfile.TemporaryDirectory() as folder:
        overrides = [f"paths.output_dir={folder}", "logger=none"]
        rows = measure(overrides)
    (RESULTS / f"{NAME}.json").write_text(json.dumps(rows, indent=1) + "\n")
    (RESULTS / f"{NAME}.md").write_text(table(rows))
    draw(rows)


def measure(overrides: list[str]) -> list[dict[str, object]]:
    """One row for each method and ρ."""
    unguided = final_energies([*overrides, "guidance=none"])
    rows = [row("none", None, unguided, unguided, None)]
    for curve, (method, key, options) in CURVES.items():
        default = float(load_option("guidance", method)[key])
        for rho in sorted({*RHOS, default}):
            keys = options | {key: rho} | ({"mu": rho} if method == "tfg" else {})
            given = [f"guidance={method}", *(f"guidance.{name}={value}" for name, value in keys.items())]
            started = time.perf_counter()
            energies = final_energies([*overrides, *given])
            rows.append(row(curve, rho, energies, unguided, rho == default))
            print(f"{curve:22} rho {rho:5g}  median {rows[-1]['median']:.4f}  {time.perf_counter() - started:.1f} s")
    return rows


def final_energies(overrides: list[str]) -> np.ndarray:
    """The energy E of each final image, (100,)."""
    config = configure("expand", overrides)
    data = few_shot_training_set(config, load_dataset(config.dataset).train, config.seed)
    job = Assembly(config, StageCache(config.paths.cache_dir)).job(data, config.seed)
    synthesizer = job.synthesizer(f"{config.guidance.name}: expand")
    items = ExpansionPlan(data.parts[0], COPIES, config.expansion.strength, config.seed)
    return np.array(synthesizer(items).columns["energy_after"])


def row(
    curve: str, rho: float | None, energies: np.ndarray, unguided: np.ndarray, default: bool | None
) -> dict[str, object]:
    low, median, high = np.quantile(energies, [0.25, 0.5, 0.75]).round(4)
    lower = int((energies < unguided).sum())
    return {"method": curve, "rho": rho, "default": default} | {
        "median": median,
        "lower_quartile": low,
        "upper_quartile": high,
        "images_below_unguided": lower if curve != "none" else None,
        "images": len(energies),
    }


def table(rows: list[dict[str, object]]) -> str:
    lines = [
        "# Final energy against ρ",
        "",
        "For each method and ρ, `python experiments/studies/energy_against_rho.py` makes 100 images (20 real digits of seed 0,",
        "5 copies each) with the embedded generator at the default strength. The table gives the median and the quartiles of",
        "the energy E of the final images. The last column counts the images that have less energy than the same image made",
        "without guidance. Guidance lowers energy, but lower energy need not mean higher accuracy (see",
        "[default_guidance.md](default_guidance.md)). Each method's default ρ is marked *.",
        "",
        f"![curves]({NAME}.png)",
        "",
        "| method | ρ | median energy | quartiles | below unguided |",
        "|---|---|---|---|---|",
    ]
    for entry in rows:
        rho = "" if entry["rho"] is None else f"{entry['rho']:g}{'*' if entry['default'] else ''}"
        below = (
            "" if entry["images_below_unguided"] is None else f"{entry['images_below_unguided']} of {entry['images']}"
        )
        quartiles = f"{entry['lower_quartile']:.3f} to {entry['upper_quartile']:.3f}"
        lines.append(f"| {entry['method']} | {rho} | {entry['median']:.3f} | {quartiles} | {below} |")
    return "\n".join(lines) + "\n"


def draw(rows: list[dict[str, object]]) -> None:
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    axes.axhline(rows[0]["median"], color="black", linestyle="--", label="none")
    for curve in CURVES:
        points = [entry for entry in rows if entry["method"] == curve]
        axes.plot([p["rho"] for p in points], [p["median"] for p in points], marker="o", label=curve)
    axes.set(xscale="log", xlabel="ρ", ylabel="median energy of 100 final images")
    axes.legend(fontsize=8)
    figure.savefig(RESULTS / f"{NAME}.png", dpi=110)


if __name__ == "__main__":
    main()
