"""A Hub on the loopback: speaks the Hugging Face Hub's HTTP protocol to the real client.

Repositories are lists of commits; large files go by LFS (batch, upload, verify) as in a repository
without Xet. Faults are put in by hand: `hub.fault("POST", "/commit/", status=412)` is met once.
Written from what huggingface_hub 2.4 sends and reads; nothing of the client is replaced.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LFS_SUFFIXES = (".safetensors", ".db", ".gz", ".png", ".jpg")
_PREFIX = {"models": "", "datasets": "datasets/", "spaces": "spaces/"}
_NO_REPO = {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}


def git_hash(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass
class Commit:
    oid: str
    message: str
    files: dict[str, bytes]


@dataclass
class Repo:
    kind: str
    name: str
    private: bool = False
    settings: dict[str, Any] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    commits: list[Commit] = field(default_factory=list)

    def commit(self, message: str, files: dict[str, bytes]) -> Commit:
        """One commit more, holding exactly `files`."""
        told = json.dumps([len(self.commits), self.name, message, sorted(files)])
        oid = hashlib.sha1(told.encode() + b"".join(files[k] for k in sorted(files))).hexdigest()
        self.commits.append(Commit(oid, message, dict(files)))
        return self.commits[-1]

    @property
    def head(self) -> Commit:
        return self.commits[-1]

    def at(self, revision: str) -> Commit | None:
        if revision == "main":
            return self.head
        return next((c for c in self.commits if c.oid == revision), None)


@dataclass
class Fault:
    """What happens to the next `times` requests of that method whose path holds `where`."""

    method: str
    where: str
    times: int
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False  # half the body arrives
    lost: bool = False  # done, but the answer is never sent
    call: Callable[[], None] | None = None  # before anything is done


class HubServer:
    """State of the loopback Hub; `serve()` starts it."""

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}
        self.lfs: dict[str, bytes] = {}
        self.jobs: list[dict[str, Any]] = []
        self.tokens = {"hf_write": ("acme", True), "hf_read": ("guest", False)}
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str]] = []
        self.authorizations: list[tuple[str, str | None]] = []  # path and header, as they came
        self.lock = threading.RLock()
        self.endpoint = ""
        self.storage = ""  # another host name: where large files are, as with the real one

    def fault(self, method: str, where: str, times: int = 1, **what: Any) -> None:
        self.faults.append(Fault(method, where, times, **what))

    def repo(self, name: str, kind: str = "models") -> Repo:
        return self.repos[kind, name]

    def count(self, method: str, where: str) -> int:
        """How many requests of that method had `where` in their path."""
        return sum(m == method and where in path for m, path in self.requests)

    def fault_for(self, method: str, path: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.times > 0 and fault.method == method and fault.where in path:
                    fault.times -= 1
                    return fault
        return None


@contextmanager
def serve() -> Iterator[HubServer]:
    """A running Hub; its `endpoint` is where the client is to look."""
    hub = HubServer()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    port = server.server_address[1]
    hub.endpoint, hub.storage = f"http://127.0.0.1:{port}", f"http://localhost:{port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or every answer waits 40 ms for an acknowledgement
    routes = (
        ("GET", r"/api/whoami-v2", "whoami"),
        ("POST", r"/api/validate-yaml", "validate_yaml"),
        ("POST", r"/api/repos/create", "create"),
        ("POST", r"/api/(models|datasets|spaces)/([^/]+/[^/]+)/preupload/([^/]+)", "preupload"),
        ("POST", r"/api/(models|datasets|spaces)/([^/]+/[^/]+)/commit/([^/]+)", "commit"),
        ("POST", r"/api/(models|datasets|spaces)/([^/]+/[^/]+)/paths-info/([^/]+)", "paths_info"),
        ("GET", r"/api/(models|datasets|spaces)/([^/]+/[^/]+)/tree/([^/]+)", "tree"),
        ("GET", r"/api/(models|datasets|spaces)/([^/]+/[^/]+)(?:/revision/([^/]+))?", "info"),
        ("POST", r"/api/(spaces)/([^/]+/[^/]+)/(secrets|variables)", "space_setting"),
        ("PUT", r"/api/(spaces)/([^/]+/[^/]+)/volumes", "volumes"),
        ("POST", r"/api/scheduled-jobs/([^/]+)", "schedule"),
        ("GET", r"/api/scheduled-jobs/([^/]+)", "scheduled"),
        ("DELETE", r"/api/scheduled-jobs/([^/]+)/([^/]+)", "unschedule"),
        ("POST", r"/(datasets/|spaces/|)([^/]+/[^/]+)\.git/info/lfs/objects/batch", "batch"),
        ("PUT", r"/lfs/([0-9a-f]{64})", "upload"),
        ("POST", r"/lfs/verify", "verify"),
        ("GET", r"/lfs/([0-9a-f]{64})", "download"),
        ("GET", r"/(datasets/|spaces/|)([^/]+/[^/]+)/resolve/([^/]+)/(.+)", "resolve"),
        ("HEAD", r"/(datasets/|spaces/|)([^/]+/[^/]+)/resolve/([^/]+)/(.+)", "resolve"),
    )

    def log_message(self, *_: Any) -> None:
        """Quiet: the tests' output is the tests'."""

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the client was killed, as some tests want it

    def do_GET(self) -> None:
        self._serve()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def _serve(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.body = self._read_body()
        self.hub.requests.append((self.command, path))
        self.hub.authorizations.append((path, self.headers.get("Authorization")))
        self.fault = self.hub.fault_for(self.command, path)
        if self.fault is not None and self.fault.call is not None:
            self.fault.call()
        if self.fault is not None and self.fault.status is not None:
            self._answer(self.fault.status, {"error": "as the test wants it"}, self.fault.headers)
            return
        header = self.headers.get("Authorization", "")
        self.user, self.may_write = self.hub.tokens.get(
            header.removeprefix("Bearer "), (None, False)
        )
        if header and self.user is None:
            message = "Invalid credentials in Authorization header"
            self._answer(401, {"error": message}, {"X-Error-Message": message})
            return
        for method, pattern, name in self.routes:
            found = re.fullmatch(pattern, path)
            if method == self.command and found:
                with self.hub.lock:
                    getattr(self, f"_{name}")(*found.groups())
                return
        self._answer(404, {"error": f"no route {self.command} {path}"})

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(
        self,
        status: int,
        payload: Any = None,
        headers: dict[str, str] | None = None,
        *,
        raw: bytes | None = None,
    ) -> None:
        data = raw if raw is not None else b"" if payload is None else json.dumps(payload).encode()
        if self.fault is not None and self.fault.lost:
            self.close_connection = True
            return
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.fault is not None and self.fault.cut:
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
            return
        self.wfile.write(data)

    def _found(self, kind: str, name: str) -> Repo | None:
        """The repository, if there is one that this user may see; else the answer is given."""
        repo = self.hub.repos.get((kind, name))
        if repo is None or (repo.private and self.user != name.partition("/")[0]):
            status = 404 if self.user else 401
            self._answer(status, {"error": "Repository not found"}, _NO_REPO)
            return None
        return repo

    def _may_write(self, name: str) -> bool:
        if self.may_write and self.user == name.partition("/")[0]:
            return True
        message = "You don't have the rights to write here"
        self._answer(403 if self.user else 401, {"error": message}, {"X-Error-Message": message})
        return False

    def _whoami(self) -> None:
        if self.user is None:
            self._answer(401, {"error": "Invalid username or password."})
            return
        self._answer(200, {"type": "user", "name": self.user, "orgs": [], "auth": {}})

    def _validate_yaml(self) -> None:
        content = json.loads(self.body)["content"]
        errors = [] if content.startswith("---\n") else [{"message": "no metadata"}]
        self._answer(400 if errors else 200, {"errors": errors, "warnings": []})

    def _create(self) -> None:
        wanted = json.loads(self.body)
        kind = wanted.get("type", "model") + "s"
        name = f"{wanted.get('organization') or self.user}/{wanted['name']}"
        if not self._may_write(name):
            return
        url = f"{self.hub.endpoint}/{_PREFIX[kind]}{name}"
        if (kind, name) in self.hub.repos:
            self._answer(409, {"error": "You already created this repo", "url": url})
            return
        repo = Repo(kind, name, private=wanted.get("visibility") == "private", settings=wanted)
        repo.commit("initial commit", {".gitattributes": b"*.safetensors filter=lfs\n"})
        self.hub.repos[kind, name] = repo
        self._answer(200, {"url": url})

    def _info(self, kind: str, name: str, revision: str | None) -> None:
        if (repo := self._found(kind, name)) is None:
            return
        commit = repo.at(revision or "main")
        if commit is None:
            self._answer(404, {"error": "x"}, {"X-Error-Code": "RevisionNotFound"})
            return
        files = [{"rfilename": path} for path in sorted(commit.files)]
        self._answer(200, {"id": name, "sha": commit.oid, "siblings": files, "tags": []})

    def _tree(self, kind: str, name: str, revision: str) -> None:
        if (repo := self._found(kind, name)) is None:
            return
        commit = repo.at(revision)
        assert commit is not None
        self._answer(200, [_entry(path, commit.files[path]) for path in sorted(commit.files)])

    def _paths_info(self, kind: str, name: str, revision: str) -> None:
        if (repo := self._found(kind, name)) is None:
            return
        commit = repo.at(revision)
        assert commit is not None
        wanted = parse_qs(self.body.decode())["paths"]
        known = [path for path in wanted if path in commit.files]
        self._answer(200, [_entry(path, commit.files[path]) for path in known])

    def _preupload(self, kind: str, name: str, revision: str) -> None:
        if (repo := self._found(kind, name)) is None or not self._may_write(name):
            return
        files = []
        for asked in json.loads(self.body)["files"]:
            path = asked["path"]
            mode = "lfs" if path.endswith(LFS_SUFFIXES) else "regular"
            held = repo.head.files.get(path)
            oid = None if held is None else _oid(path, held)
            files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._answer(200, {"files": files})

    def _batch(self, _: str, name: str) -> None:
        if not self._may_write(name):
            return
        objects = []
        for wanted in json.loads(self.body)["objects"]:
            entry: dict[str, Any] = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.hub.lfs:
                upload = {"href": f"{self.hub.storage}/lfs/{wanted['oid']}"}
                entry["actions"] = {
                    "upload": upload,
                    "verify": {"href": f"{self.hub.endpoint}/lfs/verify"},
                }
            objects.append(entry)
        self._answer(200, {"transfer": "basic", "objects": objects})

    def _upload(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            self._answer(400, {"error": "the bytes are not what their name says"})
            return
        self.hub.lfs[oid] = self.body
        self._answer(200, {})

    def _verify(self) -> None:
        wanted = json.loads(self.body)
        held = self.hub.lfs.get(wanted["oid"])
        self._answer(200 if held is not None and len(held) == wanted["size"] else 404, {})

    def _commit(self, kind: str, name: str, _: str) -> None:
        if (repo := self._found(kind, name)) is None or not self._may_write(name):
            return
        lines = [json.loads(line) for line in self.body.splitlines() if line]
        header = lines[0]["value"]
        parent = header.get("parentCommit")
        if parent is not None and parent != repo.head.oid:
            message = "A commit has happened since. Please refresh and try again."
            self._answer(412, {"error": message}, {"X-Error-Message": message})
            return
        files = dict(repo.head.files)
        for line in lines[1:]:
            value = line["value"]
            match line["key"]:
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile" if value["oid"] in self.hub.lfs:
                    files[value["path"]] = self.hub.lfs[value["oid"]]
                case "deletedFile":
                    del files[value["path"]]
                case other:
                    self._answer(422, {"error": f"{other} {value['path']} was never uploaded"})
                    return
        made = repo.commit(header["summary"], files)
        url = f"{self.hub.endpoint}/{_PREFIX[kind]}{name}/commit/{made.oid}"
        self._answer(200, {"success": True, "commitOid": made.oid, "commitUrl": url})

    def _resolve(self, prefix: str, name: str, revision: str, path: str) -> None:
        kind = prefix.rstrip("/") or "models"
        if (repo := self._found(kind, name)) is None:
            return
        commit = repo.at(revision)
        if commit is None:
            self._answer(404, {"error": "x"}, {"X-Error-Code": "RevisionNotFound"})
            return
        headers = {"X-Repo-Commit": commit.oid}
        data = commit.files.get(path)
        if data is None:
            missing = {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}
            self._answer(404, {"error": "Entry not found"}, headers | missing)
            return
        oid = _oid(path, data)
        if path.endswith(LFS_SUFFIXES):
            # The real one sends large files from elsewhere, where the token must not go.
            self.hub.lfs.setdefault(oid, data)
            headers |= {"X-Linked-Etag": f'"{oid}"', "X-Linked-Size": str(len(data))}
            headers["Location"] = f"{self.hub.storage}/lfs/{oid}"
            self._answer(302, None, headers)
            return
        self._answer(200, None, headers | {"ETag": f'"{oid}"'}, raw=data)

    def _download(self, oid: str) -> None:
        self._answer(200, None, {"ETag": f'"{oid}"'}, raw=self.hub.lfs[oid])

    def _space_setting(self, kind: str, name: str, what: str) -> None:
        if (repo := self._found(kind, name)) is None or not self._may_write(name):
            return
        told = json.loads(self.body)
        place = repo.secrets if what == "secrets" else repo.settings.setdefault("env", {})
        place[told["key"]] = told["value"]
        self._answer(200, {})

    def _volumes(self, kind: str, name: str) -> None:
        if (repo := self._found(kind, name)) is None or not self._may_write(name):
            return
        repo.settings["volumes"] = json.loads(self.body)["volumes"]
        self._answer(200, {})

    def _schedule(self, namespace: str) -> None:
        if not self._may_write(f"{namespace}/job"):
            return
        sent = json.loads(self.body)
        owner = {"id": "1", "name": namespace, "type": "user"}
        job = {**sent, "id": f"job{len(self.hub.jobs) + 1}", "owner": owner, "status": {}}
        self.hub.jobs.append(job)
        self._answer(200, _public(job))

    def _scheduled(self, namespace: str) -> None:
        self._answer(200, [_public(j) for j in self.hub.jobs if j["owner"]["name"] == namespace])

    def _unschedule(self, _: str, job_id: str) -> None:
        self.hub.jobs[:] = [job for job in self.hub.jobs if job["id"] != job_id]
        self._answer(200, {})


def _oid(path: str, data: bytes) -> str:
    return hashlib.sha256(data).hexdigest() if path.endswith(LFS_SUFFIXES) else git_hash(data)


def _entry(path: str, data: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(data)}
    if not path.endswith(LFS_SUFFIXES):
        return {**entry, "oid": git_hash(data)}
    oid = _oid(path, data)
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {len(data)}\n"
    lfs = {"oid": oid, "size": len(data), "pointerSize": len(pointer)}
    return {**entry, "oid": git_hash(pointer.encode()), "lfs": lfs}


def _public(job: dict[str, Any]) -> dict[str, Any]:
    """A job as it is shown: the Hub never tells a secret again."""
    spec = {key: value for key, value in job["jobSpec"].items() if key != "secrets"}
    return {**job, "jobSpec": spec}
