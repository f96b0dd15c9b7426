"""Datasets with a text file for each split, one line per image: Describable Textures, Oxford Pets and FGVC Aircraft."""

from pathlib import Path

from distdiff.data.sources.named import AUTHORS, PUBLISHED, LayoutError, NamedSet, Parts, find, inside, lines, listed
from distdiff.data.splits.carving import TEST, TRAIN, VALIDATION


class Dtd(NamedSet):
    """Describable Textures (Cimpoi et al., 2014) with the first of its splits.

    The training images are listed in `labels/train1.txt` and `labels/val1.txt`, and the test images in
    `labels/test1.txt`.
    """

    joins_validation = (AUTHORS, PUBLISHED)
    published_layout = False

    def read(self, top: Path, name: str, split: str) -> Parts:
        labels, images = find(top, "labels", "dtd/labels"), find(top, "images", "dtd/images")
        files = {
            TRAIN: lines(find(labels, "train1.txt")) + lines(find(labels, "val1.txt")),
            TEST: lines(find(labels, "test1.txt")),
        }
        class_names = sorted({file.split("/")[0] for part in files.values() for file in part})
        number = {texture: label for label, texture in enumerate(class_names)}
        return {
            part: listed(name, class_names, [(inside(images, file), number[file.split("/")[0]]) for file in of])
            for part, of in files.items()
        }


class OxfordPets(NamedSet):
    """Oxford Pets (Parkhi et al., 2012), listed in `annotations/trainval.txt` and `annotations/test.txt`.

    Each line has an image and its class, species and breed.
    """

    published_layout = False

    def read(self, top: Path, name: str, split: str) -> Parts:
        annotations, images = find(top, "annotations"), find(top, "images", "images/images")
        rows = {
            part: [_pet(line) for line in lines(find(annotations, file))]
            for part, file in ((TRAIN, "trainval.txt"), (TEST, "test.txt"))
        }
        breeds = {number: image.rpartition("_")[0] for part in rows.values() for image, number in part}
        order = {number: label for label, number in enumerate(sorted(breeds))}
        class_names = [breeds[number] for number in order]
        return {
            part: listed(name, class_names, [(inside(images, f"{image}.jpg"), order[number]) for image, number in of])
            for part, of in rows.items()
        }

    def rename(self, class_name: str) -> str:
        return class_name.lower()


class FgvcAircraft(NamedSet):
    """FGVC Aircraft (Maji et al., 2013), with variants as classes.

    The published split does not train on the validation images.
    """

    joins_validation = (AUTHORS,)
    published_layout = False

    def read(self, top: Path, name: str, split: str) -> Parts:
        data = find(top, "images_variant_train.txt", "data/images_variant_train.txt", NESTED_AIRCRAFT).parent
        class_names = lines(find(data, "variants.txt"))
        number = {variant: label for label, variant in enumerate(class_names)}
        files = {
            part: [_aircraft(line, data / "images", number) for line in lines(find(data, f"images_variant_{file}.txt"))]
            for part, file in ((TRAIN, "train"), (VALIDATION, "val"), (TEST, "test"))
        }
        if split == AUTHORS:
            files[TRAIN] += files.pop(VALIDATION)
        return {part: listed(name, class_names, of) for part, of in files.items()}


NESTED_AIRCRAFT = "fgvc-aircraft-2013b/data/images_variant_train.txt"


def _pet(line: str) -> tuple[str, int]:
    """The pair (image, class number) from a line of the annotations."""
    image, _, rest = line.partition(" ")
    number = rest.split(" ")[0]
    if not number.isdecimal():
        raise LayoutError(f"a line of its annotations is {line!r}, not an image and a class number")
    return image, int(number)


def _aircraft(line: str, images: Path, number: dict[str, int]) -> tuple[Path, int]:
    image, _, variant = line.partition(" ")
    if variant.strip() not in number:
        raise LayoutError(f"its variants.txt has no {variant.strip()!r}")
    return inside(images, f"{image}.jpg"), number[variant.strip()]
