"""A Hub on the loopback: as much of its file API as the real client needs to fetch and push, with faults."""

import base64
import hashlib
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LFS_SUFFIXES = (".safetensors", ".bin", ".pt")


@dataclass
class Repository:
    """Commits by hash, each a mapping of names to bytes, and what branches and tags stand for."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    references: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes], *references: str) -> str:
        """Add a commit and let these names stand for it; `main` does always."""
        said = json.dumps(
            [len(self.commits), sorted((n, hashlib.sha1(c).hexdigest()) for n, c in files.items())]
        )
        commit = hashlib.sha1(said.encode()).hexdigest()
        self.commits[commit] = dict(files)
        self.references.update(dict.fromkeys(("main", *references), commit))
        return commit

    def find(self, revision: str) -> str | None:
        return self.references.get(revision, revision if revision in self.commits else None)


@dataclass
class Fault:
    """What goes wrong with the requests whose method and path hold these texts, at most `times` times.

    Args:
        status: answer with this status, these headers and this body instead.
        drop_after: send so many bytes of the body, then cut the connection.
        corrupt: change the first byte of the body.
        short: end the body, as if whole, so many bytes too early.
        whole: send the whole body where a range is asked for.
        stall: wait so many seconds, after what is sent of the body, or before it where all is.
    """

    method: str
    path: str
    times: int = 1_000
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""
    drop_after: int = -1
    corrupt: bool = False
    short: int = 0
    whole: bool = False
    stall: float = 0


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]
    store: bool


@dataclass
class Hub:
    """The Hub's state, and every request that was made.

    LFS files are served by redirection to a second host, as the Hub does from its store.
    """

    repositories: dict[str, Repository] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)
    token: str = "hf_secretsecretsecret"
    may_write: bool = True
    endpoint: str = ""
    store: str = ""
    ended: threading.Event = field(default_factory=threading.Event)

    def repository(self, name: str) -> Repository:
        return self.repositories.setdefault(name, Repository())

    def asked(self, method: str, *parts: str) -> list[Request]:
        """The requests of a method whose path holds all these texts."""
        return [r for r in self.requests if r.method == method and all(part in r.path for part in parts)]

    def fault(self, request: Request) -> Fault | None:
        for fault in self.faults:
            if fault.times > 0 and fault.method == request.method and fault.path in request.path:
                fault.times -= 1
                return fault
        return None


@contextmanager
def serve() -> Iterator[Hub]:
    """Run a Hub until the block ends; `endpoint` is what HF_ENDPOINT is to be."""
    hub = Hub()
    servers = [_server(hub, store) for store in (False, True)]
    hub.endpoint, hub.store = (f"http://127.0.0.1:{server.server_address[1]}" for server in servers)
    threads = [threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield hub
    finally:
        hub.ended.set()
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            server.server_close()
            thread.join()


def _server(hub: Hub, store: bool) -> ThreadingHTTPServer:
    handler = type("Handler", (_Handler,), {"hub": hub, "store": store})
    return _Server(("127.0.0.1", 0), handler)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def git_hash(content: bytes) -> str:
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


def _tree(files: Mapping[str, bytes], folder: str) -> list[dict[str, Any]]:
    """The files and folders directly in a folder, as the Hub lists them."""
    under = f"{folder}/" if folder else ""
    inside = [path for path in files if path.startswith(under)]
    names = {path.removeprefix(under).partition("/")[0] for path in inside if "/" in path.removeprefix(under)}
    folders = [{"type": "directory", "path": under + name, "oid": "", "size": 0} for name in sorted(names)]
    return folders + [_entry(path, files[path]) for path in inside if "/" not in path.removeprefix(under)]


def _entry(path: str, content: bytes) -> dict[str, Any]:
    return {"type": "file", "path": path, "size": len(content), "oid": git_hash(content)}


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """Keep stderr clean when a client is killed."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub
    store: bool

    def log_message(self, *_: Any) -> None:
        """Keep stderr clean."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.sent = self.rfile.read(length)
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, self.path, headers, self.store)
        self.hub.requests.append(request)
        self.fault = self.hub.fault(request)
        if self.fault and self.fault.status:
            self._reply(self.fault.status, self.fault.body.encode(), self.fault.headers)
            return
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        if self.store:
            self._from_store(parts[-1])
        elif parts[0] == "api":
            self._api(parts[1:])
        elif parts[0] == "datasets" and parts[3] == "resolve":
            self._resolve("/".join(parts[:3]), parts[4], "/".join(parts[5:]))
        elif len(parts) > 3 and parts[2] == "resolve":
            self._resolve("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        elif parts[2:] == ["info", "lfs", "objects", "batch"]:
            self._batch()
        elif parts == ["lfs", "verify"]:
            said = json.loads(self.sent)
            right = len(self.hub.blobs.get(said["oid"], b"")) == said["size"]
            self._reply(200 if right else 404, b"{}")
        else:
            self._reply(404, b"{}")

    def _api(self, parts: list[str]) -> None:
        if parts == ["repos", "create"]:
            self._create()
        elif parts == ["validate-yaml"]:
            self._json({"errors": [], "warnings": []})
        elif parts[0] == "datasets":
            self._dataset("/".join(parts[:3]), parts[3:])
        elif parts[0] == "models" and len(parts) in (3, 5):
            name = "/".join(parts[1:3])
            repository = self.hub.repositories.get(name)
            if repository is None:
                self._error(401, "RepoNotFound", "Invalid username or password.")
            elif len(parts) == 3 or parts[3] == "revision":
                self._information(name, repository, parts[4] if len(parts) == 5 else "main")
            elif not self._is_writer():
                self._error(403, "", "Forbidden: you need write access")
            elif parts[3] == "preupload":
                self._preupload()
            elif parts[3] == "commit":
                self._commit(name, repository)
            else:
                self._reply(404, b"{}")
        else:
            self._reply(404, b"{}")

    def _dataset(self, name: str, parts: list[str]) -> None:
        """Answer for a set of data, which is called `datasets/org/name` among the repositories."""
        repository = self.hub.repositories.get(name)
        if repository is None:
            self._error(401, "RepoNotFound", "Invalid username or password.")
        elif parts[:1] == ["tree"]:
            commit = repository.find(parts[1])
            self._json(_tree(repository.commits[commit or ""], "/".join(parts[2:])))
        elif parts[:1] == ["paths-info"]:
            said = parse_qs(self.sent.decode()).get("paths", [])
            files = repository.commits[repository.find(parts[1]) or ""]
            self._json([_entry(path, files[path]) for path in said if path in files])
        else:
            self._information(name.removeprefix("datasets/"), repository, parts[1] if parts else "main")

    def _information(self, name: str, repository: Repository, revision: str) -> None:
        commit = repository.find(revision)
        if commit is None:
            self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return
        siblings = [{"rfilename": path} for path in repository.commits[commit]]
        self._json({"id": name, "modelId": name, "sha": commit, "siblings": siblings, "tags": []})

    def _resolve(self, name: str, revision: str, path: str) -> None:
        repository = self.hub.repositories.get(name)
        commit = repository and repository.find(revision)
        if repository is None or commit is None:
            self._error(404, "RevisionNotFound" if repository else "RepoNotFound", "Not found")
            return
        content = repository.commits[commit].get(path)
        if content is None:
            self._error(404, "EntryNotFound", "Entry not found")
            return
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if not path.endswith(LFS_SUFFIXES):
            self._body(content, {**headers, "ETag": f'"{git_hash(content)}"'})
            return
        digest = sha256(content)
        self.hub.blobs[digest] = content
        headers |= {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(content))}
        # what the Hub says of a file in its newer store too: a client that may not use it goes on by HTTP
        headers |= {"X-Xet-Hash": digest, "X-Xet-Refresh-Route": f"{self.hub.endpoint}/api/xet"}
        self._reply(302, b"", {**headers, "Location": f"{self.hub.store}/{digest}?signed=yes"})

    def _from_store(self, digest: str) -> None:
        if self.command == "PUT":
            self.hub.blobs[digest] = self.sent
            self._reply(200, b"")
        else:
            self._body(self.hub.blobs[digest], {"ETag": f'"{digest}"', "Accept-Ranges": "bytes"})

    def _is_writer(self) -> bool:
        return self.hub.may_write and self.headers.get("Authorization") == f"Bearer {self.hub.token}"

    def _create(self) -> None:
        said = json.loads(self.sent)
        name = f"{said['organization']}/{said['name']}"
        url = f"{self.hub.endpoint}/{name}"
        if name in self.hub.repositories:
            self._json({"error": "You already created this model repo", "url": url}, 409)
        elif not self._is_writer():
            self._error(403, "", "You don't have the rights to create a model under this namespace")
        else:
            self.hub.repository(name).commit({})
            self._json({"url": url})

    def _preupload(self) -> None:
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(LFS_SUFFIXES) else "regular",
                "shouldIgnore": False,
                "oid": None,
            }
            for file in json.loads(self.sent)["files"]
        ]
        self._json({"files": files})

    def _batch(self) -> None:
        objects = []
        for said in json.loads(self.sent)["objects"]:
            actions = {
                "upload": {"href": f"{self.hub.store}/{said['oid']}"},
                "verify": {"href": f"{self.hub.endpoint}/lfs/verify"},
            }
            objects.append({**said, "actions": actions})
        self._json({"transfer": "basic", "objects": objects})

    def _commit(self, name: str, repository: Repository) -> None:
        files = dict(repository.commits[repository.references["main"]])
        for line in self.sent.splitlines():
            said = json.loads(line)
            value = said["value"]
            if said["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif said["key"] == "lfsFile":
                files[value["path"]] = self.hub.blobs[value["oid"]]
            elif said["key"] == "deletedFile":
                del files[value["path"]]
        commit = repository.commit(files)
        url = f"{self.hub.endpoint}/{name}/commit/{commit}"
        self._json({"success": True, "commitOid": commit, "commitUrl": url})

    def _error(self, status: int, code: str, message: str) -> None:
        headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self._reply(status, json.dumps({"error": message}).encode(), headers)

    def _json(self, said: Any, status: int = 200) -> None:
        self._reply(status, json.dumps(said).encode(), {"Content-Type": "application/json"})

    def _body(self, content: bytes, headers: dict[str, str]) -> None:
        """Send a file, or the range of it that is asked for, as the fault of this request has it."""
        start, fault = 0, self.fault
        asked = None if fault and fault.whole else self.headers.get("Range")
        if asked:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                self._reply(416, b"", {"Content-Range": f"bytes */{len(content)}"})
                return
            headers = {**headers, "Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        part = content[start:]
        if fault and fault.corrupt:
            part = bytes([part[0] ^ 1]) + part[1:]
        if fault and fault.short:
            part = part[: -fault.short]
        cut = fault.drop_after if fault else -1
        self._reply(206 if asked else 200, part, headers, cut)

    def _reply(self, status: int, body: bytes, headers: dict[str, str] | None = None, cut: int = -1) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        stall = self.fault.stall if self.fault else 0
        if cut < 0:
            time.sleep(stall)
        if self.command != "HEAD":
            self.wfile.write(body if cut < 0 else body[:cut])
        if cut >= 0:
            self.wfile.flush()
            self.hub.ended.wait(stall)
            self.close_connection = True
