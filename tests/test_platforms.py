"""The package imports and works where Linux's own calls, symbolic links or hard links are missing."""

import ast
import errno
import hashlib
import io
import ntpath
import os
import shutil
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT
from standin import StandIn
from stored import standin_jobs

from distdiff.caching.hashing import content_hash
from distdiff.caching.positions import PositionedFile
from distdiff.console.quiet import quiet_environment
from distdiff.data.cache.examined import top_folder
from distdiff.data.cache.image_cache import StoredImages
from distdiff.data.sources import imagefolder
from distdiff.errors import UserError
from distdiff.expansion.job import ExpansionJob
from distdiff.links import followed, link
from distdiff.locking import forget, held
from distdiff.store.directory import ExpandedDirectory
from distdiff.store.names import SPLIT_WORDS, safe_name
from distdiff.store.reading import finished_directory, read_expanded

# What Windows, and partly macOS, do not have.
OF_OS = """
O_DIRECTORY chown fchmod fork forkpty fstatvfs getegid geteuid getgid getloadavg getpgid getpriority getsid getuid killpg mkfifo
nice posix_fadvise posix_fallocate posix_spawn pread preadv pwrite pwritev register_at_fork sched_getaffinity sched_setaffinity
sendfile setpgid setpriority setsid statvfs sysconf uname wait4
"""
OF_SIGNAL = """
SIGALRM SIGCHLD SIGCONT SIGHUP SIGKILL SIGPIPE SIGQUIT SIGTSTP SIGUSR1 SIGUSR2 alarm pause pthread_kill pthread_sigmask setitimer
sigpending sigwait
"""
MISSING = {"os": tuple(OF_OS.split()), "signal": tuple(OF_SIGNAL.split())}
MODULES = ("fcntl", "grp", "pty", "pwd", "resource", "termios", "tty", "syslog")

SIMULATION = """
import os, pkgutil, runpy, shutil, signal, sys
from importlib import import_module
import distdiff

names = [module.name for module in pkgutil.walk_packages(distdiff.__path__, "distdiff.") if module.name != "distdiff.cli.member"]
for name in names:  # so that the libraries are there: they have their own ways on each platform
    import_module(name)
mine = [name for name in sys.modules if name.partition(".")[0] == "distdiff"]
for name in mine:
    del sys.modules[name]
for module, missing in {missing!r}.items():
    for name in missing:
        if hasattr(sys.modules[module], name):
            delattr(sys.modules[module], name)
for name in {modules!r}:
    sys.modules[name] = None
shutil.disk_usage = lambda path: shutil._ntuple_diskusage(10**12, 0, 10**12)  # Windows has its own
import lightning.pytorch.trainer.connectors.signal_connector as connector
connector._IS_WINDOWS = True
connector._SignalConnector._valid_signals = staticmethod(lambda: {{signal.SIGINT, signal.SIGTERM}})
def no_links(*_, **__): raise OSError(1314, "A required privilege is not held by the client")
os.symlink = os.link = no_links
import pathlib
pathlib.Path.symlink_to = no_links
sys.platform = "win32"
for name in names:
    import_module(name)
sys.platform = "linux"  # the libraries run on this platform
assert len(names) > 150, names

from distdiff.errors import STOPPING
assert set(STOPPING) == {{signal.SIGINT, signal.SIGTERM}}
from distdiff.ranks.world import world
assert world().fair_share() >= 1
from distdiff.caching.hashing import content_hash
print("hash", content_hash(pathlib.Path(sys.argv[1])))
sys.argv = ["expand.py", "method=augmentation", "expansion.factor=1", "logger=none", f"paths.output_dir={{sys.argv[2]}}"]
runpy.run_path("experiments/expand.py", run_name="__main__")
"""


def test_every_module_imports_and_an_expansion_runs_where_posix_calls_are_missing(tmp_path: Path) -> None:
    data = tmp_path / "data.bin"
    data.write_bytes(bytes(range(256)) * 10)
    result = subprocess.run(
        [
            sys.executable,
            "-c",
            SIMULATION.format(missing=MISSING, modules=MODULES),
            str(data),
            str(tmp_path / "outputs"),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HOME": str(tmp_path / "hf")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"hash {content_hash(data)}" in result.stdout
    (place,) = (tmp_path / "outputs" / "expand").glob("*/expanded")
    assert place.is_file()
    assert not place.is_symlink()
    assert len(read_expanded(place)) == 20


def uses(path: Path) -> list[tuple[str, str]]:
    """(call of POSIX alone, source of the function or module around it) for each such call in a file."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    found = []
    functions = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.attr in MISSING.get(node.value.id, ())
        ):
            around = [each for each in functions if each.lineno <= node.lineno <= each.end_lineno]
            found.append((node.attr, ast.get_source_segment(text, around[-1]) if around else ""))
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names]
            found += [(name, "") for name in names if name in MODULES]
    return found


@pytest.mark.parametrize("path", sorted((ROOT / "distdiff").rglob("*.py")), ids=lambda path: path.stem)
def test_a_call_of_posix_alone_is_made_only_where_it_is_there(path: Path) -> None:
    for name, around in uses(path):
        assert f'"{name}")' in around, f"{path}: {name} without hasattr"


@pytest.fixture(params=[True, False], ids=["pread", "no pread"])
def reading(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if not request.param:
        for name in ("pread", "preadv"):
            monkeypatch.delattr(os, name, raising=False)
    return request.param


def test_threads_read_at_their_own_positions(reading: bool, tmp_path: Path) -> None:
    path = tmp_path / "numbers"
    path.write_bytes(np.arange(4000, dtype=np.uint32).tobytes())
    wrong = []
    with open(path, "rb", buffering=0) as file:
        shared = PositionedFile(file)

        def read(start: int) -> None:
            for number in range(start, 4000, 8):
                buffer = np.empty(1, dtype=np.uint32)
                whole = shared.read_into(buffer.data.cast("B"), 4 * number) == 4
                if not whole or buffer[0] != number or shared.read(4, 4 * number) != buffer.tobytes():
                    wrong.append(number)

        threads = [threading.Thread(target=read, args=(start,)) for start in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert shared.read(100, 4 * 4000 - 4) == np.uint32(3999).tobytes()
        assert shared.read_into(memoryview(bytearray(8)), 4 * 4000) == 0
    assert not wrong


def test_stored_images_and_hashes_are_the_same_without_pread(reading: bool, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path))
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), dtype=np.uint8)
    np.save(tmp_path / "pixels.npy", images)
    stored = StoredImages(tmp_path / "pixels.npy", 5, (4, 4, 3))
    assert all((stored[index] == images[index]).all() for index in (3, 0, 4, 1, 2))
    path = tmp_path / "file"
    path.write_bytes(b"distdiff" * 1000)
    part = hashlib.sha256(b"distdiff" * 1000).digest()
    assert content_hash(path) == hashlib.sha256(part).hexdigest()
    with open(tmp_path / "pixels.npy", "r+b") as file:
        file.truncate(130)
    with pytest.raises(OSError, match="ends early"):
        stored[4]


def broken(*_: object, **__: object) -> None:
    raise OSError(errno.EPERM, "A required privilege is not held by the client")


@pytest.fixture(params=["links", "no links", "not implemented"])
def links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if request.param == "no links":
        monkeypatch.setattr(Path, "symlink_to", broken)
    if request.param == "not implemented":

        def unknown(*_: object, **__: object) -> None:
            raise NotImplementedError("symlink() not available on this system")

        monkeypatch.setattr(Path, "symlink_to", unknown)
    return request.param == "links"


def test_a_link_inside_the_outputs_stays_valid_when_they_move(links: bool, tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    target = outputs / "expanded" / "data"
    target.mkdir(parents=True)
    (target / "file").touch()
    place = outputs / "expand" / "now" / "expanded"
    link(place, target, outputs)
    link(place, target, outputs)  # a second time, over the first
    assert place.is_symlink() == links
    shutil.move(outputs, tmp_path / "elsewhere")
    moved = followed(tmp_path / "elsewhere" / "expand" / "now" / "expanded")
    assert (moved / "file").is_file()
    assert moved.resolve() == tmp_path / "elsewhere" / "expanded" / "data"


def test_a_link_out_of_the_outputs_stays_valid_when_they_move(links: bool, tmp_path: Path) -> None:
    target = tmp_path / "data"
    target.mkdir()
    (target / "file").touch()
    place = tmp_path / "outputs" / "run" / "exported"
    link(place, target, tmp_path / "outputs")
    (tmp_path / "deep").mkdir()
    shutil.move(tmp_path / "outputs", tmp_path / "deep" / "elsewhere")
    assert (followed(tmp_path / "deep" / "elsewhere" / "run" / "exported") / "file").is_file()


def test_a_link_as_text_may_move_between_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise NotImplementedError

    target, place = tmp_path / "expanded" / "data", tmp_path / "run" / "link"
    target.mkdir(parents=True)
    monkeypatch.setattr(Path, "symlink_to", unknown)
    windows = SimpleNamespace(sep="\\", path=SimpleNamespace(relpath=lambda *_: r"..\expanded\data"))
    monkeypatch.setattr("distdiff.links.os", windows)
    link(place, target, tmp_path)
    assert place.read_text() == "../expanded/data\n"
    place.write_text("..\\expanded\\data\n")  # as earlier versions wrote it on Windows
    assert followed(place).resolve() == target.resolve()


@pytest.mark.parametrize("content", ["", "nowhere\n", "a\nb\n", "x" * 5000, "\0"])
def test_a_text_file_that_is_no_link_is_left_as_it_is(content: str, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    path = tmp_path / "file"
    path.write_text(content)
    assert followed(path) == path
    assert followed(tmp_path / "missing") == tmp_path / "missing"
    assert followed(tmp_path / "a") == tmp_path / "a"


def test_expanded_data_are_read_through_a_text_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = made(tmp_path)
    monkeypatch.setattr(Path, "symlink_to", broken)
    place = tmp_path / "run" / "expanded"
    link(place, job.path, tmp_path)
    assert place.is_file()
    assert read_expanded(place).labels.tolist() == read_expanded(job.path).labels.tolist()
    assert finished_directory(str(place)).path.resolve() == job.path.resolve()
    place.write_text("nowhere\n")
    with pytest.raises(UserError, match="is no expanded dataset"):
        finished_directory(place)


def made(tmp_path: Path) -> ExpansionJob:
    job, _ = standin_jobs(tmp_path)("made")
    job.run("test")
    return job


def test_an_expansion_ends_where_open_lock_files_cannot_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows does not remove an open file, and the lock of a share is open while the share is made."""
    unlink = Path.unlink

    def refuse(self: Path, missing_ok: bool = False) -> None:
        if self.name.endswith(".lock") and self.exists():
            raise PermissionError(errno.EACCES, "The process cannot access the file", str(self))
        unlink(self, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        job = made(tmp_path)
        images = len(read_expanded(job.path))
    assert images > 0
    again, standin = standin_jobs(tmp_path)("made")
    again.run("test")
    assert isinstance(standin, StandIn)
    assert len(read_expanded(job.path)) == images


def test_a_lock_is_forgotten_where_it_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = tmp_path / ".lock"
    with held(lock):
        pass
    lock.touch()
    forget(lock)
    assert not lock.exists()
    forget(lock)


def test_names_that_the_consoles_encoding_lacks_are_printed_by_their_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe on Windows has the encoding cp1252, for example."""
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", stdout)
    with warnings.catch_warnings():
        quiet_environment()
    print("é 日本 ↓", flush=True)
    assert stdout.buffer.getvalue().decode("cp1252").splitlines() == [r"é \u65e5\u672c \u2193"]


def test_files_on_several_drives_have_a_listing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distdiff.data.cache.examined.os.path", ntpath)
    monkeypatch.setattr(ntpath, "abspath", ntpath.normpath)
    files = ["C:\\a\\1.png", "D:\\b\\2.png", "C:\\a\\3.png"]
    assert top_folder(files) == top_folder(reversed(files)) == f"C:\\a{os.pathsep}D:\\b"
    assert top_folder(files[::2]) == "C:\\a"


@pytest.mark.parametrize("storage", ["imagefolder", "parquet"])
def test_images_whose_names_the_disk_does_not_tell_apart_are_refused(storage: str, tmp_path: Path, monkeypatch) -> None:
    job, _ = standin_jobs(tmp_path)("made", f"expansion.format={storage}")
    job.claim()
    names = list(job.plan.file_names())
    monkeypatch.setattr(type(job.plan), "file_names", lambda self: iter([*names[:3], names[0].upper()]))
    directory = ExpandedDirectory(job.path)
    directory.check_names(job.plan)  # this disk tells them apart
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda self: exists(self) or exists(self.with_name(self.name.lower())))
    if storage == "parquet":
        directory.check_names(job.plan)
        return
    with pytest.raises(UserError, match=r"this disk does not tell .* from .*; rename one"):
        job.run("test")


RESERVED = ["con", "PRN", "aux.png", "nul.tar.gz", "COM1", "lpt9.txt", "com¹", "nul .png", "CONIN$"]


@pytest.mark.parametrize("name", RESERVED)
def test_names_that_windows_reserves_are_not_used(name: str) -> None:
    safe = safe_name(name)
    stem = safe.split(".")[0].rstrip(" ")
    assert stem.endswith("~")
    assert stem[:-1].lower() == name.split(".")[0].rstrip(" ").lower()


@pytest.mark.parametrize(
    "name", ["a.", "a ", "a. ", "a..", ". ", "a<", 'a"', "a|b", "a?b", "a*b", "a:b", "a\\b", "a/b", "a\x1f"]
)
def test_names_hold_no_character_that_a_file_system_refuses(name: str) -> None:
    safe = safe_name(name)
    assert not set(safe) & set('<>:"/\\|?*')
    assert min(map(ord, safe)) > 31
    assert not safe.endswith((".", " "))


def test_ordinary_names_are_unchanged_and_distinct_names_stay_distinct() -> None:
    ordinary = [
        "cat",
        "golden retriever",
        "a.png",
        "IMG_0001.JPG",
        "console",
        "auxiliary.png",
        "com10",
        "null",
        "7",
        "ü.png",
    ]
    assert [safe_name(name) for name in ordinary] == ordinary
    names = [*ordinary, *RESERVED, *(f"{name}~" for name in RESERVED), *SPLIT_WORDS, "con%7E", "con%", "a.", "a%2E"]
    assert len({safe_name(name) for name in names}) == len(names)


def test_an_image_folder_is_read_through_a_text_file(image_folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(Path, "symlink_to", broken)
    link(tmp_path / "linked", image_folder, tmp_path)
    assert imagefolder.followed(tmp_path / "linked") == image_folder
