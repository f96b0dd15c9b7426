"""Rows of a study that have a meaning of their own."""

ORIGINAL, UNGUIDED = "original", "none"
POLICIES_THAT_ADD_NOTHING = ("none", "default")  # augmentation policies that are no row
