"""Numbers that summarize how guidance changed the energy."""

from collections.abc import Sequence
from statistics import median
from typing import Any


def energy_table(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The medians of `energy_before` and `energy_after` over an expanded dataset's metadata rows.

    Without recorded energies, the result is empty.
    """
    return {
        f"{name}_median": median(row[name] for row in rows)
        for name in ("energy_before", "energy_after")
        if rows and rows[0].get(name) is not None
    }
