"""A stand-in for the Hugging Face hub: the part of its HTTP interface that downloads use, on this machine.

As on the real one, weights are answered with a redirect to where they lie, other files are not; a repository that is not
there is answered like one that needs a login; a gated one shows its list of files and refuses them.
"""

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import datasets
import pytest
from huggingface_hub import constants, hf_api

from distdiff import hub as hub_module

WEIGHTS = (".safetensors", ".bin", ".ckpt", ".parquet")
API = re.compile(
    r"/api/(?:models|datasets)/(?P<name>[^/]+/[^/]+)"
    r"(?:/(?P<what>revision|tree|paths-info)/(?P<revision>[^/]+)(?:/(?P<below>.+))?)?"
)
FILE = re.compile(r"/(?:datasets/)?(?P<name>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")


@dataclass
class Hub:
    """Folders by `owner/name` and revision; what was asked for is kept."""

    repositories: Mapping[str, Mapping[str, Path]]
    gated: frozenset[str] = frozenset()
    pauses: dict[str, float] = field(default_factory=dict)  # repository -> seconds before it sends a stored file
    url: str = ""
    asked: list[str] = field(default_factory=list)  # method, path and status
    past: dict[str, tuple[str, Path]] = field(
        default_factory=dict
    )  # commit -> repository and folder, of what was replaced
    pushes: dict[tuple[str, str], int] = field(default_factory=dict)  # (repository, revision) -> how often it moved

    def push(self, name: str, folder: Path, revision: str = "main") -> None:
        """Moves a branch to a new commit, whose files are in `folder`; the old commit stays."""
        self.past[self.commit(name, revision)] = (name, self.repositories[name][revision])
        self.repositories = {**self.repositories, name: {**self.repositories[name], revision: folder}}
        self.pushes[name, revision] = self.pushes.get((name, revision), 0) + 1

    def sent(self) -> list[str]:
        """The files that were downloaded, `owner/name@revision/file`, once for each time."""
        revisions = {self.commit(name, key): key for name, known in self.repositories.items() for key in known}
        asked = [line.split() for line in self.asked]
        found = [FILE.fullmatch(path) for method, path, status in asked if (method, status) == ("GET", "200")]
        return [
            f"{match['name']}@{revisions.get(match['revision'], match['revision'])}/{match['file']}"
            for match in filter(None, found)
        ]

    def commit(self, name: str, revision: str) -> str:
        """The hash of the commit that a branch or tag means."""
        moved = self.pushes.get((name, revision), 0)
        return hashlib.sha1(f"{name}@{revision}{f' {moved}' if moved else ''}".encode()).hexdigest()

    def folder(self, name: str, revision: str | None) -> tuple[str, Path] | None:
        """The commit and folder of a branch, tag or commit."""
        revisions = self.repositories[name]
        for known, folder in revisions.items():
            if revision in (known, self.commit(name, known)) or (revision is None and known == "main"):
                return self.commit(name, known), folder
        owner, folder = self.past.get(revision or "", ("", None))
        return (revision, folder) if owner == name else None


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_HEAD(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if path == "/":
            self._send(200)
        elif match := API.fullmatch(path):
            self._describe(**match.groupdict())
        elif match := FILE.fullmatch(path):
            self._give(**match.groupdict())
        else:
            self._send(501)

    do_GET = do_POST = do_HEAD

    def _describe(self, name: str, what: str | None, revision: str | None, below: str | None) -> None:
        found = self._find(name, revision)
        if found is None:
            return
        commit, folder = found
        if what == "tree":
            recursive = "recursive=true" in self.path.lower()
            within = folder / (below or "")
            paths = sorted(within.rglob("*") if recursive else within.glob("*"))
            self._send(200, json.dumps([entry(path, folder) for path in paths]).encode())
        elif what == "paths-info":
            asked = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())["paths"]
            paths = [folder / path for path in asked if (folder / path).exists()]
            self._send(200, json.dumps([entry(path, folder) for path in paths]).encode())
        else:
            info = {"id": name, "modelId": name, "sha": commit, "private": False, "gated": name in self.hub.gated}
            files = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
            siblings = [{"rfilename": file} for file in files]
            self._send(200, json.dumps(info | {"tags": [], "downloads": 0, "likes": 0, "siblings": siblings}).encode())

    def _give(self, name: str, revision: str, file: str) -> None:
        found = self._find(name, revision)
        if found is None:
            return
        commit, folder = found
        path, about = folder / file, {"X-Repo-Commit": commit}
        if name in self.hub.gated:
            self._send(403, **about, **{"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted"})
        elif not path.is_file():
            self._send(404, **about, **{"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"})
        elif path.suffix in WEIGHTS and "stored" not in self.path:
            linked = {"X-Linked-Etag": f'"{etag(path)}"', "X-Linked-Size": str(path.stat().st_size)}
            self._send(302, **about, **linked, Location=f"{self.hub.url}{self.path}?stored")
        else:
            if "stored" in self.path and self.command == "GET":
                time.sleep(self.hub.pauses.get(name, 0))
            self._send(200, path.read_bytes(), ETag=f'"{etag(path)}"', **about)

    def _find(self, name: str, revision: str | None) -> tuple[str, Path] | None:
        if name not in self.hub.repositories:
            self._send(401, **{"X-Error-Code": "RepoNotFound", "X-Error-Message": "Invalid username or password."})
            return None
        found = self.hub.folder(name, revision)
        if found is None:
            self._send(404, **{"X-Error-Code": "RevisionNotFound", "X-Error-Message": f"Invalid rev id: {revision}"})
        return found

    def _send(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.hub.asked.append(f"{self.command} {urlsplit(self.path).path} {status}")
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Not on the console of a test."""


def entry(path: Path, folder: Path) -> dict[str, object]:
    """A file or folder in a list of files."""
    place = path.relative_to(folder).as_posix()
    if path.is_dir():
        return {"type": "directory", "path": place, "oid": "0" * 40}
    return {"type": "file", "path": place, "size": path.stat().st_size, "oid": etag(path)}


def etag(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()


def send_downloads_to(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sends this process's downloads to an address; tests are without a network otherwise."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(hf_api.api, "endpoint", url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    )
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", url)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    forget()


def forget() -> None:
    """Makes this process as one that has not asked the hub for anything yet."""
    hub_module._connect.cache_clear()
    hub_module._pinned.cache_clear()
    hub_module._unidentified.clear()


@contextmanager
def served(hub: Hub) -> Iterator[Hub]:
    """Serves `hub` at `hub.url` while the context lasts."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("AnswerOfHub", (Answer,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
