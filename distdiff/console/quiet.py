"""What libraries say by themselves, kept off a command's console; in a notebook they say what its own settings allow."""

import logging
import os
import sys
import warnings


def quiet_environment() -> None:
    """Keeps other libraries' notices off the console: a user can act on none of them. Called before they are imported."""
    # Idle OpenMP threads must sleep, or processes that share cores spin against each other a hundredfold slower; but not at
    # once: a short spin makes small models 1.5 times faster (experiments/results/threads.md).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("DATASETS_VERBOSITY", "error")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("WANDB_SILENT", "true")
    warnings.filterwarnings("ignore")


def quiet_libraries() -> None:
    """Silences the libraries that are imported by now; a command calls it once its imports are done, and nothing else does.

    What an environment variable decides at their import is set before (`quiet_environment`).
    """
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):  # their import sets these levels
        logging.getLogger(name).setLevel(logging.ERROR)
    if "diffusers" in sys.modules:
        from diffusers.utils.logging import disable_progress_bar

        disable_progress_bar()
    if "transformers" in sys.modules:
        from transformers.utils.logging import disable_progress_bar, set_verbosity_error

        disable_progress_bar()
        set_verbosity_error()  # of heads that are not used it reports at length; what misses is refused in `encoders`
    # Of half our own limit of pixels, and of tags that no pixel depends on; set once, as filters are not a thread's own.
    warnings.filterwarnings("ignore", module=r"PIL\.")
