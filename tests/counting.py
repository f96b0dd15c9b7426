"""How much work something is, counted in calls: as exact on a busy machine as on an idle one, where seconds are not."""

import sys
from collections import Counter
from collections.abc import Callable
from types import FrameType


def calls_of(run: Callable[[], object]) -> Counter[str]:
    """The functions that are called, on this thread, while `run()` lasts, and how often.

    Those of Python by their qualified names (`Path.open`), those of C by their bare ones (`open`). What one call of C does
    is not seen.
    """
    calls: Counter[str] = Counter()

    def note(frame: FrameType, event: str, function: object) -> None:
        if event == "call":
            calls[frame.f_code.co_qualname] += 1
        elif event == "c_call":
            calls[function.__name__] += 1

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(before)
    return calls
