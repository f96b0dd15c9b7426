"""Datasets in class folders: Caltech-101 and Imagenette."""

from collections.abc import Sequence
from pathlib import Path

from distdiff.data.images import LabelledImages
from distdiff.data.reading.walk import subfolders
from distdiff.data.sources.files import from_class_folders
from distdiff.data.sources.named import PUBLISHED, LayoutError, NamedSet, Parts, find
from distdiff.data.splits.carving import TEST, TRAIN
from distdiff.data.splits.classes import keep_classes

IMAGENETTE = {
    "n01440764": "tench",
    "n02102040": "English springer",
    "n02979186": "cassette player",
    "n03000684": "chain saw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}
LEFT_OUT = ("background_google", "faces_easy")  # images without an object, and a second copy of the faces


class Caltech101(NamedSet):
    """Caltech-101 (Fei-Fei et al., 2004) has one folder per class and no official splits.

    The published split has the folders `train/` and `test/`.
    """

    def read(self, top: Path, name: str, split: str) -> Parts:
        if split == PUBLISHED:
            return read_splits(name, {TRAIN: find(top, "train"), TEST: find(top, "test")})
        nested = ("101_ObjectCategories", "caltech-101/101_ObjectCategories", "caltech101/101_ObjectCategories")
        folder = top if (top / "accordion").is_dir() else find(top, *nested)
        return {TRAIN: from_class_folders(name, folder, subfolders(folder))}

    def reduce(self, part: str, images: LabelledImages) -> LabelledImages:
        """Leaves out the classes of the background and of the cut-out faces.

        The DistDiff paper does not count these two classes.
        """
        return keep_classes(images, [name for name in images.class_names if name.lower() not in LEFT_OUT])


class Imagenette(NamedSet):
    """Imagenette (fast.ai, 2019) has the folders `train/` and `val/`.

    Each of them has ten class folders, whose names are WordNet ids. `val/` is the test split.
    """

    published_layout = False

    def read(self, top: Path, name: str, split: str) -> Parts:
        sizes = ("imagenette2-320", "imagenette2", "imagenette2-160")
        train = find(top, "train", *(f"{size}/train" for size in sizes))
        return read_splits(name, {TRAIN: train, TEST: find(train.parent, "val")})

    def rename(self, class_name: str) -> str:
        return IMAGENETTE.get(class_name, class_name)


def read_splits(name: str, folders: dict[str, Path]) -> Parts:
    """Reads one folder per split, each with class folders. The class folders of the training split are the classes.

    Raises `LayoutError` if the training split has no class folders.
    """
    classes: Sequence[str] = subfolders(folders[TRAIN])
    if not classes:
        raise LayoutError(f"there are no class folders in {folders[TRAIN].name}")
    return {split: from_class_folders(name, folder, classes) for split, folder in folders.items()}
