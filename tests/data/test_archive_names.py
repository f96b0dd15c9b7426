"""File names in archives that do not say their encoding: it is detected or given, said, and never silently wrong."""

import json
import struct
import tarfile
import zipfile
import zlib
from io import BytesIO
from pathlib import Path

import pytest
from conftest import compose
from layouts import png
from sources import configured, error_of, load

from distdiff.commands.describe import describe
from distdiff.data.datasets import load_dataset, prompts
from distdiff.data.reading.name_encoding import RawName, decoded

PNG = png()


class RawInfo(zipfile.ZipInfo):
    """A member whose name is written as given bytes, without the flag for UTF-8."""

    raw = b""

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:
        return self.raw, self.flag_bits & ~0x800


def zipped(path: Path, names: list[str], encoding: str | None, extra: bytes = b"") -> Path:
    """A .zip with a picture of each name, encoded without saying how, or flagged as UTF-8 if `encoding` is None."""
    with zipfile.ZipFile(path, "w") as archive:
        for number, name in enumerate(names):
            info = zipfile.ZipInfo(name) if encoding is None else RawInfo(str(number))
            info.extra = extra
            if encoding is not None:
                info.raw = name.encode(encoding)
            archive.writestr(info, PNG)
    return path


def tarred(path: Path, names: list[str], encoding: str, kind: int = tarfile.GNU_FORMAT) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w", format=kind, encoding=encoding) as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(PNG)
            archive.addfile(info, BytesIO(PNG))
    return path


def of_classes(*classes: str) -> list[str]:
    return [f"{name}/{number}.png" for name in classes for number in range(3)]


def classes(tmp_path: Path, archive: Path, **keys: object) -> set[str]:
    return set(load("imagefolder", tmp_path, root=str(archive), **keys).train.class_names)


LEGACY = [
    ("cp437", {"Hündin", "Kater"}),
    ("cp437", {"Café", "Größe"}),
    ("cp850", {"smørrebrød", "Hündin"}),
    ("cp1252", {"Hündin", "garçon"}),
    ("cp932", {"犬", "猫"}),
    ("cp932", {"ネコ", "表"}),  # whose second byte is a backslash
    ("gbk", {"猫", "狗"}),
    ("gbk", {"汽车", "飞机"}),
    ("big5", {"貓", "狗"}),
    ("cp949", {"고양이", "개"}),
    ("cp866", {"кошка", "собака"}),
    ("cp1251", {"кошка", "собака"}),
    ("koi8_r", {"кошка", "собака"}),
]


@pytest.mark.parametrize(("encoding", "names"), LEGACY)
def test_a_legacy_encoding_is_detected_and_said(encoding: str, names: set[str], tmp_path: Path, capsys) -> None:
    made = [
        zipped(tmp_path / "photos.zip", of_classes(*names), encoding),
        tarred(tmp_path / "photos.tar", of_classes(*names), encoding),
    ]
    for archive in made:
        for _ in range(2):  # when it is unpacked, and when it is found unpacked
            assert classes(tmp_path, archive) == names
            said = " ".join(capsys.readouterr().out.split())
            assert (
                f"the file names in {archive.name} do not say their encoding and are read as {encoding} (the most probable;"
                in said
            )
            assert said.count("do not say") == 1


def test_unflagged_names_that_are_utf8_are_utf8_in_prompts_too(tmp_path: Path, capsys) -> None:
    archive = zipped(tmp_path / "photos.zip", of_classes("Hündin", "猫"), "utf-8")
    config = configured("imagefolder", tmp_path, root=str(archive))
    images = load_dataset(config).train
    assert prompts(config, images.class_names) == ["a photo of a Hündin.", "a photo of a 猫."]
    assert (
        "are read as utf-8 (they are valid UTF-8; dataset.archive_encoding=... sets another)" in capsys.readouterr().out
    )


def test_names_in_two_encodings_are_told_apart() -> None:
    raw = [RawName("Hündin".encode()), RawName("Größe".encode("cp437")), RawName(b"", "Katze")]
    assert decoded(raw, None) == (["Hündin", "Größe", "Katze"], "cp437")
    chance = [RawName("猫".encode("gbk")), RawName("飞机".encode("gbk"))]  # the first is also valid UTF-8, for è
    assert decoded(chance, None) == (["猫", "飞机"], "gbk")
    mixed = [RawName("ペンギン".encode()), RawName("写真".encode("cp932")), RawName("犬の写真".encode("cp932"))]
    assert decoded(mixed, None) == (["ペンギン", "写真", "犬の写真"], "cp932")


@pytest.mark.parametrize(
    "archive",
    [
        lambda top: zipped(top / "flag.zip", of_classes("Hündin", "猫"), None),
        lambda top: zipped(top / "ascii.zip", of_classes("dog", "cat"), "cp437"),
        lambda top: tarred(top / "posix.tar", of_classes("Hündin", "猫"), "utf-8", tarfile.PAX_FORMAT),
        lambda top: tarred(top / "ascii.tar.gz", of_classes("dog", "cat"), "ascii"),
    ],
)
def test_an_archive_that_says_its_encoding_is_read_by_it_without_a_word(archive, tmp_path: Path, capsys) -> None:
    made = archive(tmp_path)
    expected = {"dog", "cat"} if "ascii" in made.name else {"Hündin", "猫"}
    assert classes(tmp_path, made) == expected
    assert classes(tmp_path, made, archive_encoding="shift_jis") == expected
    assert not capsys.readouterr().out


def test_a_name_in_an_extra_field_of_a_zip_counts(tmp_path: Path) -> None:
    raw, text = "Hündin/1.png".encode("cp437"), "Hündin und Kater/1.png".encode()
    for checked, expected in ((raw, "Hündin und Kater"), (b"other", "Hündin")):
        field = struct.pack("<BL", 1, zlib.crc32(checked)) + text
        place = tmp_path / expected
        place.mkdir()
        extra = struct.pack("<HH", 0x7075, len(field)) + field
        zipped(place / "photos.zip", ["Hündin/1.png", "cat/1.png"], "cp437", extra)
        assert classes(place, place / "photos.zip") == {expected, "cat"}


def test_a_given_encoding_is_used_and_said(tmp_path: Path, capsys) -> None:
    names = of_classes("kočka", "pes")
    for archive in (zipped(tmp_path / "photos.zip", names, "cp852"), tarred(tmp_path / "p.tar", names, "cp852")):
        assert "kočka" not in classes(tmp_path, archive)  # this encoding is not among those that are detected
        capsys.readouterr()
        assert classes(tmp_path, archive, archive_encoding="cp852") == {"kočka", "pes"}
        assert "read as cp852 (as dataset.archive_encoding says), for example kočka/0.png" in capsys.readouterr().out


def test_an_encoding_that_does_not_exist_or_fit_is_one_line(tmp_path: Path) -> None:
    root = str(zipped(tmp_path / "photos.zip", of_classes("Hündin", "cat"), "cp437"))
    for unknown in ("klingon", "base64", "rot13"):
        said = error_of("imagefolder", tmp_path, root=root, archive_encoding=unknown)
        assert said.startswith(f"dataset.archive_encoding={unknown} is not allowed: a text encoding, such as cp437")
    for unfit in ("ascii", "utf-8", "idna"):
        said = error_of("imagefolder", tmp_path, root=root, archive_encoding=unfit)
        assert said.startswith(f"dataset.archive_encoding={unfit} is not allowed: {root} holds a name that is not in")


def test_a_name_that_is_wrongly_flagged_as_utf8_is_one_line(tmp_path: Path) -> None:
    path = zipped(tmp_path / "photos.zip", ["Hündin/1.png", "cat/1.png"], None)
    path.write_bytes(path.read_bytes().replace("ü".encode(), b"\xff\xfe"))
    assert "cannot unpack it (it flags a name as UTF-8 that is not" in error_of("imagefolder", tmp_path, root=str(path))


def test_decoding_gives_no_way_out_of_the_archive(tmp_path: Path) -> None:
    for name in ("../é.png", "/é.png", "c:\\é.png"):
        path = str(zipped(tmp_path / "out.zip", ["cat/1.png", name], "cp437"))
        assert "it holds a path that leads out of it" in error_of("imagefolder", tmp_path, root=path)


def test_what_an_older_version_unpacked_under_misread_names_is_unpacked_again(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "photos.zip", of_classes("Hündin", "cat"), "utf-8")
    assert classes(tmp_path, archive) == {"Hündin", "cat"}
    (stage,) = (tmp_path / "cache/archives").glob("*/")
    (stage / "names.json").unlink()
    (stage / "content/Hündin").rename(stage / "content/H├╝ndin")
    assert classes(tmp_path, archive) == {"Hündin", "cat"}


def test_describe_says_the_encoding_apart_from_what_is_left_out(tmp_path: Path, capsys) -> None:
    archive = zipped(tmp_path / "photos.zip", of_classes("犬", "猫"), "cp932")
    config = compose("describe", ["dataset=imagefolder", f"dataset.root={archive}", "logger=none"])
    (tmp_path / "run").mkdir()
    describe(config, tmp_path / "run")
    summary = json.loads((tmp_path / "run/description.json").read_text(encoding="utf-8"))
    assert summary["left_out"] == []
    ((about, message),) = (each.values() for each in summary["assumed"])
    assert about == "file names"
    assert "read as cp932" in message
    assert capsys.readouterr().out.count("read as cp932") == 1
