"""The usual names of splits, which differ between image folders and tables."""

from distdiff.data.splits.carving import TEST, TRAIN, VALIDATION

FOLDER_NAMES = {TRAIN: ("train", "training"), VALIDATION: ("validation", "valid", "val"), TEST: ("test", "testing")}
TABLE_NAMES = {VALIDATION: ("validation", "valid", "val", "dev"), TEST: ("test",), TRAIN: ("train",)}
