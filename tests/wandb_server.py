"""A stand-in for a W&B server on this machine: it answers what wandb-core asks, and remembers what it was told."""

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ENTITY = "someone"
KEY = "k" * 40  # a key in the form that W&B requires


@dataclass
class StoredRun:
    """A run as the server has it: the variables of each `upsertBucket`, and the lines of its history."""

    upserts: list[dict[str, Any]] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    exit_code: int | None = None

    def said(self, name: str) -> Any:
        """The last value of a variable that an `upsertBucket` of the run gave; None if none gave one."""
        return next((upsert[name] for upsert in reversed(self.upserts) if upsert.get(name) is not None), None)


class WandbServer:
    """The server. `refuses` makes it answer each request with that status; after `silence()` it answers nothing."""

    def __init__(self, refuses: int | None = None) -> None:
        self.runs: dict[str, StoredRun] = {}
        self.views: list[dict[str, Any]] = []  # the variables of each view that was saved
        self.artifacts: list[dict[str, Any]] = []  # the input of each artifact that was logged
        self.used: list[dict[str, Any]] = []  # the variables for each artifact that a run says it uses
        self.refuses = refuses
        self._silent, self._closed = threading.Event(), threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Answers", (_Answers,), {"owner": self}))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "WandbServer":
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()

    def silence(self) -> None:
        self._silent.set()

    def answer(self, path: str, request: dict[str, Any]) -> dict[str, Any]:
        if path == "/graphql":
            return {"data": self._query(request["query"], request.get("variables") or {})}
        if path.endswith("/file_stream"):
            return self._stream(self.runs.setdefault(path.split("/")[4], StoredRun()), request)
        return {}

    def wait_if_silent(self) -> bool:
        """Whether the server gives no answer; returns when the server is closed."""
        return self._silent.is_set() and self._closed.wait()

    def _query(self, query: str, given: dict[str, Any]) -> dict[str, Any]:
        if "RunResumeStatus" in query:
            run = self.runs.get(given["name"])
            return {"model": {"id": "1", "name": given["project"], "entity": _entity(), "bucket": run and _bucket(run)}}
        if "UpsertBucket" in query:
            known = given["name"] in self.runs
            self.runs.setdefault(given["name"], StoredRun()).upserts.append(given)
            project = {"id": "1", "name": given["project"], "entity": _entity()}
            bucket = {"id": "1", "name": given["name"], "displayName": given["displayName"], "config": "{}"}
            return {"upsertBucket": {"bucket": bucket | {"project": project}, "inserted": not known}}
        if "upsertView" in query:
            self.views.append(given)
            return {"upsertView": {"view": {"id": "1", "name": given["name"]}, "inserted": True}}
        if "CreateRunFiles" in query:
            files = [{"name": name, "uploadUrl": f"{self.url}/storage/{name}"} for name in given["files"]]
            return {"createRunFiles": {"runID": "1", "uploadHeaders": [], "files": files}}
        if "createArtifact" in query:  # one that the server has already, so that no file is uploaded
            self.artifacts.append(given["input"])
            known = {"id": "1", "state": "COMMITTED", "artifactSequence": {"id": "1", "latestArtifact": None}}
            return {"createArtifact": {"artifact": known}}
        if "useArtifact" in query:
            self.used.append(given)
            return {"useArtifact": {"artifact": {"id": "1", "digest": "", "description": None, "metadata": None}}}
        if "viewer" in query:
            return {"viewer": {"id": "1", "entity": ENTITY, "username": ENTITY, "flags": "{}", "teams": {"edges": []}}}
        return {}

    def _stream(self, run: StoredRun, request: dict[str, Any]) -> dict[str, Any]:
        chunk = request.get("files", {}).get("wandb-history.jsonl")
        if chunk:  # as the server does: lines from `offset` on are replaced
            run.history[chunk["offset"] :] = map(json.loads, chunk["content"])
        if request.get("complete"):
            run.exit_code = request["exitcode"]
        return {}


class _Answers(BaseHTTPRequestHandler):
    owner: WandbServer

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.owner.wait_if_silent():
            return
        status = self.owner.refuses or 200
        answered = b"{}"
        if status == 200 and (self.path == "/graphql" or self.path.endswith("/file_stream")):
            answered = json.dumps(self.owner.answer(self.path, json.loads(body))).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answered)))
        self.end_headers()
        self.wfile.write(answered)

    do_GET = do_PUT = do_POST


def _entity() -> dict[str, Any]:
    return {"id": "1", "name": ENTITY}


def _bucket(run: StoredRun) -> dict[str, Any]:
    tail = json.dumps([json.dumps(line) for line in run.history[-1:]])
    counts = {"historyLineCount": len(run.history), "logLineCount": 0, "eventsLineCount": 0}
    described = {"displayName": run.said("displayName"), "tags": [], "notes": None, "config": "{}"}
    tails = {"historyTail": tail, "eventsTail": "[]", "summaryMetrics": "{}", "wandbConfig": '{"t": 1}'}
    return {"id": "1", "name": "1"} | counts | described | tails
