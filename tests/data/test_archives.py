"""Archives of image folders."""

import pytest
from layouts import archived, png
from sources import contents, error_of, load, sizes


@pytest.mark.parametrize("name", ["photos.zip", "photos.tar", "photos.tar.gz"])
def test_an_archive_is_unpacked_once(name: str, tmp_path) -> None:
    members = {f"photos/{cls}/{number}.png": png() for cls in ("cat", "dog") for number in range(4)}
    path = archived(tmp_path / name, members | {"photos/.DS_Store": b"x", "__MACOSX/photos/cat/0.png": b"x"})
    splits = load("imagefolder", tmp_path, root=str(path))
    assert sizes(splits) == (4, 2, 2)
    assert splits.train.image(0).size == (8, 8)
    (kept,) = (tmp_path / "cache/archives").glob("*/content/photos/cat")
    (kept / "0.png").unlink()  # seen again, for nothing is unpacked a second time
    assert sum(sizes(load("imagefolder", tmp_path, root=str(path)))) == 7


@pytest.mark.parametrize("name", ["photos.ZIP", "photos.tgz"])
def test_an_archive_may_hold_split_folders_or_a_metadata_file(name: str, tmp_path) -> None:
    keys = {"validation_fraction": 0}
    folders = {f"data/{split}/{cls}/1.png": png() for split in ("train", "test") for cls in ("cat", "dog")}
    assert sizes(load("imagefolder", tmp_path, root=str(archived(tmp_path / name, folders)), **keys)) == (2, 0, 2)
    rows = "file_name,label,split\na.png,cat,train\nb.png,dog,train\nc.png,cat,test\n"
    listed = {"metadata.csv": rows.encode(), **{f"{image}.png": png() for image in "abc"}}
    splits = load("imagefolder", tmp_path, root=str(archived(tmp_path / f"2{name}", listed)), **keys)
    assert contents(splits.test) == {"cat": ["c.png"], "dog": []}


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
@pytest.mark.parametrize("bad", ["../out.png", "/abs.png", "cat/../../out.png", "c:\\out.png", "link"])
def test_an_archive_cannot_write_elsewhere(bad: str, suffix: str, tmp_path) -> None:
    place = tmp_path / "in"
    place.mkdir()
    members = {"cat/1.png": png()} | ({} if bad == "link" else {bad: png()})
    path = archived(place / f"photos{suffix}", members, link="cat/link" if bad == "link" else None)
    message = error_of("imagefolder", tmp_path, root=str(path))
    assert "it holds a link or device" in message or "it holds a path that leads out of it" in message
    assert not list(tmp_path.rglob("*.png"))


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
def test_a_damaged_archive_is_one_line(suffix: str, tmp_path) -> None:
    path = tmp_path / f"photos{suffix}"
    path.write_bytes(b"PK\x03\x04 no archive")
    assert "cannot unpack it" in error_of("imagefolder", tmp_path, root=str(path))
