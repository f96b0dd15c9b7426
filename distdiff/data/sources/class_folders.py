"""Sets that are class folders: Caltech-101 and Imagenette."""

from collections.abc import Sequence
from pathlib import Path

from distdiff.data.images import LabelledImages
from distdiff.data.reading.walk import subfolders
from distdiff.data.sources.files import from_class_folders
from distdiff.data.sources.named import PUBLISHED, LayoutError, Parts, find, named_set
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
LEFT_OUT = ("background_google", "faces_easy")  # no object, and the faces once more


def without_clutter(_: str, images: LabelledImages) -> LabelledImages:
    """Caltech-101 as the paper counts it: without the background and the cut-out faces."""
    return keep_classes(images, [name for name in images.class_names if name.lower() not in LEFT_OUT])


@named_set(reduce=without_clutter)
def caltech101(top: Path, name: str, split: str) -> Parts:
    """Fei-Fei et al., 2004: one folder a class, no split of the authors'; published: `train/` and `test/` folders."""
    if split == PUBLISHED:
        return read_splits(name, {TRAIN: find(top, "train"), TEST: find(top, "test")})
    nested = ("101_ObjectCategories", "caltech-101/101_ObjectCategories", "caltech101/101_ObjectCategories")
    folder = top if (top / "accordion").is_dir() else find(top, *nested)
    return {TRAIN: from_class_folders(name, folder, subfolders(folder))}


@named_set(rename=lambda wnid: IMAGENETTE.get(wnid, wnid), published_layout=False)
def imagenette(top: Path, name: str, split: str) -> Parts:
    """fast.ai, 2019: `train/` and `val/` folders of ten WordNet ids, tested on `val`."""
    sizes = ("imagenette2-320", "imagenette2", "imagenette2-160")
    train = find(top, "train", *(f"{size}/train" for size in sizes))
    return read_splits(name, {TRAIN: train, TEST: find(train.parent, "val")})


def read_splits(name: str, folders: dict[str, Path]) -> Parts:
    """Split folders of class folders; the classes are those of the training images."""
    classes: Sequence[str] = subfolders(folders[TRAIN])
    if not classes:
        raise LayoutError(f"there are no class folders in {folders[TRAIN].name}")
    return {split: from_class_folders(name, folder, classes) for split, folder in folders.items()}
