"""Rows of a study that have a meaning of their own."""

ORIGINAL, UNGUIDED = "original", "none"
CHOSEN = "chosen"  # in `study.methods`: the row that the `method`, `guidance` and `selection` keys choose
