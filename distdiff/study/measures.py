"""What a study measures of every row besides the metrics of `measure.metrics`. This module imports nothing heavy."""

from collections.abc import Mapping

ACCURACY = "accuracy"
# What is measured for every expansion, mapped to whether higher values are better. None means that neither higher nor
# lower values are better.
OF_EVERY_EXPANSION: Mapping[str, bool | None] = {
    "energy_before": None,
    "energy_after": None,
    "images_per_second": True,
}
# The same of what the test of a classifier finds besides the accuracy.
SCORES: Mapping[str, bool | None] = {"macro_f1": True, "worst_class": True, "calibration_error": False}
DIRECTIONS: Mapping[str, bool | None] = {ACCURACY: True, **SCORES, **OF_EVERY_EXPANSION}
BETTER = "higher_is_better"  # the key of results.json that maps measures to the same
