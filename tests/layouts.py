"""Makers of small datasets, in the layouts that people have and the authors of named sets distribute."""

import io
import json
import tarfile
import zipfile
from pathlib import Path

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image
from scipy.io import savemat


def picture(path: Path, value: int = 0, size: int = 8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size, size), (value % 256, value // 256, 77)).save(path)
    return path


def cars(top: Path) -> None:
    names = np.array(["Acura RL Sedan 2012", "Ram C/V Cargo Van Minivan 2012", "BMW M3 Coupe 2012"], dtype=object)
    (top / "devkit").mkdir(parents=True)
    savemat(top / "devkit/cars_meta.mat", {"class_names": names.reshape(1, -1)})
    kind = [(key, object) for key in ("bbox_x1", "class", "fname")]
    for part, file, rows in (
        ("train", "devkit/cars_train_annos.mat", [(1, 2), (2, 1), (3, 3), (4, 1)]),
        ("test", "cars_test_annos_withlabels.mat", [(1, 3), (2, 1), (3, 2)]),
    ):
        annotations = np.array([[(5, label, f"{number:05d}.jpg") for number, label in rows]], dtype=kind)
        savemat(top / file, {"annotations": annotations})
        for number, label in rows:
            picture(top / f"cars_{part}" / f"{number:05d}.jpg", 40 * label)


def textures(top: Path) -> None:
    lists = {
        "train1": ["banded/banded_1.jpg", "zigzagged/z_1.jpg"],
        "val1": ["banded/banded_2.jpg", "zigzagged/z_2.jpg"],
    }
    lists["test1"] = ["zigzagged/z_3.jpg", "banded/banded_3.jpg"]
    (top / "labels").mkdir(parents=True)
    for name, files in lists.items():
        (top / "labels" / f"{name}.txt").write_text("".join(f"{file}\n" for file in files))
        for file in files:
            picture(top / "images" / file)


def pets(top: Path) -> None:
    (top / "annotations").mkdir(parents=True)
    (top / "annotations/trainval.txt").write_text(
        "#image class species breed\nAbyssinian_1 1 1 1\nyorkshire_terrier_1 2 2 1\n"
    )
    (top / "annotations/test.txt").write_text("yorkshire_terrier_2 2 2 1\nAbyssinian_2 1 1 1\n")
    for pet in ("Abyssinian_1", "Abyssinian_2", "yorkshire_terrier_1", "yorkshire_terrier_2"):
        picture(top / "images" / f"{pet}.jpg")


def aircraft(top: Path) -> None:
    data = top / "data"
    data.mkdir(parents=True)
    (data / "variants.txt").write_text("707-320\nF/A-18\n")
    for number, part in enumerate(("train", "val", "test")):
        (data / f"images_variant_{part}.txt").write_text(f"1{number} F/A-18\n2{number} 707-320\n")
        for image in (1, 2):
            picture(data / "images" / f"{image}{number}.jpg")


def flowers(top: Path) -> None:
    for number in range(1, 7):
        picture(top / "jpg" / f"image_{number:05d}.jpg", number)
    savemat(top / "imagelabels.mat", {"labels": np.array([[1, 102, 1, 102, 1, 102]], dtype=np.uint8)})
    savemat(top / "setid.mat", {"trnid": [[1, 2]], "valid": [[3, 4]], "tstid": [[6, 5]]})


def published_flowers(top: Path) -> None:
    for number in (1, 2, 10):
        picture(top / f"train/{number}/a.jpg", number)
        picture(top / f"valid/{number}/b.jpg", number)
        picture(top / f"test/{number}/c.jpg", number)
    (top / "cat_to_name.json").write_text(json.dumps({"10": "globe thistle", "1": "pink primrose", "2": "orchid"}))


def caltech(top: Path) -> None:
    for name in ("BACKGROUND_Google", "Faces_easy", "accordion", "ceiling_fan"):
        for number in range(10):
            picture(top / "101_ObjectCategories" / name / f"image_{number:04d}.jpg")


def imagenette(top: Path) -> None:
    for part in ("train", "val"):
        for wnid in ("n01440764", "n03394916"):
            picture(top / part / wnid / f"{wnid}_1.JPEG")


def cifar100(top: Path) -> np.ndarray:
    """The binary version, of six images in turn of two classes; their pixels, planes first."""
    top.mkdir(parents=True)
    (top / "fine_label_names.txt").write_text("apple\nsea_horse\n")
    pixels = np.random.default_rng(0).integers(0, 256, (6, 3, 32, 32), dtype=np.uint8)
    for part in ("train", "test"):
        with open(top / f"{part}.bin", "wb") as file:
            for number, image in enumerate(pixels):
                file.write(bytes([9, number % 2]) + image.tobytes())
    return pixels


def medmnist(file: Path, channels: tuple[int, ...] = (3,), side: int = 28) -> dict[str, np.ndarray]:
    rng, arrays = np.random.default_rng(0), {}
    for part, count in (("train", 4), ("val", 2), ("test", 3)):
        arrays[f"{part}_images"] = rng.integers(0, 256, (count, side, side, *channels), dtype=np.uint8)
        arrays[f"{part}_labels"] = (np.arange(count) % 2).reshape(-1, 1).astype(np.uint8)
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(file, **arrays)
    return arrays


def table(count: int, labels: list, **columns: list) -> datasets.Dataset:
    images = [Image.new("RGB", (6, 6), (10 * number, 0, 0)) for number in range(count)]
    rows = {"picture": images, "kind": labels, **columns}
    features = {
        "picture": datasets.Image(),
        **{key: datasets.Dataset.from_dict({key: rows[key]}).features[key] for key in rows if key != "picture"},
    }
    return datasets.Dataset.from_dict(rows, features=datasets.Features(features))


def classed(data: datasets.Dataset, names: list[str]) -> datasets.Dataset:
    return data.cast_column("kind", datasets.ClassLabel(names=names))


def labelled(columns: dict[str, list], features: datasets.Features, file: Path) -> Path:
    """A parquet file with the features that `datasets` writes into it, and with any numbers as labels."""
    described = {"info": {"features": features.to_dict()}}
    table = pyarrow.table(columns).replace_schema_metadata({b"huggingface": json.dumps(described).encode()})
    pyarrow.parquet.write_table(table, file)
    return file


def folder_of(tmp_path: Path, **counts: int) -> str:
    for name, count in counts.items():
        for number in range(count):
            picture(tmp_path / "photos/train" / name / f"{number}.png")
        picture(tmp_path / "photos/test" / name / "0.png")
    return str(tmp_path / "photos")


METADATA = [
    {"file_name": "images/b.png", "label": 10, "split": "train"},
    {"file_name": "images/a.png", "label": 9, "split": "train"},
    {"file_name": "images/c.png", "label": 9, "split": "val"},
    {"file_name": "images/d.png", "label": 10, "split": "test"},
]


def write_metadata(top: Path, kind: str, rows: list[dict]) -> Path:
    file = top / f"metadata.{kind}"
    if kind == "csv":
        lines = [",".join(rows[0]), *(",".join("" if v is None else str(v) for v in row.values()) for row in rows)]
        file.write_text("\n".join(lines), encoding="utf-8-sig")
    elif kind == "jsonl":
        file.write_text("\n".join(map(json.dumps, rows)))
    else:
        data = datasets.Dataset.from_list(rows)
        data.cast_column("label", datasets.ClassLabel(num_classes=11)).to_parquet(file)
    return file


def archived(path: Path, members: dict[str, bytes], link: str | None = None) -> Path:
    if path.suffix.lower() == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
            if link:
                info = zipfile.ZipInfo(link)
                info.external_attr = 0o120777 << 16
                archive.writestr(info, "/etc")
        return path
    with tarfile.open(path, "w:gz" if path.suffix in (".gz", ".tgz") else "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        if link:
            info = tarfile.TarInfo(link)
            info.type, info.linkname = tarfile.SYMTYPE, "/etc"
            archive.addfile(info)
    return path


def png() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "PNG")
    return stream.getvalue()
