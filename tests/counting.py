"""How much work something is, counted: as exact on a busy machine as on an idle one, where seconds are not."""

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


def steps_of(run: Callable[[], object]) -> int:
    """How many instructions Python executes, on this thread, while `run()` lasts; those within a call of C do not count."""
    steps = 0

    def trace(frame: FrameType, event: str, _: object) -> Callable[..., object]:
        nonlocal steps
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        steps += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        run()
    finally:
        sys.settrace(before)
    return steps
