"""The sections of a W&B run: what is charted, in which section and over which axis, and what is only kept.

W&B makes a section of all keys that begin with the same word, so the words are the sections' titles. A key that is hidden
has no chart until a user asks for one. Curves of single rows and seeds of a study are hidden: there may be hundreds.
"""

from collections.abc import Mapping
from typing import Any

from wandb.sdk.wandb_run import Run

RESULT, EXPANSION, TRAINING, SYSTEM = SECTIONS = ("Result", "Expansion", "Training", "System")
IMAGES, STEP = f"{EXPANSION}/images", f"{TRAINING}/step"  # the axes: what a section counts over the whole run
ROWS, ROW_STEP = "rows", "trainer/global_step"  # what begins a hidden key, and the axis of hidden curves
AXES = {EXPANSION: IMAGES, TRAINING: STEP, SYSTEM: IMAGES}
EPOCH = "epoch"  # Lightning logs it beside each metric
HIDDEN = (IMAGES, STEP, ROW_STEP, f"{TRAINING}/{EPOCH}")
HIDDEN_OF_ROWS = (f"{TRAINING}/val_loss",)  # hidden in a study
STAGES = {"expand": EXPANSION, "train": TRAINING, "autoencoder": TRAINING, "denoiser": TRAINING}
SEVERAL = ("autoencoder", "denoiser")  # stages of one run whose charts are kept apart
OF_SYSTEM = ("memory_gb",)


def define_sections(run: Run) -> None:
    """Tells W&B the axis of each section, and which keys are hidden."""
    for name in HIDDEN:
        run.define_metric(name, hidden=True)
    for section, axis in AXES.items():
        run.define_metric(f"{section}/*", step_metric=axis)
    run.define_metric(f"{ROWS}/*", step_metric=ROW_STEP, hidden=True, summary="none")


def define_chart(run: Run, key: str, section: str) -> None:
    """Tells W&B that a key is charted for several rows and seeds, so that its last value is no result of the run."""
    run.define_metric(key, step_metric=AXES[section], hidden=key in (*HIDDEN, *HIDDEN_OF_ROWS), summary="none")


def section_of(place: str) -> str:
    """The section of a stage, such as `expand` or `train/none/seed0`.

    >>> section_of("train/none/seed0"), section_of("denoiser")
    ('Training', 'Training')
    """
    return STAGES.get(place.partition("/")[0], RESULT)


def charted(place: str, name: str) -> str:
    """The key under which the metric `name` of the stage `place` is charted.

    >>> charted("expand/none/seed0", "energy_after"), charted("expand", "memory_gb"), charted("denoiser", "denoiser/loss")
    ('Expansion/energy_after', 'System/memory_gb', 'Training/denoiser_loss')
    >>> charted("denoiser", "epoch"), charted("autoencoder", "epoch")  # one hidden key
    ('Training/epoch', 'Training/epoch')
    """
    stage = place.partition("/")[0]
    if name in OF_SYSTEM:
        return f"{SYSTEM}/{name}"
    short = name.removeprefix(f"{stage}/")
    apart = stage in SEVERAL and short != EPOCH
    return f"{section_of(place)}/{f'{stage}_{short}' if apart else short}"


def kept(place: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` under hidden keys, those of the stage or row `place`.

    >>> kept("train/none/seed0", {"loss": 1.5})
    {'rows/train/none/seed0/loss': 1.5}
    """
    return {f"{ROWS}/{place}/{name}": value for name, value in values.items()}
