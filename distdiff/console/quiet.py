"""What libraries say by themselves, kept off a command's console; in a notebook they say what its own settings allow."""

import logging
import sys
import warnings


def quiet_libraries() -> None:
    """Silences the libraries that are imported by now; a command calls it once its imports are done, and nothing else does.

    What an environment variable decides at their import is set before (`launching.command.quiet`).
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
