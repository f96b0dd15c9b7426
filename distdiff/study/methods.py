"""The names of a study's rows that the code treats specially."""

ORIGINAL, UNGUIDED = "original", "none"
CHOSEN = "chosen"  # in `study.methods`: stands for the row that the `method`, `guidance` and `selection` keys choose
BEST = "_best"  # ends the name of a row that trains on another row's images with the settings that are best for them
# The rows without generated images with which expansion may be compared. Of several, the one with the highest
# validation accuracy is taken.
BASELINES = (ORIGINAL, f"{ORIGINAL}{BEST}", f"randaugment{BEST}")
