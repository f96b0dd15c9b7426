"""Keeps other libraries' notices off a command's console, and keeps a console from ending a command.

In a notebook, the notebook's own settings decide.
"""

import io
import logging
import os
import sys
import warnings
from collections.abc import Mapping

QUIET: Mapping[str, str] = {  # environment variables, where the user has not set them
    # Idle OpenMP threads must sleep: processes that share cores are a hundred times slower if their threads spin. But a
    # short spin before sleeping makes small models 1.5 times faster (experiments/results/threads.md).
    "OMP_WAIT_POLICY": "PASSIVE",
    "GOMP_SPINCOUNT": "2000",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
    "HF_HUB_VERBOSITY": "error",
    "DATASETS_VERBOSITY": "error",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "WANDB_SILENT": "true",
}


def quiet_environment() -> None:
    """Keeps other libraries' notices, on which a user cannot act, off the console.

    Call this function before importing those libraries. Every process of a command calls it first, so it also lets the
    process print characters that its console lacks.
    """
    escape_what_a_console_lacks()
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    warnings.filterwarnings("ignore")


def escape_what_a_console_lacks() -> None:
    """Lets a console without a character, such as one of Latin-1, show the character's escape, such as \\u4e2d.

    Otherwise, the name of a class could end a finished study in a traceback.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def quiet_libraries() -> None:
    """Silences the libraries imported so far. Only commands call this function, after their imports.

    `quiet_environment` sets the environment variables that these libraries read when they are imported.
    """
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):  # importing Lightning sets these levels
        logging.getLogger(name).setLevel(logging.ERROR)
    # W&B reports on itself with OpenTelemetry, which repeats for each report that a W&B server cannot be reached.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    if "diffusers" in sys.modules:
        from diffusers.utils.logging import disable_progress_bar

        disable_progress_bar()
    if "transformers" in sys.modules:
        from transformers.utils.logging import disable_progress_bar, set_verbosity_error

        disable_progress_bar()
        set_verbosity_error()  # transformers would list unused heads at length; our `encoders` refuses missing weights
    # Pillow warns about images above half our own pixel limit, and about tags that do not change pixels. The filter is
    # set only once, because all threads share it.
    warnings.filterwarnings("ignore", module=r"PIL\.")
