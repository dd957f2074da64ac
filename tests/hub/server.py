"""A small faithful Hub on loopback, in memory: all that huggingface_hub's client asks for, and every call can go wrong.

    with HubServer({"writer": "hf_..."}) as hub:
        hub.faults = [Fault(7, Wrong.lost_answer)]
        HfApi(endpoint=hub.url, token=...)

Requests are counted from 1. It proves what our client does, not what the real service does (which stores content in
Xet; HF_HUB_DISABLE_XET=1 is needed here).
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.hub.server_repos import ATTRIBUTES, Failure, Repo, blob_of

PAGE = 40  # entries of a tree in one answer
BUSY_S = 0.2


class Wrong(Enum):
    """What can go wrong with a request."""

    error = "500"
    unavailable = "503"
    too_many = "429, with Retry-After"
    refused = "the connection drops before anything happens"
    lost_answer = "it happens, and the connection drops before the answer"
    slow = "it takes a while"


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong: with request ``number`` of the server (from 1), or with the first of ``what``.

    what: a regular expression on ``METHOD /path``. times: how often.
    """

    number: int
    wrong: Wrong
    what: str = ""
    times: int = 1


@dataclass
class HubServer:
    """The server. tokens: token -> the user who may write to every repository; others may read what is public.

    repos: by id. requests: ``METHOD /path`` of all. before, after: called with a request's number before it has an
    effect and before it is answered. flip: paths whose content is served with one byte changed.
    """

    tokens: dict[str, str] = field(default_factory=dict)
    readers: set[str] = field(default_factory=set)
    faults: list[Fault] = field(default_factory=list)
    repos: dict[str, Repo] = field(default_factory=dict)
    content: dict[str, bytes] = field(default_factory=lambda: {blob_of(ATTRIBUTES)["sha256"]: ATTRIBUTES})
    requests: list[str] = field(default_factory=list)
    flip: set[str] = field(default_factory=set)
    before: Callable[[int], None] = lambda number: None
    after: Callable[[int], None] = lambda number: None

    def __enter__(self) -> HubServer:
        self.lock = threading.RLock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": self}))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def commits(self, repo: str, branch: str = "main") -> int:
        """How many commits a branch has, its first not counted."""
        return self.repos[repo].depth(branch) - 1

    def fault_of(self, number: int, request: str) -> Wrong | None:
        """What goes wrong with this request."""
        for place, fault in enumerate(self.faults):
            if fault.number == number or (fault.what and re.search(fault.what, request)):
                left = [Fault(fault.number, fault.wrong, fault.what, fault.times - 1)] if fault.times > 1 else []
                self.faults[place : place + 1] = left
                return fault.wrong
        return None


@dataclass
class Answer:
    """What is sent back."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, content: Any, status: int = 200, **headers: str) -> Answer:
        """JSON."""
        return cls(status, json.dumps(content).encode(), {"Content-Type": "application/json", **headers})


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    hub: HubServer
    protocol_version = "HTTP/1.1"

    def handle_one_request(self) -> None:
        """As usual; a client that was killed is no error."""
        try:
            super().handle_one_request()
        except ConnectionError:
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Any request: counted, disturbed, answered."""
        split = urlsplit(self.path)
        self.route, self.query = unquote(split.path), parse_qs(split.query)
        body = self._body()
        request = f"{self.command} {self.route}"
        with self.hub.lock:
            self.hub.requests.append(request)
            number = len(self.hub.requests)
            wrong = self.hub.fault_of(number, request)
        self.hub.before(number)
        if wrong in (Wrong.error, Wrong.unavailable, Wrong.too_many):
            return self._send(Answer.of({"error": wrong.value}, int(wrong.value[:3]), **{"Retry-After": "0"}))
        if wrong is Wrong.refused:
            return self._drop()
        if wrong is Wrong.slow:
            time.sleep(BUSY_S)
        with self.hub.lock:
            answer = self._answer(body)
        self.hub.after(number)
        return self._drop() if wrong is Wrong.lost_answer else self._send(answer)

    do_POST = do_PUT = do_HEAD = do_GET

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().strip() or b"0", 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _drop(self) -> None:
        self.close_connection = True
        self.connection.shutdown(2)

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for key, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def _answer(self, body: bytes) -> Answer:
        for methods, pattern, way in ROUTES:
            if self.command in methods and (found := re.fullmatch(pattern, self.route)):
                try:
                    return way(self, body, **found.groupdict())
                except Failure as failure:
                    headers = {"X-Error-Code": failure.code} if failure.code else {}
                    headers["X-Error-Message"] = failure.message
                    return Answer.of({"error": failure.message, **failure.more}, failure.status, **headers)
        return Answer.of({"error": f"no such call: {self.command} {self.route}"}, 404)

    def _user(self) -> str | None:
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if given and given not in self.hub.tokens and given not in self.hub.readers:
            raise Failure(401, "Invalid credentials in Authorization header")
        return self.hub.tokens.get(given)

    def _repo(self, repo: str, *, write: bool = False) -> Repo:
        user, found = self._user(), self.hub.repos.get(repo)
        if found is None or (found.private and user is None):
            raise Failure(401 if user is None else 404, "Repository not found", "RepoNotFound")
        if write and user is None:
            signed_in = bool(self.headers.get("Authorization"))
            raise Failure(403 if signed_in else 401, "you have no right to write to this repository")
        return found

    def create(self, body: bytes) -> Answer:
        """POST /api/repos/create"""
        asked = json.loads(body)
        if self._user() is None:
            raise Failure(403 if self.headers.get("Authorization") else 401, "you may not create repositories here")
        repo = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
        if repo in self.hub.repos:
            raise Failure(409, "You already created this model repo")
        private = asked.get("private") is True or asked.get("visibility") == "private"
        self.hub.repos[repo] = Repo(repo, private)
        return Answer.of({"url": f"{self.hub.url}/{repo}", "name": repo, "id": repo})

    def validate(self, body: bytes) -> Answer:
        """POST /api/validate-yaml"""
        import yaml

        text = json.loads(body)["content"]
        try:
            front = yaml.safe_load(text.split("---")[1]) if text.startswith("---") else {}
            wrong = [] if isinstance(front, dict) else ["the metadata is no mapping"]
        except yaml.YAMLError as error:
            wrong = [str(error)]
        answer = {"errors": [{"message": message} for message in wrong], "warnings": []}
        return Answer.of(answer, 400 if wrong else 200)

    def preupload(self, body: bytes, repo: str, revision: str) -> Answer:
        """POST /api/models/ID/preupload/REVISION"""
        found = self._repo(repo, write=True)
        tree, files = found.tree(revision), []
        for asked in json.loads(body)["files"]:
            sample = base64.b64decode(asked["sample"])
            there = tree.get(asked["path"])
            large = asked["path"].endswith((".safetensors", ".bin", ".onnx")) or b"\0" in sample
            mode = "lfs" if large else "regular"
            oid = there and there["oid" if not large else "sha256"]
            files.append({"path": asked["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return Answer.of({"files": files})

    def batch(self, body: bytes, repo: str) -> Answer:
        """POST /ID.git/info/lfs/objects/batch"""
        self._repo(repo, write=True)
        objects = []
        for asked in json.loads(body)["objects"]:
            there = asked["oid"] in self.hub.content
            upload = {"upload": {"href": f"{self.hub.url}/lfs/{asked['oid']}", "header": {}}}
            objects.append({**asked, **({} if there else {"actions": upload})})
        return Answer.of({"transfer": "basic", "objects": objects})

    def put(self, body: bytes, oid: str) -> Answer:
        """PUT of large content; it must be what its name says."""
        if hashlib.sha256(body).hexdigest() != oid:
            raise Failure(400, "the content's sha256 is another one")
        self.hub.content[oid] = body
        return Answer()

    def commit(self, body: bytes, repo: str, revision: str) -> Answer:
        """POST /api/models/ID/commit/REVISION: all or nothing."""
        found = self._repo(repo, write=True)
        lines = [json.loads(line) for line in body.splitlines()]
        tree, header = dict(found.tree(revision, branch=True)), lines[0]["value"]
        if header.get("parentCommit") not in (None, found.branches[revision]):
            raise Failure(412, "A commit has happened since. Please refresh and try again.")
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                blob = base64.b64decode(value["content"])
                tree[value["path"]] = blob_of(blob)
                self.hub.content[tree[value["path"]]["sha256"]] = blob
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.hub.content:
                    raise Failure(400, f"the content of {value['path']} was not uploaded")
                pointer = f"oid sha256:{value['oid']}".encode()
                whole = blob_of(self.hub.content[value["oid"]])
                tree[value["path"]] = {**whole, "oid": blob_of(pointer)["oid"], "lfs": True}
            elif value["path"] in tree:
                del tree[value["path"]]
            else:
                raise Failure(404, "A file with this name doesn't exist", "EntryNotFound")
        oid = found.commit(revision, tree, header["summary"])
        return Answer.of({"commitUrl": f"{self.hub.url}/{repo}/commit/{oid}", "commitOid": oid})

    def info(self, _: bytes, repo: str, revision: str = "main") -> Answer:
        """GET /api/models/ID[/revision/REVISION]"""
        found = self._repo(repo)
        siblings = [{"rfilename": path} for path in sorted(found.tree(revision))]
        facts = {"_id": repo, "id": repo, "modelId": repo, "private": found.private, "tags": [], "siblings": siblings}
        return Answer.of({**facts, "sha": found.resolve(revision)})

    def list(self, _: bytes, repo: str, revision: str) -> Answer:
        """GET /api/models/ID/tree/REVISION, a page at a time."""
        tree = sorted(self._repo(repo).tree(revision).items())
        start = int(self.query.get("cursor", ["0"])[0])
        entries = []
        for path, blob in tree[start : start + PAGE]:
            entry = {"type": "file", "path": path, "size": blob["size"], "oid": blob["oid"]}
            if blob.get("lfs"):
                entry["lfs"] = {"oid": blob["sha256"], "size": blob["size"], "pointerSize": 134}
            entries.append(entry)
        more = f'<{self.hub.url}{self.route}?recursive=true&cursor={start + PAGE}>; rel="next"'
        return Answer.of(entries, 200, **({"Link": more} if start + PAGE < len(tree) else {}))

    def refs(self, _: bytes, repo: str) -> Answer:
        """GET /api/models/ID/refs"""
        found = self._repo(repo)
        kinds = {"branches": ("heads", found.branches), "tags": ("tags", found.tags)}
        listed = {
            kind: [{"name": name, "ref": f"refs/{inside}/{name}", "targetCommit": oid} for name, oid in refs.items()]
            for kind, (inside, refs) in kinds.items()
        }
        return Answer.of({**listed, "converts": []})

    def tag(self, body: bytes, repo: str, revision: str) -> Answer:
        """POST /api/models/ID/tag/REVISION"""
        found, name = self._repo(repo, write=True), json.loads(body)["tag"]
        if name in found.tags:
            raise Failure(409, f"Tag {name} exists")
        found.tags[name] = found.resolve(revision)
        return Answer()

    def branch(self, body: bytes, repo: str, name: str) -> Answer:
        """POST /api/models/ID/branch/NAME"""
        found = self._repo(repo, write=True)
        if name in found.branches:
            raise Failure(409, f"Branch {name} exists")
        found.branches[name] = found.resolve(json.loads(body or b"{}").get("startingPoint") or "main")
        return Answer()

    def serve(self, _: bytes, repo: str, revision: str, path: str) -> Answer:
        """HEAD and GET /ID/resolve/REVISION/PATH, whole or in part."""
        found = self._repo(repo)
        blob = found.tree(revision).get(path)
        if blob is None:
            raise Failure(404, "Entry not found", "EntryNotFound")
        body = self.hub.content[blob["sha256"]]
        if path in self.hub.flip:
            body = body[:-1] + bytes([body[-1] ^ 1])
        etag = blob["sha256"] if blob.get("lfs") else blob["oid"]
        headers = {"X-Repo-Commit": found.resolve(revision), "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
        if blob.get("lfs"):
            headers |= {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(body))}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            return Answer(200, body, headers)
        first, last = int(asked[1]), int(asked[2] or len(body) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(body)}"
        return Answer(206, body[first : last + 1], headers)


ID, REVISION = r"(?P<repo>[^/]+/[^/]+)", r"(?P<revision>.+)"
ROUTES: list[tuple[tuple[str, ...], str, Callable[..., Answer]]] = [
    (("POST",), "/api/repos/create", Handler.create),
    (("POST",), "/api/validate-yaml", Handler.validate),
    (("POST",), f"/api/models/{ID}/preupload/{REVISION}", Handler.preupload),
    (("POST",), f"/{ID}.git/info/lfs/objects/batch", Handler.batch),
    (("PUT",), "/lfs/(?P<oid>[0-9a-f]{64})", Handler.put),
    (("POST",), f"/api/models/{ID}/commit/{REVISION}", Handler.commit),
    (("GET",), f"/api/models/{ID}/tree/{REVISION}", Handler.list),
    (("GET",), f"/api/models/{ID}/refs", Handler.refs),
    (("POST",), f"/api/models/{ID}/tag/{REVISION}", Handler.tag),
    (("POST",), f"/api/models/{ID}/branch/(?P<name>.+)", Handler.branch),
    (("GET",), f"/api/models/{ID}/revision/{REVISION}", Handler.info),
    (("GET",), f"/api/models/{ID}", Handler.info),
    (("GET", "HEAD"), f"/{ID}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", Handler.serve),
]
