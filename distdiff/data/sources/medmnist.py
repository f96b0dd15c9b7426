"""MedMNIST (Yang et al., 2023) has one .npz file per dataset.

The published split has folders of exported images instead.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from distdiff.data.images import LabelledImages
from distdiff.data.sources.class_folders import read_splits
from distdiff.data.sources.named import (
    PUBLISHED,
    LayoutError,
    NamedSet,
    Parts,
    find,
    refuse_placeholder,
)
from distdiff.data.splits.carving import TEST, TRAIN, VALIDATION
from distdiff.errors import UserError, first_line


class MedMnist(NamedSet):
    """One dataset of MedMNIST, read from `<file>.npz` or from a file with larger images, such as `<file>_224.npz`."""

    file: str
    classes: tuple[str, ...]

    def read(self, top: Path, name: str, split: str) -> Parts:
        if split == PUBLISHED:
            return read_splits(name, {TRAIN: find(top, "train"), TEST: find(top, "test")})
        file = top if top.is_file() else find(top, *(f"{self.file}{size}.npz" for size in ("", "_224", "_128", "_64")))
        refuse_placeholder(file)
        try:
            with np.load(file, allow_pickle=False) as arrays:
                return {
                    part: _labelled(name, self.classes, arrays[f"{key}_images"], arrays[f"{key}_labels"])
                    for part, key in ((TRAIN, "train"), (VALIDATION, "val"), (TEST, "test"))
                }
        except KeyError as error:
            raise LayoutError(f"{file.name} is no MedMNIST file: {error.args[0]}") from None
        except UserError:
            raise
        except Exception as error:  # a damaged file can make numpy raise many types of errors
            raise LayoutError(f"{file.name} cannot be read ({first_line(error)})") from None


class PathMnist(MedMnist):
    """Images of colorectal cancer tissue."""

    file = "pathmnist"
    classes = (
        "adipose",
        "background",
        "debris",
        "lymphocytes",
        "mucus",
        "smooth muscle",
        "normal colon mucosa",
        "cancer-associated stroma",
        "colorectal adenocarcinoma epithelium",
    )


class BreastMnist(MedMnist):
    """Ultrasound images of breasts."""

    file = "breastmnist"
    classes = ("malignant", "normal, benign")


class BloodMnist(MedMnist):
    """Images of blood cells."""

    file = "bloodmnist"
    classes = (
        "basophil",
        "eosinophil",
        "erythroblast",
        "immature granulocytes",
        "lymphocyte",
        "monocyte",
        "neutrophil",
        "platelet",
    )


def _labelled(name: str, class_names: Sequence[str], pixels: np.ndarray, labels: np.ndarray) -> LabelledImages:
    """Labelled images from pixels (n, H, W) or (n, H, W, 3) uint8 and labels (n, 1) or (n,)."""
    labels = labels.reshape(len(labels), -1)[:, 0].astype(np.int64)
    if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4) or len(pixels) != len(labels):
        raise LayoutError(f"its images are {pixels.shape} of {pixels.dtype} with {len(labels)} labels")
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(class_names):
        raise LayoutError(f"its labels go up to {labels.max()}, beyond the {len(class_names)} classes of {name}")

    def read(index: int) -> Image.Image:
        return Image.fromarray(pixels[index]).convert("RGB")

    return LabelledImages(
        name=name,
        class_names=tuple(class_names),
        labels=labels,
        keys=tuple(f"{index:06d}" for index in range(len(labels))),
        read=read,
        indices=np.arange(len(labels)),
    )
