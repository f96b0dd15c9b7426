"""The names of a study's rows that the code treats specially."""

ORIGINAL, UNGUIDED = "original", "none"
CHOSEN = "chosen"  # in `study.methods`: stands for the row that the `method`, `guidance` and `selection` keys choose
