"""The names that `study.methods` may hold."""

from collections.abc import Sequence

from distdiff.config.composition import options
from distdiff.errors import UserError

ORIGINAL, UNGUIDED = "original", "none"
POLICIES_THAT_ADD_NOTHING = ("none", "default")


def check_methods(methods: Sequence[str]) -> None:
    """Refuses a name that is neither `original`, a guidance method nor an augmentation policy."""
    policies = [name for name in options("augmentation") if name not in POLICIES_THAT_ADD_NOTHING]
    known = [ORIGINAL, *options("guidance"), *policies]
    for method in methods:
        if method not in known:
            raise UserError(f"study.methods={method} is not allowed: one of {', '.join(known)}")
    if not methods:
        raise UserError(f"study.methods=[] is not allowed: one or more of {', '.join(known)}")
