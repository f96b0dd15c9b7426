"""A dataset is looked over before it is used: what it holds, what is wrong with it, and what is in two splits at once."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import compose
from datasets import ClassLabel, Dataset, Features
from datasets import Image as ImageFeature
from PIL import Image

from distdiff.commands.describe import describe
from distdiff.data.reading.decoding import read_image
from distdiff.description.similarity import difference_hash, miniature, near_pairs
from distdiff.errors import UserError


def picture(seed: int, side: int = 48) -> Image.Image:
    """Smooth blotches of a photo's contrast: unlike for every seed."""
    coarse = np.random.default_rng(seed).integers(64, 192, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def save(image: Image.Image, path: Path, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def described(root: Path, place: Path, *overrides: str) -> dict:
    place.mkdir()
    given = [f"dataset.root={root}", "dataset.image_size=40", f"paths.output_dir={place}", *overrides]
    describe(compose("describe", ["dataset=imagefolder", *given]), place)
    return json.loads((place / "description.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def troubled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train and test folders with one of each trouble planted."""
    root = tmp_path_factory.mktemp("troubled")
    for seed in range(6):
        save(picture(seed), root / f"train/cat/{seed}.png")
        save(picture(10 + seed), root / f"train/dog [red]/{seed}.png")
    for seed in range(3):
        save(picture(20 + seed), root / f"test/cat/{seed}.png")
        save(picture(30 + seed), root / f"test/dog [red]/{seed}.png")
    save(picture(0), root / "train/cat/again.bmp")  # the same pixels in another file
    save(picture(1), root / "train/dog [red]/also a cat.png")  # and in another class
    save(picture(12), root / "test/dog [red]/leaked.png")
    save(picture(3).resize((96, 96)), root / "test/cat/nearly.jpg", quality=60)
    save(picture(40, side=24).convert("L"), root / "train/cat/small.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    save(picture(41), root / "train/cat/turned.jpg", exif=exif)
    (root / "train/cat/broken.png").write_bytes((root / "train/cat/0.png").read_bytes()[:200])
    (root / "train/cat/empty.jpg").touch()
    (root / "train/cat/notes.txt").write_text("no image")
    return root


@pytest.fixture(scope="module")
def found(troubled: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, Path]:
    place = tmp_path_factory.mktemp("run") / "run"
    return described(troubled, place, "dataset.validation_fraction=0"), place


def test_images_are_counted_by_class_and_split_and_carved_splits_are_known(found, image_folder, tmp_path) -> None:
    summary, _ = found
    assert summary["images"] == 26
    assert {row["name"]: row["images"] for row in summary["classes"]} == {
        "cat": {"train": 11, "validation": 0, "test": 4},
        "dog [red]": {"train": 7, "validation": 0, "test": 4},
    }
    assert summary["balance"]["smallest"] == {"name": "dog [red]", "images": 7}
    assert [row["prompts"] for row in summary["classes"]] == [["a photo of a cat."], ["a photo of a dog [red]."]]
    carved = {split: part["carved"] for split, part in summary["splits"].items()}
    assert carved == {"train": False, "validation": True, "test": False}
    own = described(image_folder, tmp_path / "own")
    assert [part["carved"] for part in own["splits"].values()] == [False, True, True]


def test_sizes_modes_and_turned_files_are_those_of_the_files(found) -> None:
    summary, _ = found
    assert summary["sizes"]["width"] == {"min": 24, "median": 48, "max": 96}
    assert summary["sizes"]["smaller"] == 1
    assert summary["files"] == {
        "formats": {"PNG": 21, "JPEG": 2, "BMP": 1},
        "modes": {"RGB": 23, "L": 1},
        "rotated": 1,
    }


def test_what_cannot_be_read_and_what_is_no_image_is_listed_with_the_reason(found) -> None:
    summary, _ = found
    reasons = {image["key"]: image["reason"] for image in summary["unreadable"]}
    assert set(reasons) == {"broken.png", "empty.jpg"}
    assert reasons["empty.jpg"] == "it is empty"
    assert [left_out["files"] for left_out in summary["left_out"]] == [["cat/notes.txt"]]


def test_planted_duplicates_conflicts_and_leaks_are_found_and_no_others(found) -> None:
    summary, place = found
    exact = summary["exact_duplicates"]
    assert (exact["pictures"], exact["images"]) == (3, 6)
    (conflict,) = exact["conflicts"]
    assert [image["key"] for image in conflict] == ["1.png", "also a cat.png"]
    leaks = {(leak["split"], leak["in"]): leak for leak in summary["leaks"]}
    leak = leaks["test", "train"]
    assert (leak["exact"], leak["near"]) == (1, 1)
    assert [(pair["first"]["key"], pair["second"]["key"]) for pair in leak["pairs"]] == [
        ("2.png", "leaked.png"),
        ("3.png", "nearly.jpg"),
    ]
    assert leaks["validation", "train"]["exact"] == leaks["test", "validation"]["near"] == 0
    with open(place / "duplicates.csv", encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert sorted((row["kind"], row["first_key"], row["second_key"]) for row in rows) == [
        ("exact", "0.png", "again.bmp"),
        ("exact", "1.png", "also a cat.png"),
        ("exact", "2.png", "leaked.png"),
        ("near", "3.png", "nearly.jpg"),
    ]


def test_every_class_has_a_grid_under_a_safe_name(found) -> None:
    _, place = found
    assert sorted(path.name for path in (place / "classes").iterdir()) == ["cat.png", "dog %5Bred%5D.png"]
    with Image.open(place / "classes/dog %5Bred%5D.png") as sheet:
        assert sheet.size == (4 * 130 - 2, 2 * 130 - 2)  # seven tiles of 128, two pixels apart


def test_what_is_wrong_is_said_on_the_console(troubled, tmp_path, capsys) -> None:
    described(troubled, tmp_path / "run", "dataset.validation_fraction=0")
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "! leaks train > test 2 of 8 test images are in train too, 1 with the same pixels and 1 nearly the same" in said
    )
    assert "train cat/3.png ~ test cat/nearly.jpg" in said
    assert "! two classes 1 picture labelled differently: train cat/1.png = train dog [red]/also a cat.png" in said
    assert "leaks train > validation none" in said
    assert said.count("1 file left out") == 1
    assert "train cat/empty.jpg: it is empty" in said


def test_classes_of_one_size_are_not_compared(tmp_path, capsys) -> None:
    for seed in range(12):
        split, name = "train" if seed < 10 else "test", "cat" if seed % 2 else "dog"
        save(picture(seed), tmp_path / f"images/{split}/{name}/{seed}.png")
    described(tmp_path / "images", tmp_path / "run", "dataset.validation_fraction=0")
    assert "5 training images of each class" in capsys.readouterr().out


def test_each_image_is_decoded_once(troubled, tmp_path, monkeypatch) -> None:
    decoded = []
    monkeypatch.setattr(
        "distdiff.data.images.read_image", lambda path, *more: decoded.append(path) or read_image(path, *more)
    )
    described(troubled, tmp_path / "run")
    assert len(decoded) == len(set(decoded)) == 26


def test_the_hash_has_a_bit_for_every_step_to_a_lighter_neighbour() -> None:
    columns = np.array([0, 10, 5, 20, 20, 30, 10, 40, 50], dtype=np.uint8)  # up, down, up, level, up, down, up, up
    levels = np.tile(columns, (8, 1))
    levels[7] = columns[::-1]  # its steps the other way round
    assert difference_hash(Image.fromarray(levels)) == int("10101011" * 7 + "00100010", 2)


def test_pairs_are_those_of_a_loop_over_all_of_them(monkeypatch) -> None:
    monkeypatch.setattr("distdiff.description.similarity.BLOCK", 7)
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 16, 40).astype(np.uint64)
    images = np.stack([miniature(picture(seed % 9)) for seed in range(40)])
    pairs, distances = near_pairs(hashes, images, 1, 6)
    expected = [
        (a, b, (int(hashes[a]) ^ int(hashes[b])).bit_count())
        for a in range(40)
        for b in range(a + 1, 40)
        if (int(hashes[a]) ^ int(hashes[b])).bit_count() <= 1 and np.abs(images[a].astype(int) - images[b]).mean() <= 6
    ]
    assert sorted((*pair, int(bits)) for pair, bits in zip(pairs.tolist(), distances, strict=True)) == expected
    assert expected


CHANGES = {
    "compressed": lambda image: compressed(image, 75),
    "halved": lambda image: image.resize((24, 24)),
    "brighter": lambda image: image.point(lambda level: min(255, level * 1.08)),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "another": lambda image: picture(99),
}


def compressed(image: Image.Image, quality: int) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(stream)


@pytest.mark.parametrize("change", CHANGES)
def test_a_picture_saved_again_is_near_and_another_is_not(change: str) -> None:
    keys = compose("describe", []).describe
    found = 0
    for seed in range(20):
        both = [picture(seed), CHANGES[change](picture(seed))]
        hashes = np.array([difference_hash(image) for image in both], dtype=np.uint64)
        small = np.stack([miniature(image) for image in both])
        found += len(near_pairs(hashes, small, keys.near_distance, keys.near_difference)[0])
    assert found == 0 if change in ("mirrored", "another") else found >= 19


def test_black_and_white_are_not_near() -> None:
    small = np.stack([miniature(Image.new("RGB", (8, 8), colour)) for colour in ("black", "white")])
    assert not len(near_pairs(np.zeros(2, dtype=np.uint64), small, 6, 4)[0])


def test_ten_thousand_hashes_are_compared_in_seconds() -> None:
    hashes = np.random.default_rng(0).integers(0, 2**63, 10_000, dtype=np.uint64)
    hashes[9_999] = hashes[3] ^ np.uint64(5)
    pairs, distances = near_pairs(hashes, np.zeros((10_000, 16, 16, 3), dtype=np.int16), 6, 4)
    assert pairs.tolist() == [[3, 9_999]]
    assert distances.tolist() == [2]


def test_a_set_without_files_has_sizes_but_no_modes(tmp_path) -> None:
    place = tmp_path / "digits"
    place.mkdir()
    describe(compose("describe", [f"paths.output_dir={tmp_path}", "describe.images_per_class=2"]), place)
    summary = json.loads((place / "description.json").read_text(encoding="utf-8"))
    assert summary["files"] is None
    assert summary["sizes"]["width"] == {"min": 32, "median": 32, "max": 32}
    assert sum(row["images"]["test"] for row in summary["classes"]) == 600
    assert len(list((place / "classes").iterdir())) == 10


def test_a_class_that_commands_would_refuse_is_a_problem(tmp_path, capsys) -> None:
    for name, count in {"many": 9, "one": 1, "broken": 8}.items():
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(count):
            file = tmp_path / "data" / name / f"{number}.png"
            picture(10 * count + number).save(file)
            if name == "broken":
                file.write_bytes(file.read_bytes()[:40])
    described(tmp_path / "data", tmp_path / "run")
    said = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    lines = [line for line in said if line.startswith(("! train images", "! validation images", "! test images"))]
    of_all = "without an image that can be read;"
    assert lines == [
        f"! train images 1 class {of_all} training needs one of each class: broken",
        f"! validation images 2 classes {of_all} accuracy on validation images needs one of each class: broken; one",
        f"! test images 2 classes {of_all} accuracy needs one of each class: broken; one",
    ]


@pytest.mark.parametrize(("number", "more"), [(2, ""), (200, ", or all of a class that has fewer")])
def test_the_number_that_a_study_draws_may_be_more_than_there_is(number: int, more: str, tmp_path, capsys) -> None:
    drawn = [f"paths.output_dir={tmp_path}", "describe.images_per_class=2", f"dataset.per_class={number}"]
    describe(compose("describe", drawn), tmp_path)
    said = " ".join(capsys.readouterr().out.split())
    assert f"each study seed draws {number} of these a class{more} (dataset.per_class)" in said


def test_images_in_parquet_files_have_modes(tmp_path) -> None:
    def encoded(seed: int) -> dict:
        stream = io.BytesIO()
        picture(seed).convert("P").save(stream, "PNG")
        return {"bytes": stream.getvalue(), "path": None}

    features = Features({"image": ImageFeature(), "label": ClassLabel(names=["a", "b"])})
    rows = {"image": [encoded(seed) for seed in range(8)], "label": [0, 1] * 4}
    Dataset.from_dict(rows, features=features).to_parquet(str(tmp_path / "train.parquet"))
    summary = described(tmp_path / "train.parquet", tmp_path / "run", "dataset=parquet", "dataset.name=any")
    assert summary["files"] == {"formats": {"PNG": 8}, "modes": {"P": 8}, "rotated": 0}


def test_a_dataset_of_which_nothing_can_be_read_is_one_line_with_the_reasons(tmp_path) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 7\n"
    for name in ("a", "b"):
        (tmp_path / "root" / name).mkdir(parents=True)
        (tmp_path / "root" / name / "x.png").write_bytes(pointer)
    (tmp_path / "root/b/y.png").touch()
    said = (
        r"none of its 3 images can be read: it is a git-lfs pointer, not the file itself \(git lfs pull gets it\) \(2\); "
        r"it is empty \(1\)"
    )
    with pytest.raises(UserError, match=said):
        described(tmp_path / "root", tmp_path / "run")


def test_what_a_dataset_leaves_aside_is_in_the_description_with_its_files(tmp_path) -> None:
    root = tmp_path / "photos"
    for seed, name in enumerate(("train/cat", "train/dog", "test/cat", "test/dog", "holdout/cat")):
        for number in range(3):
            save(picture(10 * seed + number), root / name / f"{number}.png")
    (root / "bird.zip").write_bytes(b"x")
    left_out = described(root, tmp_path / "run")["left_out"]
    assert [entry["reason"].partition(f" {root}")[0] for entry in left_out] == ["holdout in", "1 archive left out of"]
    assert [entry["files"] for entry in left_out] == [
        [f"holdout/cat/{number}.png" for number in range(3)],
        ["bird.zip"],
    ]


def test_under_several_ranks_the_leading_one_alone_looks(tmp_path, monkeypatch) -> None:
    class Follower:
        def once(self, make: object) -> None:
            """What another rank makes."""

    monkeypatch.setattr("distdiff.commands.describe.world", Follower)
    assert describe(compose("describe", []), tmp_path) is None
    assert not list(tmp_path.iterdir())
